"""The in-memory parts with a pause at each point where something may happen, and an eye on what passes through them."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import cache
from typing import Any, cast

from ingest_pipeline.core.dead_letter_limit import LetterLimits
from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.errors import DatabaseUnavailable, IngestError, StopStream, Superseded
from ingest_pipeline.core.ledger import Replayed
from ingest_pipeline.core.loss import Acceptance
from ingest_pipeline.core.record import Batch, Chunk, CommitResult, NextOffset, TopicIdentity
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.orchestration.run.run_checks import RunChecks
from ingest_pipeline.testing import (
    Fault,
    InlineExecutor,
    MemoryLedgerSession,
    MemoryMissingRows,
    MemorySource,
    MemoryTopics,
)
from ingest_pipeline_tests.simulation.database import SimDatabase, SimWritingConnection
from ingest_pipeline_tests.simulation.jobs import Job, current, pause, watched
from ingest_pipeline_tests.simulation.model import mended
from ingest_pipeline_tests.simulation.state import SharedState
from ingest_pipeline_tests.simulation.streams import SimStream
from ingest_pipeline_tests.simulation.watch import StreamWatch


class SimSource(MemorySource):
    def __init__(self, state: SharedState, groups: Mapping[str, str], ledger_id: str, retry_seconds: float) -> None:
        super().__init__(state.broker, state.clock, groups=groups, ledger_id=ledger_id, retry_seconds=retry_seconds)
        self._streams = cast(Mapping[str, SimStream], state.streams)
        self._reading = False

    def assign(self, topic: str, offsets: Mapping[int, NextOffset]) -> None:
        job, watch = current(), watched()
        if job is not None and offsets:
            job.since[topic] = self._streams[topic].model.reading()
        if watch is not None and not self._reading:  # a topic with an error is not read on, and its batch is stored
            (watch.streams[topic].starts if offsets else watch.streams[topic].stops)()
        super().assign(topic, offsets)

    def read(self, max_records: int, timeout_seconds: float) -> dict[str, Chunk]:
        watch = watched()
        if watch is not None:
            watch.reads()
        pause("read")
        self._reading = True
        chunks = super().read(max_records, timeout_seconds)
        self._reading = False
        if watch is not None:
            for topic, chunk in chunks.items():
                watch.streams[topic].took(chunk.messages)
        return chunks

    def acknowledge(self, topic: str, offsets: Mapping[int, NextOffset]) -> None:
        pause("acknowledge")
        super().acknowledge(topic, offsets)
        self._streams[topic].checks.acknowledged(offsets)


class SimTopics(MemoryTopics):
    """Notes that a run verifies its topics."""

    def identities(self, topics: Collection[str]) -> dict[str, TopicIdentity | IngestError]:
        watch = watched()
        for topic in topics if watch is not None else ():
            watch.streams[topic].asks()
        identities = super().identities(topics)
        for topic in topics if watch is not None else ():
            watch.streams[topic].compared()
        return identities


class SimExecutor(InlineExecutor):
    """Prepares the streams of a run one by one, and opens a stream again in a thread beside the drain."""

    def map(self, function: Callable[[Any], Any], *streams: Iterable[Any], **_: Any) -> Iterator[Any]:
        for stream in streams[0]:
            function(stream)
            if stream.opening is not None:
                _compared(stream.name)
        return iter(())

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if isinstance(function.__self__, RunChecks):  # type: ignore[attr-defined]
            return super().submit(function, *args, **kwargs)
        future: Future[Any] = Future()

        def work() -> None:
            name = function.__self__.name  # type: ignore[attr-defined]
            try:
                opening = function(*args, **kwargs)
            except IngestError as error:
                future.set_exception(error)
            else:
                if opening is not None:
                    _compared(name)
                future.set_result(opening)
            watched().streams[name].stopped_by = ""  # the new outcome replaces the error

        Job("opening", work, current())
        return future


def _compared(stream: str) -> None:
    """The run has just compared the topic with the stream's positions."""
    watch = watched()
    assert watch is not None
    watch.streams[stream].compared()


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
        connection: SimWritingConnection,
        stream: SimStream,
        dead_letter_max_bytes: int,
        limits: LetterLimits | None,
    ) -> None:
        self._server, self._checks = connection.server, stream.checks
        self._streak = 0
        super().__init__(connection, stream.stream, dead_letter_max_bytes=dead_letter_max_bytes, limits=limits)

    def own(self, partitions: Collection[int], *, exact: bool) -> dict[int, Any]:
        pause("own")
        others = super().own(partitions, exact=exact)
        self._streak = 0
        self._checks.taken(self._run_id, self.positions)
        return dict(others)

    def write(self, batch: Batch) -> CommitResult:
        watch = self._watch()
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
        self._check_locks(batch)
        watch.committed(batch)
        pause("written")
        return written

    def _check_locks(self, batch: Batch) -> None:
        """A run writes only what it has locked, unless the server has given the locks of a frozen run away."""
        job = current()
        locked = {partition for stream, partition in self.connection.backend.owned if stream == self._stream}
        assert locked >= batch.advances.keys() or (job is not None and job.zombie), f"{self._stream}: no lock"

    def recover(self, batch: Batch | None) -> CommitResult | None:
        watch = watched()
        if watch is not None:
            watch.recovers()
        pause("recover")
        self._streak = 0
        try:
            settled = super().recover(batch)
        except Superseded:
            self._server.count["recover: Superseded"] += 1
            raise
        if batch is not None:
            self._checks.settled(batch, settled)
            if settled is not None and watch is not None:
                watch.streams[self._stream].committed(batch)
            self._server.count["in doubt: committed" if settled is not None else "in doubt: not committed"] += 1
        return settled

    def accept(self, accepted: Sequence[Acceptance], identity: TopicIdentity, by: str) -> None:
        pause("accept")
        before = dict(self._server.table(self._stream).positions)
        super().accept(accepted, identity, by)
        self._checks.accepted(accepted, before)

    def _watch(self) -> StreamWatch | None:
        watch = watched()
        return None if watch is None else watch.streams[self._stream]

    def _break_off(self, fault: Fault | None, point: Fault) -> None:
        job = current()
        if job is not None:
            job.reach(point.value)
        super()._break_off(fault, point)
        refusal = self._server.refusal
        if refusal is not None and point is Fault.BEFORE_COMMIT:
            name = refusal.__name__
            self._server.count[f"refused: {name}"] += 1
            if (watch := self._watch()) is not None and issubclass(refusal, StopStream):
                watch.refused(name)
            raise refusal("writing: refused")


class SimMissingRows(MemoryMissingRows):
    def __init__(self, database: SimDatabase, stream: SimStream) -> None:
        self._checks = stream.checks
        if not database.reachable:
            raise DatabaseUnavailable("connecting: the database is not reachable")
        super().__init__(database, stream.stream)

    def store(self, batch: Batch) -> Replayed:
        pause("store")
        replayed = super().store(batch)
        self._checks.replayed(batch, replayed)
        return replayed
