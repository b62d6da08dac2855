"""The `Source`, `Topic` and `Topics` ports on a MemoryBroker."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from ..core.errors import IngestError, KafkaUnavailable, TopicMissing
from ..core.loss import data_loss
from ..core.ports import Clock, Source, Topic, Topics
from ..core.record import LEDGER_MARK, Chunk, GroupOffset, NextOffset, TopicIdentity
from .broker import MemoryBroker
from .clock import SettableClock
from .log import PartitionLog


class MemorySource(Source):
    """A read without records moves the clock by the time-out and returns at once.

    Args:
        groups: topic → group id. Other topics have the group "ingest".
    """

    def __init__(
        self,
        broker: MemoryBroker,
        clock: Clock | None = None,
        *,
        groups: Mapping[str, str] | None = None,
        ledger_id: str = "memory-ledger",
        retry_seconds: float = 30.0,
    ) -> None:
        self._broker = broker
        self._clock = clock or SettableClock()
        self._groups, self._ledger_id = dict(groups or {}), ledger_id
        self._retry_seconds = retry_seconds
        self._next_offsets: dict[str, dict[int, NextOffset]] = {}
        self._reported_ends: dict[tuple[str, int], int] = {}
        self._earlier_commits: dict[str, dict[int, int]] = {}
        self._away_since: float | None = None
        self._turn = 0

    def assign(self, topic: str, offsets: Mapping[int, NextOffset]) -> None:
        self._reported_ends = {key: end for key, end in self._reported_ends.items() if key[0] != topic}
        self._next_offsets.pop(topic, None)
        if offsets:
            self._next_offsets[topic] = dict(offsets)

    def read(self, max_records: int, timeout_seconds: float) -> dict[str, Chunk]:
        partitions = [(topic, p) for topic in sorted(self._next_offsets) for p in sorted(self._next_offsets[topic])]
        if not self._broker.available or (partitions and all(map(self._leader_away, partitions))):
            return self._away(timeout_seconds)
        self._away_since = None
        self._turn += 1
        first = self._turn % len(partitions) if partitions else 0
        chunks: dict[str, Chunk] = {}
        room = max_records
        with self._broker.lock:
            for topic, partition in partitions[first:] + partitions[:first]:
                chunk = chunks.get(topic, Chunk())
                if chunk.error is None and not self._leader_away((topic, partition)):
                    more = self._take(topic, partition, room)
                    room -= len(more.messages)
                    messages = [*chunk.messages, *more.messages]
                    chunks[topic] = Chunk(messages, {**chunk.ends, **more.ends}, more.error)
        for topic, chunk in chunks.items():
            if chunk.error is not None:
                self.assign(topic, {})
        if room == max_records:
            self._clock.sleep(timeout_seconds)
        return {topic: chunk for topic, chunk in chunks.items() if chunk != Chunk([])}

    def acknowledge(self, topic: str, offsets: Mapping[int, NextOffset]) -> None:
        if self._broker.available:
            commits = self._broker.groups.setdefault((self._groups.get(topic, "ingest"), topic), {})
            earlier = {p: commit.next_offset for p, commit in commits.items() if commit.ledger_id == self._ledger_id}
            self._earlier_commits.setdefault(topic, earlier)
            for partition, offset in offsets.items():
                commits[partition] = GroupOffset(offset.next_offset, LEDGER_MARK + self._ledger_id)

    def earlier_commits(self, topic: str) -> Mapping[int, int]:
        return self._earlier_commits.get(topic, {})

    def close(self) -> None:
        self._next_offsets = {}

    def _take(self, topic: str, partition: int, room: int) -> Chunk:
        """Read up to `room` records of a partition, and report its end when the last record is read."""
        try:
            log = self._broker.log(topic, partition)
        except TopicMissing as error:
            return Chunk(error=error)
        resume_at = self._next_offsets[topic][partition]
        if not log.holds(*resume_at):
            expected = resume_at.next_offset
            loss = data_loss(f"topic {topic}", partition=partition, expected=expected, low=log.start, high=log.end)
            return Chunk(error=loss)
        readable = log.records(resume_at.next_offset)
        taken = readable[:room]
        ends: dict[int, NextOffset] = {}
        if taken:
            resume_at = NextOffset(taken[-1].offset() + 1, taken[-1].leader_epoch())
        if len(taken) == len(readable):
            if resume_at.next_offset < log.stable_end:
                resume_at = NextOffset(log.stable_end, log.epoch)
            if self._reported_ends.get((topic, partition)) != resume_at.next_offset:
                self._reported_ends[topic, partition] = resume_at.next_offset
                ends[partition] = resume_at
        self._next_offsets[topic][partition] = resume_at
        return Chunk(taken, ends)

    def _leader_away(self, partition: tuple[str, int]) -> bool:
        try:
            return self._broker.log(*partition).leader_away
        except TopicMissing:
            return False  # a broker answers that the topic is missing

    def _away(self, timeout_seconds: float) -> dict[str, Chunk]:
        if self._away_since is None:
            self._away_since = self._clock.monotonic()
        self._clock.sleep(timeout_seconds)
        if self._clock.monotonic() - self._away_since >= self._retry_seconds:
            topics = ", ".join(sorted(self._next_offsets))
            raise KafkaUnavailable(f"topic {topics}: no leader of the assigned partitions answers")
        return {}


class MemoryTopics(Topics):
    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def identities(self, topics: Collection[str]) -> dict[str, TopicIdentity | IngestError]:
        identities: dict[str, TopicIdentity | IngestError] = {}
        for topic in topics:
            try:
                identities[topic] = MemoryTopic(self._broker, topic).identity()
            except TopicMissing as error:
                identities[topic] = error
        return identities

    def end_offsets(self, partitions: Mapping[str, Collection[int]]) -> dict[str, dict[int, NextOffset]]:
        return {topic: self._topic(topic).end_offsets(numbers) for topic, numbers in self._existing(partitions)}

    def high_watermarks(self, partitions: Mapping[str, Collection[int]]) -> dict[str, dict[int, NextOffset]]:
        return {topic: self._topic(topic).high_watermarks(numbers) for topic, numbers in self._existing(partitions)}

    def start_offsets(self, partitions: Mapping[str, Collection[int]]) -> dict[str, dict[int, NextOffset]]:
        return {topic: self._topic(topic).start_offsets(numbers) for topic, numbers in self._existing(partitions)}

    def _existing(self, partitions: Mapping[str, Collection[int]]) -> Iterator[tuple[str, list[int]]]:
        for topic, identity in self.identities(partitions).items():
            count = 0 if isinstance(identity, IngestError) else identity.partitions
            yield topic, [partition for partition in partitions[topic] if partition < count]

    def _topic(self, topic: str) -> MemoryTopic:
        return MemoryTopic(self._broker, topic)


class MemoryTopic(Topic):
    def __init__(self, broker: MemoryBroker, name: str) -> None:
        self.name = name
        self._broker = broker

    def identity(self) -> TopicIdentity:
        self._ask()
        return self._broker.identity(self.name)

    def end_offsets(self, partitions: Collection[int]) -> dict[int, NextOffset]:
        return {log.partition: NextOffset(log.stable_end, log.epoch) for log in self._logs(partitions)}

    def high_watermarks(self, partitions: Collection[int]) -> dict[int, NextOffset]:
        return {log.partition: NextOffset(log.end, log.epoch) for log in self._logs(partitions)}

    def start_offsets(self, partitions: Collection[int]) -> dict[int, NextOffset]:
        return {log.partition: NextOffset(log.start, log.epoch_at(log.start)) for log in self._logs(partitions)}

    def offsets_at(self, partitions: Collection[int], timestamp_ms: int) -> dict[int, NextOffset]:
        offsets = self.end_offsets(partitions)
        for log in self._logs(offsets):
            for message in log.records(log.start):
                kind, ms = message.timestamp()
                if kind and ms >= timestamp_ms:
                    offsets[log.partition] = NextOffset(message.offset(), message.leader_epoch())
                    break
        return offsets

    def group_offsets(self, group: str) -> dict[int, GroupOffset]:
        self._ask()
        self._broker.identity(self.name)
        return dict(self._broker.groups.get((group, self.name), {}))

    def _logs(self, partitions: Collection[int]) -> list[PartitionLog]:
        self._ask()
        logs = [self._broker.log(self.name, partition) for partition in partitions]
        return [log for log in logs if not log.leader_away]

    def _ask(self) -> None:
        if not self._broker.available:
            raise KafkaUnavailable(f"topic {self.name}: the in-memory broker is set unavailable")
