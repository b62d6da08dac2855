"""Tests the brokers' addresses for `ingest check`: name resolution, connection and TLS."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from confluent_kafka import KafkaException

from ..core import certificates
from .admin import Admin
from .client import bootstrap_servers

_SECONDS = 2.0
_METADATA_SECONDS = 5.0
_PORT = 9092
"""librdkafka's default port."""
_MAX_PARALLEL = 16


def bootstrap_problems(kafka: Mapping[str, str]) -> list[str]:
    """Problems with the addresses in the settings. Empty when every address accepts a connection."""
    return _problems((server.strip() for server in bootstrap_servers(kafka).split(",")), kafka)


def advertised_problems(admin: Admin) -> list[str]:
    """Problems with the addresses that brokers advertise to clients. Also empty when no broker answers.

    A new client asks, because an old client may ask a wrong advertised address again.
    """
    client = Admin(admin.kafka, admin.client_id, admin.logger)
    try:
        metadata = client.client().list_topics(timeout=_METADATA_SECONDS)
    except KafkaException:
        return []
    finally:
        client.close()
    addresses = [f"{broker.host}:{broker.port}" for _, broker in sorted(metadata.brokers.items())]
    return _problems(addresses, admin.kafka)


def _problems(addresses: Iterable[str], kafka: Mapping[str, str]) -> list[str]:
    with ThreadPoolExecutor(_MAX_PARALLEL) as pool:
        return [problem for problem in pool.map(lambda address: _problem(address, kafka), addresses) if problem]


def _problem(address: str, kafka: Mapping[str, str]) -> str | None:
    wants_tls = kafka.get("security.protocol", "plaintext").lower() in ("ssl", "sasl_ssl")
    parts = urlsplit(f"//{address.rpartition('://')[2]}")
    host, port = parts.hostname or "", parts.port or _PORT
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return f"{address} does not resolve on this machine"
    try:
        with socket.create_connection((host, port), _SECONDS) as connection:
            uses_tls = _uses_tls(connection)
    except TimeoutError:
        return f"{address} does not accept a connection within {_SECONDS:g} s"
    except OSError as error:
        return f"{address} cannot be reached ({error.strerror or type(error).__name__})"
    if uses_tls is None:
        return f"{address} accepts a connection and answers nothing within {_SECONDS:g} s"
    if uses_tls is True and not wants_tls:
        return f"{address} uses TLS: set KAFKA_SECURITY_PROTOCOL to SSL, or to SASL_SSL if clients log in"
    if uses_tls is False and wants_tls:
        return (
            f"{address} does not use TLS: use the port of a TLS listener, or set KAFKA_SECURITY_PROTOCOL to"
            " PLAINTEXT or SASL_PLAINTEXT"
        )
    if uses_tls and (reason := _certificate_refusal(host, port, kafka)):
        return f"{address} has a certificate that is refused: {reason}. Check KAFKA_SSL_CA_LOCATION and the certificate"
    return None


def _certificate_refusal(host: str, port: int, kafka: Mapping[str, str]) -> str | None:
    """None also where the properties take authorities from elsewhere than a file, or verify nothing."""
    authorities = kafka.get("ssl.ca.location")
    if authorities is None or kafka.get("enable.ssl.certificate.verification", "true").lower() in ("false", "f", "0"):
        return None
    check_name = kafka.get("ssl.endpoint.identification.algorithm", "https") == "https"
    return certificates.refusal(host, port, authorities, check_name=check_name)


def _uses_tls(connection: socket.socket) -> bool | None:
    """Whether the server answers a TLS handshake, whatever its certificate. None without an answer in time.

    A plaintext broker takes the handshake for a request of 350 MB and closes the connection.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # no data is sent after the handshake
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
