"""Connections: a pool for queries, and single detached connections for runs that write."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import psycopg
from psycopg import pq
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool

from ..core.documents import json_text
from ..core.errors import SchemaMismatch
from . import copy, pooler
from .copy_progress import CopyLooks
from .errors import READ_ONLY, READ_ONLY_ADVICE, mapped_errors
from .no_session import NoSession, connect
from .session_settings import QUESTION, SET_SESSION, SET_TRANSACTION, SHARED, STATEMENT_SECONDS, WRITING, parameters
from .sql import Schemas

APPLICATION_PREFIX = "ingest "
"""`application_name` of a writing session is this prefix and the run's id, which shows the run in pg_stat_activity."""

_CONNECT_ARGS = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""DATABASE_URL may override these."""
_PREPARE_THRESHOLD = 5
ENCODING = "UTF8"
ENCODING_ADVICE = (
    "text of another language could not be stored: make a database with ENCODING 'UTF8' TEMPLATE template0"
)


class Database:
    """One PostgreSQL database.

    Args:
        sqlalchemy_url: `postgresql+psycopg://…`.
        pool_min: connections that stay open after use. None is opened in advance.
        pool_max: maximum number of pooled connections. Writing connections do not count.
        synchronous_commit: of every session. "off" is safe here: a crash loses positions together with their rows, and
            Kafka still has the records. A reader may see rows that vanish for a moment.
    """

    def __init__(
        self,
        sqlalchemy_url: str,
        schemas: Schemas | None = None,
        *,
        pool_min: int = 5,
        pool_max: int = 20,
        synchronous_commit: str = "on",
    ) -> None:
        self.schemas = schemas or Schemas()
        self.copy_looks = CopyLooks()
        own = {"synchronous_commit": synchronous_commit}
        self._own, self._question = own, {**QUESTION, **own}
        url = make_url(sqlalchemy_url)
        self.engine: Engine = create_engine(
            url,
            poolclass=QueuePool,
            pool_size=pool_min,
            max_overflow=pool_max - pool_min,
            pool_pre_ping=True,
            pool_timeout=5,
            connect_args={
                **{name: value for name, value in _CONNECT_ARGS.items() if name not in url.query},
                "application_name": "ingest",
                "prepare_threshold": None,  # a pooler in transaction mode would lose what is prepared
            },
            client_encoding="utf8",
            isolation_level="READ COMMITTED",
            hide_parameters=True,
            json_serializer=json_text,
        )
        self.where = _place(self.engine)
        """Servers and database for messages, without user and password."""
        copy.install(self.engine)
        event.listen(self.engine, "do_connect", connect)
        event.listen(self.engine, "handle_error", _discard_read_only)

    @contextmanager
    def connect(self, doing: str, statement_seconds: int = STATEMENT_SECONDS) -> Iterator[Connection]:
        """A pooled connection for one transaction. Commits at the end, rolls back after an exception.

        Args:
            statement_seconds: statement time-out, 0 for none (migrations). The lock time-out is always 5 s.

        Raises: the errors of `mapped_errors`, with `doing` in the message.
        """
        pools = {self.engine.pool}
        try:
            with mapped_errors(f"{doing} at {self.where}"), self._writable(statement_seconds) as connection:
                pools.add(self.engine.pool)
                yield connection
                connection.commit()
        finally:
            for pool in pools - {self.engine.pool}:
                pool.dispose()  # another thread has replaced the pool, and would leave this session open

    def _writable(self, statement_seconds: int) -> Connection:
        """A pooled connection in a transaction, on a server that accepts writes.

        A pooled session may still be connected to a replaced primary, whose answers are stale. In this case the pool is
        emptied, and a second attempt connects to the new primary.
        """
        settings = parameters({**self._question, "statement_timeout": f"{statement_seconds}s"})
        for _ in range(2):
            connection = self.engine.connect()
            with ExitStack() as unless_writable:
                unless_writable.callback(connection.close)
                if not connection.execute(SET_TRANSACTION, settings).one().read_only:
                    unless_writable.pop_all()
                    return connection
                connection.invalidate()
            self.engine.dispose()
        raise NoSession(READ_ONLY_ADVICE, READ_ONLY)

    def writing_connection(self, run_id: str, shared: bool = False) -> Connection:
        """A detached connection. Its application_name contains the run's id, and the server ends its session without
        signs of life.

        Do not use the connection after a disconnect: SQLAlchemy would reconnect to another backend, without the locks.

        Args:
            shared: several streams write on the connection, so their statements wait only briefly for a lock or a slow
                table.

        Raises:
            SchemaMismatch: the database's encoding is not UTF8.
            DatabaseUnavailable: also for a read-only server, and for a pooler that is not in session mode.
        """
        with mapped_errors(f"connecting to {self.where}"), ExitStack() as on_error:
            connection = self._detached(on_error)
            driver_connection: Any = connection.connection.dbapi_connection
            if self._keeps_sessions(connection) is False:
                raise NoSession(pooler.REFUSAL)
            if (encoding := driver_connection.info.parameter_status("server_encoding")) != ENCODING:
                raise SchemaMismatch(f"the database at {self.where} is encoded in {encoding}: {ENCODING_ADVICE}")
            own = {**self._own, **(SHARED if shared else {})}
            settings = parameters({**WRITING, **own, "application_name": f"{APPLICATION_PREFIX}{run_id}"})
            if connection.execute(SET_SESSION, settings).one().read_only:
                self.engine.dispose()
                raise NoSession(READ_ONLY_ADVICE, READ_ONLY)
            connection.commit()
            driver_connection.prepare_threshold = _PREPARE_THRESHOLD
            on_error.pop_all()
            return connection

    def pooler_keeps_sessions(self) -> bool | None:
        """Whether the pooler is in session mode. None without a pooler."""
        with mapped_errors(f"connecting to {self.where}"), ExitStack() as at_end:
            return self._keeps_sessions(self._detached(at_end))

    def _keeps_sessions(self, connection: Connection) -> bool | None:
        driver_connection: Any = connection.connection.dbapi_connection
        if not pooler.has_pooler(driver_connection):
            return None
        with ExitStack() as at_end:
            spare: Any = self._detached(at_end).connection.dbapi_connection
            return pooler.keeps_sessions(spare)

    def _detached(self, at_end: ExitStack) -> Connection:
        connection = self.engine.connect()
        connection.detach()
        at_end.callback(end_writing, connection, connection.connection.dbapi_connection)
        return connection

    def dispose(self) -> None:
        self.engine.dispose()


def _place(engine: Engine) -> str:
    """Every host with its port, and the database, including values from libpq's environment variables."""
    _, arguments = engine.dialect.create_connect_args(engine.url)
    defaults = {option.keyword.decode(): (option.val or b"").decode() for option in pq.Conninfo.get_defaults()}
    host, port, database = (str(arguments.get(name) or defaults[name]) for name in ("host", "port", "dbname"))
    hosts, ports = host.split(","), port.split(",")
    pairs = zip(hosts, ports * len(hosts) if len(ports) == 1 else ports, strict=False)
    servers = [f"{host or 'local socket'}:{port or 5432}" for host, port in pairs]
    return f"{','.join(servers)}/{database}"


def _discard_read_only(context: ExceptionContext) -> None:
    """Empty the pool after an error of a read-only server, because another server may have replaced it."""
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True


def end_writing(connection: Connection, driver_connection: Any) -> None:
    """End the session of a writing connection in any state, and release its locks. Never raises.

    SQLAlchemy does not close an invalidated detached connection, and an open session would keep its locks.
    """
    with suppress(psycopg.Error):
        driver_connection.close()
    with suppress(SQLAlchemyError):
        connection.invalidate()
    with suppress(SQLAlchemyError):
        connection.close()
