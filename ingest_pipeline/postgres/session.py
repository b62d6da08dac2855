"""The ledger session of one stream: ownership and positions on the run's writing connection."""

from collections.abc import Collection, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row

from ..core.choices import WriteMethod
from ..core.clock import SystemClock
from ..core.dead_letter_limit import WINDOW, LetterLimits, LetterWindow, Refusal
from ..core.errors import EnvironmentFault, Superseded
from ..core.ledger import HandoverRequest, Holder
from ..core.ledger_ports import LedgerSession
from ..core.loss import Acceptance
from ..core.ownership import POLL_SECONDS
from ..core.ports import Clock
from ..core.record import Batch, CommitResult, NextOffset, Position, TopicIdentity
from ..core.stream import Stream
from . import acceptance, locks, schema
from .copy_progress import CopyLooks
from .locks import LockKeys
from .statements import Statements
from .writer import BatchWriter
from .writing_connection import PostgresWritingConnection

_REOWN_SECONDS = 5.0


class PostgresLedgerSession(LedgerSession):
    """A stream's locks, owned positions and writer.

    Args:
        limits: how many records may be refused. None means any number.
        verify: compare the table with its declaration. The first batch does so in any case.
    """

    def __init__(
        self,
        connection: PostgresWritingConnection,
        stream: Stream,
        *,
        write_method: WriteMethod = WriteMethod.COPY,
        dead_letter_max_bytes: int = 1 << 20,
        limits: LetterLimits | None = None,
        rows_per_insert: int = 1000,
        clock: Clock | None = None,
        verify: bool = True,
    ) -> None:
        self.connection = connection
        self._database, self._stream, self._run_id = connection.database, stream, connection.run_id
        self._clock: Clock = clock or SystemClock()
        self._doing = f"owning stream {stream.name}"
        self._counts: dict[int, tuple[int, int, int]] = {}
        self.positions: dict[int, Position] = {}
        self._announced: list[tuple[HandoverRequest, Collection[int]]] = []
        self._generation = connection.generation
        self._sql = Statements(stream, self._database.schemas)
        self._writer = BatchWriter(
            stream,
            self._run_id,
            statements=self._sql,
            write_method=write_method,
            dead_letter_max_bytes=dead_letter_max_bytes,
            rows_per_insert=rows_per_insert,
            window=LetterWindow(stream.name, limits),
            database=self._database,
        )
        with connection.transaction(self._doing) as opened:
            if verify:
                schema.verify_table(opened, stream, self._database)
            oid = locks.position_table_oid(opened, self._database.schemas.ledger)
        self._keys = LockKeys(oid, stream.name)

    def own(self, partitions: Collection[int], *, exact: bool) -> dict[int, Holder]:
        with self.connection.transaction(self._doing) as connection:
            owned = locks.try_own(connection, self._keys, partitions, exact)
            missing = [partition for partition in partitions if partition not in owned]
            holders = self._holders(missing) if missing else {}
        if owned:
            with ExitStack() as on_error:
                on_error.callback(self._unlock, owned)
                self._take(owned)
                on_error.pop_all()
        return {partition: holders.get(partition, Holder("unknown")) for partition in missing}

    def _take(self, owned: Collection[int]) -> None:
        with self.connection.transaction(self._doing) as connection:
            parameters = {"stream": self._stream.name, "run_id": self._run_id, "partitions": owned}
            connection.execute(self._sql.own, parameters)
            self._writer.window = self._window_of(owned)
            rows = self._rows(owned)
        self.positions, self._counts = _positions(rows), _counts(rows)
        self._generation = self.connection.generation
        self.connection.own(self._stream.name, self._keys, owned)

    def announce(self, request: HandoverRequest, partitions: Collection[int]) -> None:
        with self.connection.transaction(self._doing) as connection:
            locks.announce(connection, self._keys, partitions, request)
        self._announced.append((request, partitions))

    def withdraw(self) -> None:
        with self.connection.transaction(self._doing) as connection:
            for request, partitions in self._announced:
                locks.withdraw(connection, self._keys, partitions, request)
        self._announced.clear()

    def end_frozen_owners(self, partitions: Collection[int]) -> bool:
        with self.connection.transaction(self._doing) as connection:
            return locks.end_frozen(connection, self._keys, partitions, self._database.copy_looks)

    def release(self) -> None:
        owned = list(self.positions)
        self.positions, self._counts = {}, {}
        self.connection.own(self._stream.name, self._keys, ())
        if self._generation == self.connection.generation:
            self._unlock(owned)

    def _unlock(self, partitions: Collection[int]) -> None:
        with suppress(EnvironmentFault), self.connection.transaction(self._doing) as connection:
            locks.release(connection, self._keys, partitions)

    def write(self, batch: Batch) -> CommitResult:
        with self.connection.used() as connection:
            written = self._writer.write(connection, batch)
        for partition, advance in batch.advances.items():
            self.positions[partition] = Position(partition, advance.incarnation, advance.resume_at)
            rows, letters, skipped = self._counts[partition]
            self._counts[partition] = (
                rows + written.rows.get(partition, 0),
                letters + written.dead_letters.get(partition, 0),
                skipped + advance.skipped + written.dropped.get(partition, 0),
            )
        return written

    def recover(self, batch: Batch | None) -> CommitResult | None:
        """In this order:

        1. a new connection, unless another stream's session has opened one, and the end of the old one
        2. the locks
        3. the positions
        """
        self.connection.repair(self._generation)
        expected = self.positions
        with ExitStack() as on_error:
            self._own_again(expected)
            on_error.callback(self._unlock, expected)
            with self.connection.transaction(self._doing):
                self._writer.window = self._window_of(expected)
                rows = self._rows(list(expected))
            on_error.pop_all()
        self._generation = self.connection.generation
        if any(row.run_id != self._run_id for row in rows):
            raise self._superseded("another run has taken the positions")
        now = _positions(rows)
        advances = batch.advances if batch is not None else {}
        settled = {
            p: replace(position, resume_at=advances[p].resume_at) if p in advances else position
            for p, position in expected.items()
        }
        if now not in (expected, settled):
            raise self._superseded("a position is neither what it was nor what this run wrote")
        before, self._counts = self._counts, _counts(rows)
        self.positions = now
        if now == expected:
            return None
        added = {p: [new - old for new, old in zip(self._counts[p], before[p], strict=True)] for p in advances}
        return CommitResult(
            {p: rows for p, (rows, _, _) in added.items()},
            {p: letters for p, (_, letters, _) in added.items()},
            dropped={p: skipped - advances[p].skipped for p, (_, _, skipped) in added.items()},
        )

    def accept(self, accepted: Sequence[Acceptance], identity: TopicIdentity, by: str) -> None:
        with self.connection.transaction(self._doing) as connection:
            acceptance.write(
                connection,
                self._database.schemas,
                self._stream,
                accepted,
                run_id=self._run_id,
                identity=identity,
                by=by,
            )
            rows = self._rows(self.positions)
        self.positions, self._counts = _positions(rows), _counts(rows)

    def _own_again(self, expected: Collection[int]) -> None:
        deadline = self._clock.monotonic() + _REOWN_SECONDS
        while True:
            with self.connection.transaction(self._doing) as connection:
                if locks.try_own(connection, self._keys, expected, exact=True):
                    return
                holders = self._holders(expected)
            others = {holder.run_id for holder in holders.values()} - {self._run_id}
            if others or self._clock.monotonic() >= deadline:
                raise self._superseded(
                    f"run {', '.join(sorted(other[:8] for other in others)) or 'unknown'} owns them now"
                )
            self._clock.sleep(POLL_SECONDS)

    def _holders(self, partitions: Collection[int]) -> dict[int, Holder]:
        """Owners by a single look, which does not tell whether a COPY makes progress."""
        looks = CopyLooks()
        looks.frozen_seconds = self._database.copy_looks.frozen_seconds
        return locks.holders(self.connection.connection, [(self._keys, partitions)], looks)[0]

    def _window_of(self, partitions: Collection[int]) -> LetterWindow:
        return rebuilt_window(self.connection.connection, self._sql, self._writer.window, partitions)

    def _rows(self, partitions: Collection[int]) -> Sequence[Row[Any]]:
        parameters = {"stream": self._stream.name, "partitions": list(partitions)}
        return self.connection.connection.execute(self._sql.read, parameters).all()

    def _superseded(self, why: str) -> Superseded:
        return Superseded(
            f"stream {self._stream.name}: run {self._run_id[:8]} lost its partitions: {why}", stream=self._stream.name
        )


def _positions(rows: Sequence[Row[Any]]) -> dict[int, Position]:
    return {
        row.kafka_partition: Position(
            row.kafka_partition, row.kafka_incarnation, NextOffset(row.next_offset, row.leader_epoch)
        )
        for row in rows
    }


def _counts(rows: Sequence[Row[Any]]) -> dict[int, tuple[int, int, int]]:
    """Partition → rows, dead letters and skipped records."""
    return {row.kafka_partition: (row.rows, row.dead_letters, row.skipped) for row in rows}


def rebuilt_window(
    connection: Connection, sql: Statements, window: LetterWindow, partitions: Collection[int]
) -> LetterWindow:
    """The dead-letter limit's window, from the newest rows and open dead letters of earlier runs.

    Rows are read only if such a letter exists. Allowed, redriven and discarded letters do not count, because an
    operator has seen them.
    """
    parameters = {"stream": window.stream, "partitions": list(partitions), "window": WINDOW}
    if window.limits is None or connection.execute(sql.letters, parameters).first() is None:
        return window.rebuilt([])
    newest = connection.execute(sql.recent, parameters).all()
    return window.rebuilt(
        None if row.reason is None else Refusal(row.kafka_partition, row.kafka_offset, row.reason)
        for row in reversed(newest)
    )
