"""Why brokers do not answer: each address is resolved, connected to and asked for TLS. For `ingest check` only."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from confluent_kafka import KafkaException

from .admin import Admin
from .client import bootstrap_servers

_SECONDS = 2.0
_METADATA_SECONDS = 5.0
_PORT = 9092
"""librdkafka's default."""
_MOST_AT_A_TIME = 16


def bootstrap_problems(kafka: Mapping[str, str]) -> list[str]:
    """What is wrong with the addresses that the settings name. Empty when all of them can be connected to."""
    return _problems((server.strip() for server in bootstrap_servers(kafka).split(",")), _wants_tls(kafka))


def advertised_problems(admin: Admin) -> list[str]:
    """What is wrong with the addresses that the brokers tell clients. Empty also when no broker answers.

    A new client asks: one that has learned an address that leads nowhere may ask there again.
    """
    client = Admin(admin.kafka, admin.client_id, admin.logger)
    try:
        metadata = client.client().list_topics(timeout=_METADATA_SECONDS)
    except KafkaException:
        return []
    finally:
        client.close()
    addresses = [f"{broker.host}:{broker.port}" for _, broker in sorted(metadata.brokers.items())]
    return _problems(addresses, _wants_tls(admin.kafka))


def _wants_tls(kafka: Mapping[str, str]) -> bool:
    return kafka.get("security.protocol", "plaintext").lower() in ("ssl", "sasl_ssl")


def _problems(addresses: Iterable[str], wants_tls: bool) -> list[str]:
    with ThreadPoolExecutor(_MOST_AT_A_TIME) as pool:
        return [problem for problem in pool.map(lambda address: _problem(address, wants_tls), addresses) if problem]


def _problem(address: str, wants_tls: bool) -> str | None:
    parts = urlsplit(f"//{address.rpartition('://')[2]}")
    host, port = parts.hostname or "", parts.port or _PORT
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return f"{address} does not resolve on this machine"
    try:
        with socket.create_connection((host, port), _SECONDS) as connection:
            speaks_tls = _speaks_tls(connection)
    except TimeoutError:
        return f"{address} does not accept a connection within {_SECONDS:g} s"
    except OSError as error:
        return f"{address} cannot be connected to ({error.strerror or type(error).__name__})"
    if speaks_tls is True and not wants_tls:
        return f"{address} speaks TLS: set KAFKA_SECURITY_PROTOCOL to SSL, or to SASL_SSL where clients log in"
    if speaks_tls is False and wants_tls:
        return (
            f"{address} does not speak TLS: name the port of a TLS listener, or set KAFKA_SECURITY_PROTOCOL to"
            " PLAINTEXT or SASL_PLAINTEXT"
        )
    return None


def _speaks_tls(connection: socket.socket) -> bool | None:
    """Whether a TLS handshake is answered as such, whatever the certificate. None when nothing comes in time.

    A plaintext broker takes the greeting for a request of 350 MB and closes the connection.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent: only whether the other side speaks TLS is asked
    try:
        with context.wrap_socket(connection, do_handshake_on_connect=True):
            return True
    except TimeoutError:
        return None
    except ssl.SSLEOFError:
        return False
    except ssl.SSLError as error:
        return error.reason not in ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "RECORD_LAYER_FAILURE")
    except OSError:
        return False
