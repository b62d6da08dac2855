"""The writing connection of a run, which the ledger sessions of the run's streams share."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from sqlalchemy import Connection

from ..core.errors import EnvironmentFault, TableBusy
from ..core.ledger import HandoverRequest
from ..core.ledger_ports import WritingConnection
from ..core.record import OwnerRequests
from . import locks
from .database import Database, end_writing
from .errors import mapped_errors
from .locks import Backend, LockKeys

_HEARTBEAT = """
    WITH waiting AS MATERIALIZED (
        SELECT (classid::bigint << 32) | objid::bigint AS key FROM pg_locks
        WHERE locktype = 'advisory' AND granted AND objsubid = 1
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
    SELECT o.stream, s.reason, s.paused_by, coalesce(s.paused, false) AS paused,
           coalesce(bool_or(w.key = o.wait), false) AS successor_waits,
           coalesce(bool_or(w.key = o.wait_now), false) AS yield_now
    FROM unnest(CAST(:streams AS text[]), CAST(:wait AS bigint[]), CAST(:wait_now AS bigint[]))
         AS o(stream, wait, wait_now)
    LEFT JOIN waiting w ON w.key IN (o.wait, o.wait_now)
    LEFT JOIN {ledger}.stream_state s ON s.stream = o.stream
    GROUP BY o.stream, s.stream"""


class PostgresWritingConnection(WritingConnection):
    """One session with PostgreSQL. `application_name` shows the run's id.

    Args:
        shared: several streams need the session, so a statement waits for a lock or for a slow table only briefly.

    Attributes:
        generation: changes with every new connection. Locks belong to one generation.
    """

    def __init__(self, database: Database, run_id: str, shared: bool = False) -> None:
        self.database, self.run_id = database, run_id
        self.generation = 0
        self._shared = shared
        self._broken = False
        self._owned: dict[str, tuple[LockKeys, Collection[int]]] = {}
        self._lost: set[Backend] = set()  # sessions of our own that may still live
        self._heartbeat = database.schemas.sql(_HEARTBEAT)
        self._open()

    def _open(self) -> None:
        self.connection: Connection = self.database.writing_connection(self.run_id, self._shared)
        self.driver_connection: Any = self.connection.connection.dbapi_connection
        with ExitStack() as on_error:
            on_error.callback(self.close)
            with mapped_errors(f"connecting run {self.run_id[:8]}"), self.connection.begin():
                self._backend = locks.this_backend(self.connection)
            on_error.pop_all()

    @contextmanager
    def used(self) -> Iterator[Connection]:
        """The connection. An EnvironmentFault inside the block breaks the connection, except TableBusy."""
        try:
            yield self.connection
        except TableBusy:
            raise
        except EnvironmentFault:
            self._broken = True
            raise

    @contextmanager
    def transaction(self, doing: str) -> Iterator[Connection]:
        with self.used(), mapped_errors(doing), self.connection.begin():
            yield self.connection

    def repair(self, generation: int) -> None:
        """Connect again, unless the connection is newer than `generation` and works.

        Ends the old sessions. PostgreSQL grants their locks only after the old transactions have ended.
        """
        if generation != self.generation and not self._broken:
            return
        self._lost.add(self._backend)
        self.close()
        self._open()
        for backend in self._lost:
            with self.transaction("ending a lost session"):
                locks.end_backend(self.connection, backend)
        self._lost.clear()
        self.generation += 1
        self._broken = False

    def own(self, stream: str, keys: LockKeys, partitions: Collection[int]) -> None:
        """Read the requests for these partitions with every heartbeat. Without partitions, read none."""
        self._owned.pop(stream, None)
        if partitions:
            self._owned[stream] = (keys, tuple(partitions))

    def heartbeat(self) -> Mapping[str, OwnerRequests]:
        owned = [
            (stream, keys.key(HandoverRequest.AT_MAXIMUM_AGE, partition), keys.key(HandoverRequest.NOW, partition))
            for stream, (keys, partitions) in self._owned.items()
            for partition in partitions
        ]
        streams, wait, wait_now = ([entry[column] for entry in owned] for column in range(3))
        with self.transaction(f"the heartbeat of run {self.run_id[:8]}"):
            parameters = {"streams": streams, "wait": wait, "wait_now": wait_now}
            rows = self.connection.execute(self._heartbeat, parameters).all()
        return {
            row.stream: OwnerRequests(
                f"{row.reason} ({row.paused_by})" if row.paused else None, row.successor_waits, row.yield_now
            )
            for row in rows
        }

    def close(self) -> None:
        end_writing(self.connection, self.driver_connection)
