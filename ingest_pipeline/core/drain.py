"""The drain loop: record → row → batch → transaction → position, until there is a reason to end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .backoff import Backoff
from .batch import BatchLimits, BatchReader
from .errors import DataLoss, EnvironmentFault, NotPermitted
from .ports import Clock, LedgerSession, Source
from .progress import Progress
from .record import Batch, CommitResult, Message, NextOffset, OwnerRequests
from .rows import DEFAULT_RULES, Decode, DecodeMany, RecordRules, decode_batch, one_by_one

BEAT_SECONDS = 1.0
"""How often an owner shows life to the server and looks at what others ask of it."""
VERIFY_SECONDS = 5.0
"""How often the topic is looked at: so long a run may take records of a topic made anew for those of the old one."""
HANDOVER_SECONDS, HANDOVER_BEAT_SECONDS = 15.0, 0.1
"""A run past its age goes on so long for its successor to arrive, and looks for it so often."""


@dataclass(frozen=True, slots=True)
class RunLimits:
    """When a run ends by itself.

    Attributes:
        max_seconds: its age; without targets and without a successor in sight HANDOVER_SECONDS more.
        idle_seconds: how long it stays after the last record, once it stands at the end of every partition.
        max_batches: 0 for no limit.
        retry_seconds: how long it bears an EnvironmentFault.
        targets: partition → offset; where given, the run ends once every position has reached it.
    """

    max_seconds: float
    idle_seconds: float
    max_batches: int
    retry_seconds: float
    targets: Mapping[int, int] | None = None


class Drain:
    """Drains what the ledger owns, one batch in hand at a time.

    Args:
        source: assigned by `run` to the ledger's positions.
        stop: called between reads; a reason ("terminated", "signal") makes the run finish the batch in hand and end.
        verify: called before the first read and every VERIFY_SECONDS; a reason ends the run, a StopStream stops it.
        observe: called after each batch and each idle read, with the progress.
        rules: what becomes of records before they are decoded.
        decode_many: see core.rows.decode_batch.
        waiting: partition → end when the run began: what lay before it has waited for the run, and is stored first.

    Attributes:
        verified: partition → next offset when `verify` last answered, or at the beginning.
    """

    def __init__(
        self,
        source: Source,
        session: LedgerSession,
        decode: Decode,
        batch_limits: BatchLimits,
        run_limits: RunLimits,
        clock: Clock,
        *,
        stop: Callable[[], str | None],
        verify: Callable[[], str | None] = lambda: None,
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
        self._ended: str | None = None
        self.verified: dict[int, int] = {}
        self.progress = Progress(now, batch_limits.records)

    def run(self) -> str:
        """Drain until there is a reason to end, and return it; the batch in hand is committed first.

        Reasons: caught-up, age, batches, terminated, signal, paused, yielded, or what `verify` said.

        Raises:
            Superseded, StopStream, EnvironmentFault (after retry_seconds): what was not committed is not lost.
        """
        self.progress.own(self._session.positions)
        self.verified = dict(self.progress.to_offsets)
        self._source.assign({partition: at.resume_at for partition, at in self._session.positions.items()})
        self._reader.expect_backlog({p: end for p, end in self._waiting.items() if self.verified.get(p, end) < end})
        while True:
            self._beat()
            ended = self._why_end()
            try:
                taken = self._reader.read() if ended is None else self._reader.take()
            except DataLoss:
                if (taken := self._reader.take()) is not None:
                    self._store(*taken)  # what was read before may be gone by the time somebody reads again
                raise
            if taken is not None:
                self._store(*taken)
            self._observe(self.progress)
            if ended is not None:
                return ended

    def _store(self, messages: list[Message], ends: Mapping[int, NextOffset]) -> None:
        """One batch, in this order:

        1. records become rows or dead letters;
        2. one transaction holds them and the positions;
        3. Kafka is told, as a courtesy.
        """
        began = self._clock.monotonic()
        if messages:
            self._last_record_at = began
        self._ends.update({partition: place.next_offset for partition, place in ends.items()})
        batch = decode_batch(  # 1
            messages, ends, self._session.positions, self._decode, self._rules, self._decode_many
        )
        if batch is None:
            return
        decoded = self._clock.monotonic()
        written = self._write(batch)  # 2
        if written.requests is not None:
            self._requests = written.requests
        self._source.acknowledge({partition: advance.resume_at for partition, advance in batch.advances.items()})  # 3
        now = self._clock.monotonic()
        self.progress.decode_seconds += decoded - began
        self.progress.database_seconds += now - decoded
        self.progress.add(batch, written, self._clock.time(), now)

    def _write(self, batch: Batch) -> CommitResult:
        backoff: Backoff | None = None
        while True:
            try:
                return self._session.write(batch)
            except EnvironmentFault as fault:
                backoff = backoff or self._backoff()  # its time begins now: a try may have waited for a time-out
                settled = self._recover(backoff, fault, batch)
            if settled is not None:
                return settled

    def _recover(self, backoff: Backoff, fault: EnvironmentFault, batch: Batch | None) -> CommitResult | None:
        """Own again. Raises the fault when the backoff's time is over; what `batch` wrote, if it had been committed."""
        while True:
            backoff.wait(fault)
            try:
                return self._session.recover(batch)
            except EnvironmentFault as again:
                fault = again

    def _backoff(self) -> Backoff:
        return Backoff(self._clock, self._limits.retry_seconds, self._stop)

    def _beat(self) -> None:
        """Once in BEAT_SECONDS: show life, look at requests. Once in VERIFY_SECONDS: is it still our topic?"""
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
            self._ended = self._ended or self._verified()

    def _verified(self) -> str | None:
        """A question that gets no answer now is asked again; that Kafka is away, or refuses us, reading tells."""
        reached = dict(self.progress.to_offsets)
        try:
            ended = self._verify()
        except (EnvironmentFault, NotPermitted):
            return None
        self.verified = reached
        return ended

    def _why_end(self) -> str | None:
        now = self._clock.monotonic()
        limits = self._limits
        if (stopped := self._stop() or self._ended) is not None:
            return stopped
        if self._requests.paused is not None:
            return "paused"
        if self._requests.yield_now:
            return "yielded"
        if limits.max_batches and self.progress.batches >= limits.max_batches:
            return "batches"
        if limits.targets is not None and self._reached(limits.targets):
            return "caught-up"
        if self._is_over(now - self.progress.started_at):
            return "age"
        if self._at_end() and now - self._last_record_at >= limits.idle_seconds:
            return "caught-up"
        return None

    def _is_over(self, age: float) -> bool:
        """Past its age a sensor's run waits a little for a successor, so that nobody waits for rows meanwhile."""
        over = age - self._limits.max_seconds
        alone = not self._requests.successor_waits and self._limits.targets is None
        return over >= (HANDOVER_SECONDS if alone else 0)

    def _reached(self, targets: Mapping[int, int]) -> bool:
        positions = self._session.positions
        return all(at.resume_at.next_offset >= targets.get(partition, 0) for partition, at in positions.items())

    def _at_end(self) -> bool:
        positions = self._session.positions
        return all(self._ends.get(partition) == at.resume_at.next_offset for partition, at in positions.items())
