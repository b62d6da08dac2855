"""A stream of a drain: its open batch, its positions, its counts, and its reason to stop."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .batch import BatchLimits, OpenBatch
from .end_reasons import EndReason
from .errors import IngestError
from .ledger_ports import LedgerSession
from .ports import Clock, Source
from .progress import Progress
from .record import Batch, Chunk, CommitResult, Message, NextOffset, OwnerRequests
from .rows import DEFAULT_RULES, Decode, DecodeMany, RecordRules, decode_batch, one_by_one


@dataclass(frozen=True, slots=True)
class Opening:
    """What a stream needs before its partitions can be owned.

    Attributes:
        partitions: the run's share of the topic's partitions. All partitions have a position.
        ends: partition → end. The backlog below these ends is stored first.
    """

    partitions: list[int]
    ends: Mapping[int, int] = field(default_factory=dict)


class Lane:
    """A stream's way through a drain.

    Args:
        observe: called with the progress from time to time.
        reopen: prepares the stream again after the lane was set aside. Runs in another thread. None: the stream is
            paused. Raises IngestError.
        owned: called when the session has owned partitions. Raises StopStream if the lane cannot begin.
        failed: called with the error that sets the lane aside, while the partitions are still owned. Returns the error
            to report.

    Attributes:
        end_reason: why the lane stops after its open batch is stored.
        verified: partition → next offset when the topic was last verified, or when the lane began.
    """

    def __init__(
        self,
        stream: str,
        topic: str,
        session: LedgerSession,
        *,
        decode: Decode,
        batch_limits: BatchLimits,
        clock: Clock,
        observe: Callable[[Progress], None] = lambda progress: None,
        reopen: Callable[[], Opening | None] = lambda: None,
        owned: Callable[[], None] = lambda: None,
        failed: Callable[[IngestError], IngestError] = lambda error: error,
        rules: RecordRules = DEFAULT_RULES,
        decode_many: DecodeMany = one_by_one,
    ) -> None:
        self.stream, self.topic, self.session = stream, topic, session
        self.batch = OpenBatch(batch_limits, clock)
        self.observe, self.reopen, self._owned, self.failed = observe, reopen, owned, failed
        self.requests = OwnerRequests()
        self.end_reason: EndReason | IngestError | None = None
        self.verified: dict[int, int] = {}
        self.last_record_at = clock.monotonic()
        self.progress = Progress(self.last_record_at, batch_limits.records)
        self._decode, self._decode_many, self._rules = decode, decode_many, rules
        self._clock = clock
        self._backlog: Mapping[int, int] = {}
        self._ends: dict[int, int] = {}

    def opened(self, opening: Opening) -> None:
        """Take note of the opening whose partitions the session owns now. Raises StopStream."""
        self._backlog = opening.ends
        self._owned()

    def start(self, source: Source) -> None:
        self.end_reason, self.requests = None, OwnerRequests()
        self.progress.own(self.session.positions)
        self.verified = dict(self.progress.to_offsets)
        self.read_again(source)
        backlog = {p: end for p, end in self._backlog.items() if self.verified.get(p, end) < end}
        self.batch.expect_backlog(backlog)

    def read_again(self, source: Source) -> None:
        """Forget records read and not stored, and read the records again."""
        self._ends = {}
        self.batch.clear()
        source.assign(self.topic, {p: position.resume_at for p, position in self.session.positions.items()})

    def add(self, chunk: Chunk, more: bool) -> None:
        """Add the topic's part of a read. `more`: the read was full, so further records have probably arrived."""
        self.batch.add(chunk, more)
        if chunk.error is not None:
            self.end_reason = chunk.error

    def decoded(self, messages: list[Message], ends: Mapping[int, NextOffset]) -> Batch | None:
        """Records as rows and dead letters. None if no position advances."""
        if messages:
            self.last_record_at = self._clock.monotonic()
        self._ends.update({partition: end.next_offset for partition, end in ends.items()})
        return decode_batch(
            messages,
            ends,
            self.session.positions,
            decode=self._decode,
            rules=self._rules,
            decode_many=self._decode_many,
        )

    def count(self, batch: Batch, result: CommitResult, decode_seconds: float, database_seconds: float) -> None:
        if result.requests is not None:
            self.requests = result.requests
        self.progress.decode_seconds += decode_seconds
        self.progress.database_seconds += database_seconds
        self.progress.add(batch, result, self._clock.time(), self._clock.monotonic())

    def reached(self, targets: Mapping[int, int]) -> bool:
        positions = self.session.positions
        return all(position.resume_at.next_offset >= targets.get(p, 0) for p, position in positions.items())

    @property
    def at_end(self) -> bool:
        positions = self.session.positions
        return all(self._ends.get(p) == position.resume_at.next_offset for p, position in positions.items())
