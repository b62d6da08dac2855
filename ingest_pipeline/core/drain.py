"""The drain loop: record → row → batch → transaction → position, until there is a reason to end."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from .end_reasons import EndReason
from .errors import EnvironmentFault, IngestError, SchemaRegistryUnavailable, StopStream, Superseded, TableBusy
from .fair_share import FairShare
from .lane import Lane
from .ledger_ports import WritingConnection
from .ports import Clock, Source
from .recovery import Recovery
from .set_aside import SetAside

BEAT_SECONDS = 1.0
"""Interval of the owner's heartbeat. A heartbeat also reads requests to pause or to hand over."""
VERIFY_SECONDS = 5.0
"""Interval for checking the topic id. After a topic is re-created, a run may attribute its records to the old topic for
this long."""
HANDOVER_SECONDS, HANDOVER_BEAT_SECONDS = 15.0, 0.1
"""After its maximum age a run waits up to 15 s for a successor and checks every 0.1 s."""
SHARED_WAIT_SECONDS = 0.05
"""Several streams share a read. A shorter wait would cost a read for every batch."""

EndReasons = Mapping[str, EndReason | StopStream | None]
"""Stream → why the stream cannot go on, or None. Streams without an answer are absent."""


@dataclass(frozen=True, slots=True)
class RunLimits:
    """When a run ends by itself.

    Attributes:
        max_seconds: maximum age. A run without targets and without a waiting successor gets HANDOVER_SECONDS more.
        idle_seconds: how long the run waits at the end of all partitions for another record.
        max_batches: 0 for no limit.
        targets: stream → partition → offset. A stream is done when all its positions have reached their targets.
    """

    max_seconds: float
    idle_seconds: float
    max_batches: int
    retry_seconds: float
    targets: Mapping[str, Mapping[int, int]] | None = None


class Drain:
    """Drains the lanes' partitions, one batch of a stream at a time.

    With several lanes, a stream's trouble sets its lane aside, and the run ends when no lane is left. The trouble of a
    single lane ends the run.

    Args:
        source: reads the topics of all lanes.
        connection: the lanes' sessions share it.
        lanes: every lane's session owns partitions.
        stop: called between reads. With a reason, the run commits the open batches and ends.
        verify: called before the first read and every VERIFY_SECONDS, with the streams being read.
        executor: prepares streams set aside.
    """

    def __init__(
        self,
        source: Source,
        connection: WritingConnection,
        lanes: Sequence[Lane],
        *,
        limits: RunLimits,
        clock: Clock,
        stop: Callable[[], EndReason | None],
        executor: Executor,
        verify: Callable[[Sequence[str]], EndReasons] = lambda streams: {},
    ) -> None:
        self._source, self._limits, self._clock = source, limits, clock
        self._stop, self._verify = stop, verify
        self._lanes = {lane.topic: lane for lane in lanes}
        self._several = len(lanes) > 1
        self._shares = FairShare(lanes) if self._several else None
        self._crowded_bytes = 2 * max(lane.batch.limits.size_bytes for lane in lanes)
        self.set_aside = SetAside(clock, executor)
        self._recovery = Recovery(
            connection,
            clock,
            limits.retry_seconds,
            stop=stop,
            shared=self._several,
            owning=lambda: [*self._reading.values(), *self.set_aside.owning],
        )
        self._turn = 0
        self._last = EndReason.CAUGHT_UP
        self._started_at = now = clock.monotonic()
        self._beat_at, self._verify_at = now + BEAT_SECONDS, now
        self._reading: dict[str, Lane] = {}

    def run(self) -> EndReason:
        """Drain until there is a reason to end, commit the open batches, and return the reason. The errors of several
        lanes are in `set_aside`.

        Raises:
            IngestError: of a single lane.
            EnvironmentFault (after retry_seconds): the next run reads uncommitted records again.
        """
        for lane in self._lanes.values():
            self._begin(lane)
        while True:
            self._beat()
            ended = self._end_reason()
            lanes = list(self._reading.values())
            crowded = self._crowded(lanes)
            if ended is None and not (crowded or any(lane.end_reason is not None or lane.batch.due for lane in lanes)):
                self._read(lanes)
            for lane in lanes:
                if ended is not None or lane is crowded or lane.end_reason is not None or lane.batch.due:
                    self._settle(lane)
            healthy = [lane for lane in lanes if not self.set_aside.trouble_seconds(lane)]
            self._observe(healthy or lanes or list(self.set_aside.owning))
            if ended is not None:
                return ended
            if not self._reading and not self.set_aside.owning:
                return self._last
            self._try_again()

    def _begin(self, lane: Lane) -> None:
        if lane.end_reason is not None:
            if not self._several and isinstance(lane.end_reason, IngestError):
                raise lane.end_reason
            self.set_aside.add(lane, lane.end_reason, owns=False)
            self._note_last(lane.end_reason)
        else:
            lane.start(self._source)
            self._reading[lane.topic] = lane

    def _read(self, lanes: Sequence[Lane]) -> None:
        room = max((lane.batch.room for lane in lanes), default=1)
        wait = min((lane.batch.wait_seconds for lane in lanes), default=SHARED_WAIT_SECONDS)
        if self._several and wait and any(lane.batch.is_open for lane in lanes):
            wait = SHARED_WAIT_SECONDS
        chunks = self._source.read(room, wait)
        more = sum(len(chunk.messages) for chunk in chunks.values()) >= room
        for topic, chunk in chunks.items():
            if (lane := self._reading.get(topic)) is not None:
                lane.add(chunk, more)

    def _settle(self, lane: Lane) -> None:
        """Store the open batch, and set aside a lane unable to go on."""
        began, records = self._clock.monotonic(), lane.batch.record_count
        try:
            self._store(lane)
        except (TableBusy, SchemaRegistryUnavailable, Superseded, StopStream) as error:
            if self._shares is not None and isinstance(error, TableBusy):
                self._shares.interrupted(lane, records, self._clock.monotonic() - began)
            self._leave(lane, error)
            return
        if lane.end_reason is not None:
            self._leave(lane, lane.end_reason)
        elif self._shares is not None and records:
            self._shares.stored(lane, records, self._clock.monotonic() - began, self._source)

    def _store(self, lane: Lane) -> None:
        """Store a batch:

        1. Decode records to rows and dead letters.
        2. Commit rows, dead letters and positions in one transaction.
        3. Commit the group's offsets in Kafka. Only lag tools read the group's offsets.
        """
        began = self._clock.monotonic()
        messages, ends = lane.batch.take()
        if not messages and not ends:
            return
        batch = lane.decoded(messages, ends)  # 1
        if batch is None:
            return
        decoded = self._clock.monotonic()
        result = self._recovery.write(lane, batch)  # 2
        resume_at = {partition: advance.resume_at for partition, advance in batch.advances.items()}
        self._source.acknowledge(lane.topic, resume_at)  # 3
        lane.count(batch, result, decoded - began, self._clock.monotonic() - decoded)
        self.set_aside.recovered(lane)

    def _note_last(self, reason: EndReason | IngestError) -> None:
        """Remember what `run` returns when no lane is left. An error stays in `set_aside`."""
        if isinstance(reason, Superseded):
            self._last = EndReason.SUPERSEDED
        elif not isinstance(reason, IngestError):
            self._last = reason

    def _leave(self, lane: Lane, reason: EndReason | IngestError) -> None:
        """Stop reading the lane's topic. A lane waiting for its table or its schema registry keeps its partitions, any
        other lane gives its partitions back."""
        del self._reading[lane.topic]
        self._source.assign(lane.topic, {})
        lane.batch.clear()
        waits = isinstance(reason, TableBusy | SchemaRegistryUnavailable)
        if isinstance(reason, IngestError) and not waits:
            reason = lane.failed(reason)
        self._note_last(reason)
        if not (self._several or (waits and self.set_aside.trouble_seconds(lane) < self._limits.retry_seconds)):
            if isinstance(reason, IngestError):
                raise reason
            return
        if not waits:
            lane.session.release()
        if reason != EndReason.CAUGHT_UP:
            self.set_aside.add(lane, reason, owns=waits)

    def _try_again(self) -> None:
        for waiter, opening in self.set_aside.ready():
            lane = waiter.lane
            try:
                if opening is not None:
                    if lane.session.own(opening.partitions, exact=True):
                        self.set_aside.add(lane, EndReason.SUPERSEDED, owns=False)
                        continue
                    lane.opened(opening)
            except TableBusy:
                self.set_aside.add(lane, waiter.reason, waiter.owns)  # the connection works
            except EnvironmentFault as fault:
                self.set_aside.add(lane, waiter.reason, waiter.owns)
                self._recovery.reconnect(fault)
            except IngestError as error:
                lane.session.release()
                self.set_aside.add(lane, lane.failed(error), owns=False)
            else:
                lane.start(self._source)
                self._reading[lane.topic] = lane
                self._verify_at = self._clock.monotonic()  # the wait may have outlasted VERIFY_SECONDS

    def _beat(self) -> None:
        """Send the heartbeat and verify the topics, when due."""
        now = self._clock.monotonic()
        if now >= self._beat_at:
            past_age = now - self._started_at >= self._limits.max_seconds
            self._beat_at = now + (HANDOVER_BEAT_SECONDS if past_age else BEAT_SECONDS)
            requests = self._recovery.heartbeat()
            for lane in self._reading.values():
                lane.requests = requests.get(lane.stream, lane.requests)
        if now >= self._verify_at:
            self._verify_at = now + VERIFY_SECONDS
            self._verify_topics(list(self._reading.values()))
        for lane in self._reading.values():
            if lane.requests.paused is not None and lane.end_reason is None:
                lane.end_reason = EndReason.PAUSED

    def _verify_topics(self, lanes: Sequence[Lane]) -> None:
        """Without an answer, ask again later. If Kafka is away or refuses access, the next read raises."""
        reached = {lane.stream: dict(lane.progress.to_offsets) for lane in lanes}
        reasons = self._verify(list(reached))
        for lane in lanes:
            if lane.stream not in reasons:
                continue
            reason = reasons[lane.stream]
            if isinstance(reason, IngestError):
                lane.batch.clear()  # its records may belong to another topic
            else:
                lane.verified = reached[lane.stream]
            lane.end_reason = lane.end_reason or reason

    def _observe(self, lanes: Sequence[Lane]) -> None:
        """Let a lane report. Lanes take turns, because reports take time, above all of a locked table."""
        if lanes:
            self._turn = (self._turn + 1) % len(lanes)
            lanes[self._turn].observe(lanes[self._turn].progress)

    def _end_reason(self) -> EndReason | None:
        now, limits, lanes = self._clock.monotonic(), self._limits, list(self._reading.values())
        if (reason := self._stop()) is not None:
            return reason
        if lanes and all(lane.end_reason is not None for lane in lanes):
            return None  # the run ends with the reason of its last lane
        if any(lane.requests.yield_now for lane in lanes):
            return EndReason.YIELDED
        if limits.max_batches and sum(lane.progress.batches for lane in self._lanes.values()) >= limits.max_batches:
            return EndReason.BATCHES
        if limits.targets is not None:
            for lane in lanes:
                if lane.reached(limits.targets.get(lane.stream, {})):
                    lane.end_reason = lane.end_reason or EndReason.CAUGHT_UP
        if self._is_past_age(now - self._started_at, lanes):
            return EndReason.AGE
        if lanes and not self.set_aside.owning and all(lane.at_end for lane in lanes):
            idle_since = max(lane.last_record_at for lane in lanes)
            if now - idle_since >= limits.idle_seconds:
                return EndReason.CAUGHT_UP
        return None

    def _is_past_age(self, age: float, lanes: Sequence[Lane]) -> bool:
        """A sensor's run goes on for HANDOVER_SECONDS, so that rows keep arriving until a successor waits."""
        alone = self._limits.targets is None and not any(lane.requests.successor_waits for lane in lanes)
        return age - self._limits.max_seconds >= (HANDOVER_SECONDS if alone else 0)

    def _crowded(self, lanes: Sequence[Lane]) -> Lane | None:
        """The lane with the largest open batch, if all open batches together take too much memory."""
        if not self._several or sum(lane.batch.size_bytes for lane in lanes) <= self._crowded_bytes:
            return None
        return max(lanes, key=lambda lane: lane.batch.size_bytes)
