"""The in-memory parts with a pause at each point where something may happen, and an eye on what passes through them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from ingest_pipeline.core.dead_letter_limit import LetterLimits
from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.errors import (
    DatabaseUnavailable,
    IngestError,
    LedgerConflict,
    NotPermitted,
    SchemaMismatch,
    StopStream,
    Superseded,
    UnknownFault,
)
from ingest_pipeline.core.ledger import HandoverRequest, Replayed
from ingest_pipeline.core.loss import Acceptance
from ingest_pipeline.core.ports import Clock
from ingest_pipeline.core.record import Batch, Chunk, CommitResult, NextOffset, OwnerRequests, TopicIdentity
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.testing import Fault, MemoryDatabase, MemoryLedgerSession, MemoryMissingRows, MemorySource
from ingest_pipeline_tests.simulation.jobs import current, pause, watched
from ingest_pipeline_tests.simulation.model import mended

if TYPE_CHECKING:
    from ingest_pipeline_tests.simulation.world import World


REFUSALS = (DatabaseUnavailable, NotPermitted, SchemaMismatch, LedgerConflict, UnknownFault)
"""What PostgreSQL may say to a write on a connection that lives on, its transaction rolled back.

One of the environment's stands for all: disk full (53), serialization and deadlock (40), no lock in time (55P03), a
statement canceled (57014) and the others of postgres/errors.py are DatabaseUnavailable before core sees them.
"""
Break = Fault | type[IngestError] | None


class SimDatabase(MemoryDatabase):
    """Knows the world, as its ledgers are made by product code that does not.

    Attributes:
        breaks: what the next writes are going to meet, one entry each; None lets one pass.
        refusal: what the write that is going on is going to be told.
    """

    world: World

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.breaks: deque[Break] = deque()
        self.refusal: type[IngestError] | None = None

    def next_fault(self) -> Fault | None:
        found = self.breaks.popleft() if self.breaks else None
        self.refusal = found if isinstance(found, type) else None
        return found if isinstance(found, Fault) else None


class SimSource(MemorySource):
    world: World

    def assign(self, offsets: Mapping[int, NextOffset]) -> None:
        job = current()
        if job is not None:
            job.since = self.world.model.reading()
            if job.watch is not None:
                job.watch.starts()
        super().assign(offsets)

    def read(self, max_records: int, timeout_seconds: float) -> Chunk:
        watch = watched()
        if watch is not None:
            watch.reads()
        pause("read")
        chunk = super().read(max_records, timeout_seconds)
        if watch is not None:
            watch.took(chunk.messages)
        return chunk

    def acknowledge(self, offsets: Mapping[int, NextOffset]) -> None:
        pause("acknowledge")
        super().acknowledge(offsets)
        self.world.checks.acknowledged(offsets)


@cache
def _decoder(stream: Stream, naive_timestamps: str) -> JsonDecoder:
    return JsonDecoder(stream, naive_timestamps)  # making one costs more than a whole run here


class SimDecoder:
    """JsonDecoder, or its mended successor."""

    def __init__(self, stream: Stream, naive_timestamps: str = "utc") -> None:
        self._decoder = _decoder(stream, naive_timestamps)
        job = current()
        self._mended = job is not None and job.mended

    def decode(self, value: bytes) -> tuple[Any, ...]:
        pause("decode")
        return self._decoder.decode(mended(value) if self._mended else value)

    def decode_many(self, values: Sequence[bytes | None]) -> tuple[list[tuple[Any, ...]], list[int]]:
        pause("decode")
        if self._mended:
            values = [None if value is None else mended(value) for value in values]
        return self._decoder.decode_many(values)


class SimLedgerSession(MemoryLedgerSession):
    def __init__(
        self,
        database: SimDatabase,
        stream: Stream,
        run_id: str,
        dead_letter_max_bytes: int,
        limits: LetterLimits | None,
    ) -> None:
        self._world = database.world
        self._streak = 0
        super().__init__(database, stream, run_id, dead_letter_max_bytes, limits)
        job = current()
        if job is not None:
            self._world.processes.sessions[job] = self

    def own(
        self,
        partitions: Collection[int],
        *,
        exact: bool,
        announce: HandoverRequest | None = None,
        wait_seconds: float = 0.0,
        stop: Callable[[], str | None] = lambda: None,
    ) -> dict[int, Any]:
        pause("own")
        others = super().own(partitions, exact=exact, announce=announce, wait_seconds=wait_seconds, stop=stop)
        self._world.checks.taken(self._run_id, self.positions)
        return dict(others)

    def write(self, batch: Batch) -> CommitResult:
        watch = watched()
        assert watch is not None
        watch.writes(batch)
        pause("write")
        try:
            written = super().write(batch)
        except IngestError as error:
            self._world.count[f"write: {type(error).__name__}"] += 1
            raise
        finally:
            self._streak = self._world.checks.written(self._run_id, batch, self._streak)
        watch.committed(batch)
        pause("written")
        return written

    def recover(self, batch: Batch | None) -> CommitResult | None:
        pause("recover")
        self._streak = 0
        try:
            settled = super().recover(batch)
        except Superseded:
            self._world.count["recover: Superseded"] += 1
            raise
        if batch is not None:
            self._world.checks.settled(batch, settled)
            if settled is not None and (watch := watched()) is not None:
                watch.committed(batch)
            self._world.count["in doubt: committed" if settled is not None else "in doubt: not committed"] += 1
        return settled

    def heartbeat(self) -> OwnerRequests:
        pause("heartbeat")
        return super().heartbeat()

    def accept(self, accepted: Sequence[Acceptance], identity: TopicIdentity, by: str) -> None:
        pause("accept")
        before = dict(self._world.table.positions)
        super().accept(accepted, identity, by)
        self._world.checks.accepted(accepted, before)

    def close(self) -> None:
        """A process that dies closes nothing: the server notices, or it does not for a while."""
        job = current()
        if job is not None and job.lingers:
            self._world.processes.lingering.append((self._world.clock.monotonic(), self.connection))
        else:
            super().close()

    def _break_off(self, fault: Fault | None, here: Fault) -> None:
        job = current()
        if job is not None:
            job.reach(here.value)
        super()._break_off(fault, here)
        refusal = self._world.database().refusal
        if refusal is not None and here is Fault.BEFORE_COMMIT:
            name = refusal.__name__
            self._world.count[f"refused: {name}"] += 1
            if job is not None and job.watch is not None and issubclass(refusal, StopStream):
                job.watch.stopped_by = name
            raise refusal("writing: refused")


class SimMissingRows(MemoryMissingRows):
    def __init__(self, database: SimDatabase, stream: Stream) -> None:
        self._world = database.world
        if not database.reachable:
            raise DatabaseUnavailable("connecting: the database is not reachable")
        super().__init__(database, stream)

    def store(self, batch: Batch) -> Replayed:
        pause("store")
        replayed = super().store(batch)
        self._world.checks.replayed(batch, replayed)
        return replayed
