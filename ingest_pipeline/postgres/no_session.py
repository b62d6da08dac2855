"""The reason why PostgreSQL refused a session: SQLSTATE, and what to do.

psycopg raises an OperationalError without SQLSTATE for every failed connection attempt. libpq adds the SQLSTATE to its
message after PQsetErrorVerbosity, which psycopg does not offer. `_answer` therefore tries again and calls the function
through ctypes. Server messages are no substitute, because they are translated.
"""

import ctypes
import re
import select
import struct
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from ..core import certificates

_ANSWER_SECONDS = 5.0
_SQLSTATE_ONLY = 3  # PQERRORS_SQLSTATE
_STATE = re.compile(r"\S:  ([0-9A-Z]{5})$", re.MULTILINE)  # behind the severity, which may be translated
_SERVER_LINE = re.compile(r"^.*(connection to server .*)$", re.MULTILINE)
_TLS_MODES = ("require", "verify-ca", "verify-full")
_TCP = (pq.ConnStatus.STARTED, pq.ConnStatus.BAD)
_BY_STATE = {
    "08P01": "the pooler or proxy before PostgreSQL refuses the session: its log says why",
    "28000": "the login is refused: check the role, pg_hba.conf, and sslmode and user in DATABASE_URL",
    "28P01": "the password or the user is refused: check DATABASE_URL",
    "3D000": "there is no such database: check DATABASE_URL, or create it",
    "42501": "the role may not use this database: GRANT CONNECT ON DATABASE to it",
    "53300": "the server, the database or the role has no free session (max_connections, reserved slots, CONNECTION"
    " LIMIT): let small streams share a job (job=), lower PARALLELISM or DATABASE_POOL_MAX, raise the limit, or put a"
    " pooler in session mode between",
    "55000": "the database takes no sessions: ALTER DATABASE … ALLOW_CONNECTIONS true",
    "57P03": "PostgreSQL starts up, shuts down or recovers: it takes sessions again when that is done",
}
_UNREACHABLE = "PostgreSQL is not reachable. Check that it runs and that DATABASE_URL names it"
_NO_TLS = "PostgreSQL answers, and TLS with it failed: check sslmode and the certificates in DATABASE_URL"
_CERTIFICATE = (
    "PostgreSQL answers, and its certificate is refused: check sslrootcert and the host in DATABASE_URL, and the"
    " certificate's dates"
)
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_NO_PASSWORD = "PostgreSQL asks for a password, and DATABASE_URL has none"  # noqa: S105 (no password)
_NO_PRIMARY = (
    "no server that DATABASE_URL names is of the kind that target_session_attrs asks for: the primary is away, or no"
    " standby has been promoted yet"
)
_REFUSED = "PostgreSQL, or a proxy before it, ended the connection before there was a session. Check that it runs"
_UNKNOWN_OPTION = "DATABASE_URL has an option that PostgreSQL's client does not know"


class NoSession(Exception):
    """PostgreSQL gave no usable session. The message says why and what to do."""

    def __init__(self, words: str, sqlstate: str | None = None) -> None:
        super().__init__(words)
        self.words, self.sqlstate = words, sqlstate


@dataclass(frozen=True, slots=True)
class _Answer:
    """The end of a connection attempt: its SQLSTATE, or the last step reached."""

    sqlstate: str | None
    status: int
    needs_password: bool


def connect(_dialect: Any, _record: Any, arguments: Any, parameters: dict[str, Any]) -> psycopg.Connection[Any]:
    """Handler for SQLAlchemy's event `do_connect`. Raises NoSession for every failed attempt."""
    try:
        return psycopg.connect(*arguments, **parameters)
    except psycopg.errors.ConnectionTimeout as error:
        raise NoSession(f"{_UNREACHABLE}: {_server_answers(error)}") from error
    except psycopg.OperationalError as error:
        answer = _answer(parameters)
        raise NoSession(f"{_words(answer, parameters)}: {_server_answers(error)}", answer.sqlstate) from error
    except psycopg.ProgrammingError as error:
        raise NoSession(f"{_UNKNOWN_OPTION}: {_server_answers(error)}") from error


def _words(answer: _Answer, parameters: Mapping[str, Any]) -> str:
    if answer.sqlstate is not None:
        return f"{answer.sqlstate}, {_BY_STATE.get(answer.sqlstate, _REFUSED)}"
    if answer.needs_password:
        return _NO_PASSWORD
    if answer.status in _TCP:
        return _UNREACHABLE
    if answer.status == pq.ConnStatus.SSL_STARTUP and parameters.get("sslmode") in _TLS_MODES:
        reason = _certificate_refusal(parameters)
        return _NO_TLS if reason is None else f"{_CERTIFICATE}: {reason}"
    if answer.status != pq.ConnStatus.OK and parameters.get("target_session_attrs", "any") != "any":
        return _NO_PRIMARY
    return _REFUSED


def _certificate_refusal(parameters: Mapping[str, Any]) -> str | None:
    """Of the first server whose certificate is refused."""
    mode = parameters["sslmode"]
    if mode == "require":
        return None
    root = parameters.get("sslrootcert") or str(Path("~/.postgresql/root.crt").expanduser())
    hosts = str(parameters.get("host", "")).split(",")
    ports = str(parameters.get("port", 5432)).split(",")
    for host, port in zip(hosts, ports * len(hosts) if len(ports) == 1 else ports, strict=False):
        reason = certificates.refusal(
            host,
            int(port or 5432),
            None if root == "system" else root,
            check_name=mode == "verify-full",
            before_tls=_SSL_REQUEST,
        )
        if reason is not None:
            return reason
    return None


def _answer(parameters: dict[str, Any]) -> _Answer:
    """Try again to learn the SQLSTATE. None if the server accepts the attempt."""
    options = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    conninfo = make_conninfo("", **{name: value for name, value in parameters.items() if name in options})
    connection = pq.PGconn.connect_start(conninfo.encode())
    try:
        _ask_for_sqlstate(connection)
        status = _poll(connection)
        states = _STATE.findall(connection.error_message.decode(errors="replace"))
        return _Answer(states[-1] if states else None, status, connection.needs_password)
    finally:
        connection.finish()


def _ask_for_sqlstate(connection: Any) -> None:
    """Without access to libpq's function through psycopg's module, the answer has no SQLSTATE."""
    module = sys.modules[pq.PGconn.__module__]
    path = pq.misc.find_libpq_full_path() if pq.__impl__ == "python" else module.__file__
    try:
        set_verbosity = ctypes.CDLL(path).PQsetErrorVerbosity
    except (AttributeError, OSError):
        return
    set_verbosity.argtypes = [ctypes.c_void_p, ctypes.c_int]
    set_verbosity(connection.pgconn_ptr, _SQLSTATE_ONLY)


def _poll(connection: Any) -> int:
    """The last status before the attempt ended, or OK."""
    deadline = time.monotonic() + _ANSWER_SECONDS
    status = int(connection.status)
    while connection.status != pq.ConnStatus.BAD and time.monotonic() < deadline:
        status = int(connection.status)
        polled = connection.connect_poll()
        if polled == pq.PollingStatus.OK:
            return int(pq.ConnStatus.OK)
        if polled == pq.PollingStatus.FAILED:
            break
        socket = [connection.socket]
        reading = polled == pq.PollingStatus.READING
        select.select(socket if reading else [], [] if reading else socket, [], deadline - time.monotonic())
    return status


def _server_answers(error: psycopg.Error) -> str:
    """libpq's line for every server it tried."""
    lines = [line.strip() for line in _SERVER_LINE.findall(str(error))]
    return "; ".join(dict.fromkeys(lines)) or str(error).strip().split("\n")[0]
