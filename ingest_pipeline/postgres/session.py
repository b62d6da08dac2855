"""The ledger session of one run: ownership and positions on one writing connection."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row

from ..core.choices import WriteMethod
from ..core.clock import SystemClock
from ..core.dead_letter_limit import LetterLimits, LetterWindow
from ..core.errors import Superseded
from ..core.ledger import HandoverRequest, Holder
from ..core.loss import Acceptance
from ..core.ports import Clock, LedgerSession
from ..core.record import Batch, CommitResult, NextOffset, OwnerRequests, Position, TopicIdentity
from ..core.stream import Stream
from . import acceptance, locks, schema
from .database import FROZEN_SECONDS, Database, end_writing
from .errors import mapped_errors
from .locks import Backend
from .statements import statements
from .window import rebuilt
from .writer import BatchWriter

POLL_SECONDS = 0.05
_LOOK_FOR_FROZEN_SECONDS = 2.0
_REOWN_SECONDS = 5.0


class PostgresLedgerSession(LedgerSession):
    """The writing connection of a run, with its locks and the owned positions.

    Args:
        run_id: stored in every owned position, and compared by every write.
        dead_letter_max_bytes: bytes of a value that a dead letter keeps.
        limits: how many records may be refused. None means any number.
        batch_size: maximum rows of one INSERT.
    """

    def __init__(
        self,
        database: Database,
        stream: Stream,
        run_id: str,
        *,
        write_method: WriteMethod = WriteMethod.COPY,
        dead_letter_max_bytes: int = 1 << 20,
        limits: LetterLimits | None = None,
        batch_size: int = 1000,
        clock: Clock | None = None,
    ) -> None:
        self._database, self._stream, self._run_id = database, stream, run_id
        self._clock: Clock = clock or SystemClock()
        self._doing = f"owning stream {stream.name}"
        self._counts: dict[int, tuple[int, int, int]] = {}
        self.positions: dict[int, Position] = {}
        self._lost: set[Backend] = set()  # sessions of our own that may still live
        self._sql = statements(stream, database.schemas)
        self._writer = BatchWriter(
            stream,
            run_id,
            statements=self._sql,
            write_method=write_method,
            dead_letter_max_bytes=dead_letter_max_bytes,
            batch_size=batch_size,
            window=LetterWindow(stream.name, limits),
            database=database,
        )
        self._open()

    def _open(self) -> None:
        self._connection: Connection = self._database.writing_connection(self._run_id)
        self._driver_connection: Any = self._connection.connection.dbapi_connection
        with ExitStack() as on_error:
            on_error.callback(self._drop_connection)
            with mapped_errors(self._doing), self._connection.begin():
                schema.verify_table(self._connection, self._stream, self._database)
                self._keys = locks.lock_keys(self._connection, self._database.schemas.ledger, self._stream.name)
                self._backend = locks.this_backend(self._connection)
            on_error.pop_all()

    def own(
        self,
        partitions: Collection[int],
        *,
        exact: bool,
        announce: HandoverRequest | None = None,
        wait_seconds: float = 0.0,
        stop: Callable[[], str | None] = lambda: None,
    ) -> dict[int, Holder]:
        deadline = self._clock.monotonic() + wait_seconds
        look_at = self._clock.monotonic()
        judged_by = look_at + FROZEN_SECONDS
        if announce is not None:
            with self._work():
                locks.announce(self._connection, self._keys, partitions, announce)
        while True:
            with self._work():
                owned = locks.try_own(self._connection, self._keys, partitions, exact)
            missing = [partition for partition in partitions if partition not in owned]
            if owned and (not missing or not exact):
                break
            if self._clock.monotonic() >= look_at:
                look_at += _LOOK_FOR_FROZEN_SECONDS
                with self._work():
                    if locks.end_frozen(self._connection, self._keys, partitions, self._database.copy_looks):
                        deadline = max(deadline, min(look_at + POLL_SECONDS, judged_by))
            if self._clock.monotonic() >= deadline or stop() is not None:
                break
            self._clock.sleep(POLL_SECONDS)
        with self._work():
            if announce is not None:
                locks.withdraw(self._connection, self._keys, partitions, announce)
            held = self._holders(missing) if missing else {}
            if owned:
                parameters = {"stream": self._stream.name, "run_id": self._run_id, "partitions": owned}
                self._connection.execute(self._sql.own, parameters)
                self._writer.window = self._window_of(owned)
            rows = self._rows(owned)
        self.positions, self._counts = _positions(rows), _counts(rows)
        return {partition: held.get(partition, Holder("unknown")) for partition in missing}

    def write(self, batch: Batch) -> CommitResult:
        written = self._writer.write(self._connection, batch)
        for partition, advance in batch.advances.items():
            self.positions[partition] = Position(partition, advance.incarnation, advance.resume_at)
            rows, letters, skipped = self._counts[partition]
            self._counts[partition] = (
                rows + written.rows.get(partition, 0),
                letters + written.dead_letters.get(partition, 0),
                skipped + advance.skipped + written.dropped.get(partition, 0),
            )
        return written

    def heartbeat(self) -> OwnerRequests:
        with self._work():
            row = self._connection.execute(
                self._sql.beat,
                {
                    "stream": self._stream.name,
                    "wait": self._keys.keys(HandoverRequest.AT_MAXIMUM_AGE, self.positions),
                    "wait_now": self._keys.keys(HandoverRequest.NOW, self.positions),
                },
            ).one()
        paused = f"{row.reason} ({row.paused_by})" if row.paused else None
        return OwnerRequests(paused, row.successor_waits, row.yield_now)

    def recover(self, batch: Batch | None) -> CommitResult | None:
        """In this order:

        1. a new connection
        2. the end of the old backend
        3. the locks, which PostgreSQL grants only after the old transaction has ended
        4. the positions
        """
        expected = self.positions
        self._lost.add(self._backend)
        self._drop_connection()
        self._open()
        for old in self._lost:
            with self._work():
                locks.end_backend(self._connection, old)
        self._own_again(expected)
        self._lost.clear()
        with self._work():
            self._writer.window = self._window_of(expected)
            rows = self._rows(list(expected))
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
        with self._work():
            acceptance.write(
                self._connection,
                self._database.schemas,
                self._stream,
                accepted,
                run_id=self._run_id,
                identity=identity,
                by=by,
            )
            rows = self._rows(self.positions)
        self.positions, self._counts = _positions(rows), _counts(rows)

    def close(self) -> None:
        self._drop_connection()

    def _own_again(self, expected: Collection[int]) -> None:
        deadline = self._clock.monotonic() + _REOWN_SECONDS
        while True:
            with self._work():
                if locks.try_own(self._connection, self._keys, expected, exact=True):
                    return
                held = self._holders(expected)
            others = {holder.run_id for holder in held.values()} - {self._run_id}
            if others or self._clock.monotonic() >= deadline:
                raise self._superseded(
                    f"run {', '.join(sorted(other[:8] for other in others)) or 'unknown'} owns them now"
                )
            self._clock.sleep(POLL_SECONDS)

    def _holders(self, partitions: Collection[int]) -> dict[int, Holder]:
        return locks.holders(self._connection, self._keys, partitions, self._database.copy_looks)

    def _window_of(self, partitions: Collection[int]) -> LetterWindow:
        return rebuilt(self._connection, self._sql, self._writer.window, partitions)

    def _rows(self, partitions: Collection[int]) -> Sequence[Row[Any]]:
        parameters = {"stream": self._stream.name, "partitions": list(partitions)}
        return self._connection.execute(self._sql.read, parameters).all()

    @contextmanager
    def _work(self) -> Iterator[None]:
        """A short transaction on the writing connection."""
        with mapped_errors(self._doing), self._connection.begin():
            yield

    def _superseded(self, why: str) -> Superseded:
        return Superseded(
            f"stream {self._stream.name}: run {self._run_id[:8]} lost its partitions: {why}", stream=self._stream.name
        )

    def _drop_connection(self) -> None:
        end_writing(self._connection, self._driver_connection)


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
