"""The in-memory parts with a pause at each point where something may happen, and an eye on what passes through them."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

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
from ingest_pipeline.core.ledger import Replayed
from ingest_pipeline.core.loss import Acceptance
from ingest_pipeline.core.record import Batch, Chunk, CommitResult, NextOffset, OwnerRequests, TopicIdentity
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.testing import (
    Fault,
    MemoryDatabase,
    MemoryLedgerSession,
    MemoryMissingRows,
    MemorySource,
    MemoryTopics,
    MemoryWritingConnection,
)
from ingest_pipeline.testing.database import MemoryBackend
from ingest_pipeline_tests.simulation.checks import Checks
from ingest_pipeline_tests.simulation.jobs import Job, current, pause, watched
from ingest_pipeline_tests.simulation.model import Model, mended
from ingest_pipeline_tests.simulation.state import SharedState

REFUSALS = (DatabaseUnavailable, NotPermitted, SchemaMismatch, LedgerConflict, UnknownFault)
"""What PostgreSQL may say to a write on a connection that lives on, its transaction rolled back.

One of the environment's stands for all: disk full (53), serialization and deadlock (40), no lock in time (55P03), a
statement canceled (57014) and the others of postgres/errors.py are DatabaseUnavailable before core sees them.
"""
LINGER_SECONDS = 15.0
"""How long the server takes to notice that a client is gone, at most."""
Break = Fault | type[IngestError] | None


class SimDatabase(MemoryDatabase):
    """The server of a simulated run.

    Attributes:
        breaks: faults of the next writes, in their order. None lets a write pass.
        refusal: the error that ends the present write.
        writing: job → the writing connection it has opened.
        lingering: (time of death, backend) of clients whose death the server has not noticed.
    """

    def __init__(self, state: SharedState) -> None:
        super().__init__(state.clock)
        self.count = state.count
        self.writing: dict[Job, SimWritingConnection] = {}
        self.lingering: list[tuple[float, MemoryBackend]] = []
        self.breaks: deque[Break] = deque()
        self.refusal: type[IngestError] | None = None

    def next_fault(self) -> Fault | None:
        fault = self.breaks.popleft() if self.breaks else None
        self.refusal = fault if isinstance(fault, type) else None
        return fault if isinstance(fault, Fault) else None

    def end_lingering(self) -> None:
        before = self.clock.monotonic() - LINGER_SECONDS
        for died_at, backend in self.lingering:
            if died_at <= before:
                self.end(backend)
        self.lingering = [entry for entry in self.lingering if entry[0] > before]

    def has_session(self, run_id: str) -> bool:
        return any(backend.run_id == run_id for backend in self.backends)


class SimSource(MemorySource):
    checks: Checks
    model: Model

    def assign(self, topic: str, offsets: Mapping[int, NextOffset]) -> None:
        job = current()
        if job is not None and offsets:
            job.since = self.model.reading()
            if job.watch is not None:
                job.watch.starts()
        super().assign(topic, offsets)

    def read(self, max_records: int, timeout_seconds: float) -> dict[str, Chunk]:
        watch = watched()
        if watch is not None:
            watch.reads()
        pause("read")
        chunks = super().read(max_records, timeout_seconds)
        if watch is not None:
            for chunk in chunks.values():
                watch.took(chunk.messages)
        return chunks

    def acknowledge(self, topic: str, offsets: Mapping[int, NextOffset]) -> None:
        pause("acknowledge")
        super().acknowledge(topic, offsets)
        self.checks.acknowledged(offsets)


class SimTopics(MemoryTopics):
    """Sees a run ask whether the topics are still its own."""

    def identities(self, topics: Collection[str]) -> dict[str, TopicIdentity | IngestError]:
        if (watch := watched()) is None:
            return super().identities(topics)
        watch.asks()
        identities = super().identities(topics)
        watch.compared()
        return identities


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


class SimWritingConnection(MemoryWritingConnection):
    def __init__(self, database: SimDatabase, run_id: str) -> None:
        self.server = database
        super().__init__(database, run_id)
        job = current()
        if job is not None:
            database.writing[job] = self

    def heartbeat(self) -> Mapping[str, OwnerRequests]:
        pause("heartbeat")
        return super().heartbeat()

    def close(self) -> None:
        """A process that dies closes nothing: the server notices, or it does not for a while."""
        job = current()
        if job is not None and job.lingers:
            self.server.lingering.append((self.server.clock.monotonic(), self.backend))
        else:
            super().close()


class SimLedgerSession(MemoryLedgerSession):
    def __init__(
        self,
        connection: SimWritingConnection,
        checks: Checks,
        stream: Stream,
        dead_letter_max_bytes: int,
        limits: LetterLimits | None,
    ) -> None:
        self._server, self._checks = connection.server, checks
        self._streak = 0
        super().__init__(connection, stream, dead_letter_max_bytes=dead_letter_max_bytes, limits=limits)

    def own(self, partitions: Collection[int], *, exact: bool) -> dict[int, Any]:
        pause("own")
        others = super().own(partitions, exact=exact)
        self._checks.taken(self._run_id, self.positions)
        return dict(others)

    def write(self, batch: Batch) -> CommitResult:
        watch = watched()
        assert watch is not None
        watch.writes(batch)
        pause("write")
        try:
            written = super().write(batch)
        except IngestError as error:
            self._server.count[f"write: {type(error).__name__}"] += 1
            raise
        finally:
            self._streak = self._checks.written(self._run_id, batch, self._streak)
        watch.committed(batch)
        pause("written")
        return written

    def recover(self, batch: Batch | None) -> CommitResult | None:
        pause("recover")
        self._streak = 0
        try:
            settled = super().recover(batch)
        except Superseded:
            self._server.count["recover: Superseded"] += 1
            raise
        if batch is not None:
            self._checks.settled(batch, settled)
            if settled is not None and (watch := watched()) is not None:
                watch.committed(batch)
            self._server.count["in doubt: committed" if settled is not None else "in doubt: not committed"] += 1
        return settled

    def accept(self, accepted: Sequence[Acceptance], identity: TopicIdentity, by: str) -> None:
        pause("accept")
        before = dict(self._server.table(self._stream).positions)
        super().accept(accepted, identity, by)
        self._checks.accepted(accepted, before)

    def _break_off(self, fault: Fault | None, here: Fault) -> None:
        job = current()
        if job is not None:
            job.reach(here.value)
        super()._break_off(fault, here)
        refusal = self._server.refusal
        if refusal is not None and here is Fault.BEFORE_COMMIT:
            name = refusal.__name__
            self._server.count[f"refused: {name}"] += 1
            if job is not None and job.watch is not None and issubclass(refusal, StopStream):
                job.watch.stopped_by = name
            raise refusal("writing: refused")


class SimMissingRows(MemoryMissingRows):
    def __init__(self, database: SimDatabase, checks: Checks, stream: Stream) -> None:
        self._checks = checks
        if not database.reachable:
            raise DatabaseUnavailable("connecting: the database is not reachable")
        super().__init__(database, stream)

    def store(self, batch: Batch) -> Replayed:
        pause("store")
        replayed = super().store(batch)
        self._checks.replayed(batch, replayed)
        return replayed
