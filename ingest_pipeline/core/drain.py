"""The drain loop: record → row → batch → transaction → position, until there is a reason to end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .backoff import Backoff
from .batch import BatchLimits, BatchReader
from .end_reasons import EndReason
from .errors import DataLoss, EnvironmentFault, NotPermitted
from .ports import Clock, LedgerSession, Source
from .progress import Progress
from .record import Batch, CommitResult, Message, NextOffset, OwnerRequests
from .rows import DEFAULT_RULES, Decode, DecodeMany, RecordRules, decode_batch, one_by_one

BEAT_SECONDS = 1.0
"""Interval of the owner's heartbeat, which also reads requests to pause or to hand over."""
VERIFY_SECONDS = 5.0
"""Interval for checking the topic id. After a topic is re-created, a run may attribute its records to the old topic for
this long."""
HANDOVER_SECONDS, HANDOVER_BEAT_SECONDS = 15.0, 0.1
"""After its maximum age a run waits up to 15 s for a successor and checks every 0.1 s."""


@dataclass(frozen=True, slots=True)
class RunLimits:
    """When a run ends by itself.

    Attributes:
        max_seconds: maximum age. A run without targets and without a waiting successor gets HANDOVER_SECONDS more.
        idle_seconds: how long the run waits at the end of all partitions for another record.
        max_batches: 0 for no limit.
        retry_seconds: how long the run retries after an EnvironmentFault.
        targets: partition → offset. The run ends when every position has reached its target.
    """

    max_seconds: float
    idle_seconds: float
    max_batches: int
    retry_seconds: float
    targets: Mapping[int, int] | None = None


class Drain:
    """Drains the session's partitions, one batch at a time.

    Args:
        source: `run` assigns the session's positions to it.
        stop: called between reads. With a reason, the run commits the open batch and ends.
        verify: called before the first read and every VERIFY_SECONDS. A reason ends the run, a StopStream fails it.
        observe: called with the progress after each batch and each read without records.
        waiting: partition → end when the run began. The backlog below these ends is stored first.

    Attributes:
        verified: partition → next offset when `verify` last answered, or when the run began.
    """

    def __init__(
        self,
        source: Source,
        session: LedgerSession,
        *,
        decode: Decode,
        batch_limits: BatchLimits,
        run_limits: RunLimits,
        clock: Clock,
        stop: Callable[[], EndReason | None],
        verify: Callable[[], EndReason | None] = lambda: None,
        observe: Callable[[Progress], None] = lambda progress: None,
        rules: RecordRules = DEFAULT_RULES,
        decode_many: DecodeMany = one_by_one,
        waiting: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        self._source, self._session, self._decode = source, session, decode
        self._reader = BatchReader(source, batch_limits, clock)
        self._limits, self._clock = run_limits, clock
        self._stop, self._verify, self._observe = stop, verify, observe
        self._rules = rules
        self._decode_many = decode_many
        self._waiting = waiting
        self._requests = OwnerRequests()
        self._ends: dict[int, int] = {}
        now = clock.monotonic()
        self._beat_at, self._verify_at, self._last_record_at = now + BEAT_SECONDS, now, now
        self._ended: EndReason | None = None
        self.verified: dict[int, int] = {}
        self.progress = Progress(now, batch_limits.records)

    def run(self) -> EndReason:
        """Drain until there is a reason to end, commit the open batch, and return the reason.

        Raises:
            Superseded, StopStream, EnvironmentFault (after retry_seconds): the next run reads uncommitted records
                again.
        """
        self.progress.own(self._session.positions)
        self.verified = dict(self.progress.to_offsets)
        self._source.assign({p: position.resume_at for p, position in self._session.positions.items()})
        self._reader.expect_backlog({p: end for p, end in self._waiting.items() if self.verified.get(p, end) < end})
        while True:
            self._beat()
            ended = self._end_reason()
            try:
                taken = self._reader.read() if ended is None else self._reader.take()
            except DataLoss:
                if (taken := self._reader.take()) is not None:
                    self._store(*taken)  # Kafka may have deleted these records before another read
                raise
            if taken is not None:
                self._store(*taken)
            self._observe(self.progress)
            if ended is not None:
                return ended

    def _store(self, messages: list[Message], ends: Mapping[int, NextOffset]) -> None:
        """Store one batch:

        1. Decode records to rows and dead letters.
        2. Commit rows, dead letters and positions in one transaction.
        3. Commit the group's offsets in Kafka. Only lag tools read the group's offsets.
        """
        began = self._clock.monotonic()
        if messages:
            self._last_record_at = began
        self._ends.update({partition: end.next_offset for partition, end in ends.items()})
        batch = decode_batch(  # 1
            messages,
            ends,
            self._session.positions,
            decode=self._decode,
            rules=self._rules,
            decode_many=self._decode_many,
        )
        if batch is None:
            return
        decoded = self._clock.monotonic()
        result = self._write(batch)  # 2
        if result.requests is not None:
            self._requests = result.requests
        self._source.acknowledge({partition: advance.resume_at for partition, advance in batch.advances.items()})  # 3
        now = self._clock.monotonic()
        self.progress.decode_seconds += decoded - began
        self.progress.database_seconds += now - decoded
        self.progress.add(batch, result, self._clock.time(), now)

    def _write(self, batch: Batch) -> CommitResult:
        backoff: Backoff | None = None
        while True:
            try:
                return self._session.write(batch)
            except EnvironmentFault as fault:
                backoff = backoff or self._backoff()  # not earlier: the first try may have waited for a time-out
                result = self._recover(backoff, fault, batch)
            if result is not None:
                return result

    def _recover(self, backoff: Backoff, fault: EnvironmentFault, batch: Batch | None) -> CommitResult | None:
        """Reconnect and own the partitions again. Returns the result of `batch` if PostgreSQL had committed it.

        Raises the fault when the backoff ends.
        """
        while True:
            backoff.wait(fault)
            try:
                return self._session.recover(batch)
            except EnvironmentFault as again:
                fault = again

    def _backoff(self) -> Backoff:
        return Backoff(self._clock, self._limits.retry_seconds, self._stop)

    def _beat(self) -> None:
        """Send the heartbeat and verify the topic, when due."""
        now = self._clock.monotonic()
        if now >= self._beat_at:
            past_age = now - self.progress.started_at >= self._limits.max_seconds
            self._beat_at = now + (HANDOVER_BEAT_SECONDS if past_age else BEAT_SECONDS)
            try:
                self._requests = self._session.heartbeat()
            except EnvironmentFault as fault:
                self._recover(self._backoff(), fault, None)
        if now >= self._verify_at:
            self._verify_at = now + VERIFY_SECONDS
            self._ended = self._ended or self._verify_topic()

    def _verify_topic(self) -> EndReason | None:
        """Without an answer, ask again later. If Kafka is away or refuses access, the next read raises."""
        reached = dict(self.progress.to_offsets)
        try:
            ended = self._verify()
        except (EnvironmentFault, NotPermitted):
            return None
        self.verified = reached
        return ended

    def _end_reason(self) -> EndReason | None:
        now = self._clock.monotonic()
        limits = self._limits
        if (reason := self._stop() or self._ended) is not None:
            return reason
        if self._requests.paused is not None:
            return EndReason.PAUSED
        if self._requests.yield_now:
            return EndReason.YIELDED
        if limits.max_batches and self.progress.batches >= limits.max_batches:
            return EndReason.BATCHES
        if limits.targets is not None and self._reached(limits.targets):
            return EndReason.CAUGHT_UP
        if self._is_past_age(now - self.progress.started_at):
            return EndReason.AGE
        if self._at_end() and now - self._last_record_at >= limits.idle_seconds:
            return EndReason.CAUGHT_UP
        return None

    def _is_past_age(self, age: float) -> bool:
        """A sensor's run goes on for HANDOVER_SECONDS, so that rows keep arriving until a successor waits."""
        alone = not self._requests.successor_waits and self._limits.targets is None
        return age - self._limits.max_seconds >= (HANDOVER_SECONDS if alone else 0)

    def _reached(self, targets: Mapping[int, int]) -> bool:
        positions = self._session.positions
        return all(position.resume_at.next_offset >= targets.get(p, 0) for p, position in positions.items())

    def _at_end(self) -> bool:
        positions = self._session.positions
        return all(self._ends.get(p) == position.resume_at.next_offset for p, position in positions.items())
