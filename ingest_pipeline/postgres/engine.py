"""Connections: a pool for questions, and single detached connections for runs that write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool

from . import copy
from .errors import mapped_errors
from .queries import quoted

APPLICATION_PREFIX = "ingest "
"""`application_name` of a writing session is this and the run's id: so a run can be seen in pg_stat_activity."""

_CONNECT_ARGS = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
FROZEN_SECONDS = 20
"""After this long without a sign of life a session is ended: by the server between statements, by a waiter in COPY."""
_SESSION = {
    "idle_session_timeout": f"{FROZEN_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{FROZEN_SECONDS}s",
    "lock_timeout": "5s",
    "statement_timeout": "60s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "default_transaction_isolation": "read committed",
    "plan_cache_mode": "force_generic_plan",  # the statements of a batch are always the same: plan them once
    "timezone": "UTC",
}


def in_text(name: str) -> str:
    """A name as an identifier inside SQLAlchemy's `text`, which takes `:word` for a parameter."""
    return quoted(name).replace(":", "\\:")


@dataclass(frozen=True)
class Schemas:
    """Names of the schema that holds the event tables and of the ledger's."""

    events: str = "public"
    ledger: str = "ingest"


_SET_ALL = text("""
    SELECT set_config(name, value, false)
    FROM unnest(CAST(:names AS text[]), CAST(:values AS text[])) AS given(name, value)""")


class Database:
    """One PostgreSQL database.

    Args:
        sqlalchemy_url: `postgresql+psycopg://…`.
        pool_min: connections kept once opened; none is opened before it is needed.
        pool_max: most connections at a time, writing ones not counted.
        synchronous_commit: of writing connections. "off" is safe here: positions are lost together with the rows they
            cover, and Kafka still has the records; a reader may see rows that vanish for a moment.
    """

    def __init__(
        self,
        sqlalchemy_url: str,
        schemas: Schemas | None = None,
        pool_min: int = 5,
        pool_max: int = 20,
        synchronous_commit: str = "on",
    ) -> None:
        self.schemas = schemas or Schemas()
        self._writing = {"synchronous_commit": synchronous_commit}
        self.engine: Engine = create_engine(
            sqlalchemy_url,
            poolclass=QueuePool,
            pool_size=pool_min,
            max_overflow=pool_max - pool_min,
            pool_pre_ping=True,
            pool_timeout=5,
            connect_args={**_CONNECT_ARGS, "application_name": "ingest"},
            hide_parameters=True,
        )
        copy.install(self.engine)

    @property
    def where(self) -> str:
        """host:port/database, for messages. No user, no password."""
        url = self.engine.url
        return f"{url.host or 'local socket'}:{url.port or 5432}/{url.database}"

    @contextmanager
    def connect(self, doing: str) -> Iterator[Connection]:
        """A pooled connection for a short piece of work; commits at the end, rolls back on an exception.

        Raises: what `mapped_errors` raises, said of `doing`.
        """
        with mapped_errors(f"{doing} at {self.where}"), self.engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = '5s'; SET LOCAL lock_timeout = '5s'"))
            yield connection

    def writing_connection(self, run_id: str) -> Connection:
        """A connection of its own, not pooled, whose session bears the run's id and ends when it shows no life.

        Never use it again after a disconnect: SQLAlchemy would come back on another backend, without the locks.
        """
        with mapped_errors(f"connecting to {self.where}"):
            connection = self.engine.connect()
            connection.detach()
            settings = {**_SESSION, **self._writing, "application_name": f"{APPLICATION_PREFIX}{run_id}"}
            connection.execute(_SET_ALL, {"names": list(settings), "values": list(settings.values())})
            connection.commit()
            return connection

    def dispose(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def end_writing(connection: Connection, driver_connection: Any) -> None:
    """End a writing connection's session, whatever its state; its locks go with it. Never raises.

    SQLAlchemy does not close a detached connection that it invalidates: the session would keep its locks.
    """
    with suppress(psycopg.Error):
        driver_connection.close()
    with suppress(SQLAlchemyError):
        connection.invalidate()
    with suppress(SQLAlchemyError):
        connection.close()
