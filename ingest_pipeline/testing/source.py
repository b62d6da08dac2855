"""The `Source` and `Topic` ports on a MemoryBroker."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..core.errors import KafkaUnavailable
from ..core.loss import data_loss
from ..core.ports import Clock
from ..core.record import LEDGER_MARK, Chunk, GroupOffset, NextOffset, TopicIdentity
from .broker import MemoryBroker
from .clock import SettableClock
from .log import MemoryMessage, PartitionLog


class MemorySource:
    """Implements the `Source` port. A read without records moves the clock by the time-out and returns at once."""

    def __init__(
        self,
        broker: MemoryBroker,
        topic: str,
        clock: Clock | None = None,
        *,
        group_id: str = "ingest",
        ledger_id: str = "memory-ledger",
        retry_seconds: float = 30.0,
    ) -> None:
        self._broker, self._topic = broker, topic
        self._clock = clock or SettableClock()
        self._group_id, self._ledger_id = group_id, ledger_id
        self._retry_seconds = retry_seconds
        self._next_offsets: dict[int, NextOffset] = {}
        self._reported_ends: dict[int, int] = {}
        self._away_since: float | None = None
        self._turn = 0

    def assign(self, offsets: Mapping[int, NextOffset]) -> None:
        self._next_offsets = dict(offsets)
        self._reported_ends = {}

    def read(self, max_records: int, timeout_seconds: float) -> Chunk:
        with self._broker.lock:
            reachable = [p for p in self._next_offsets if not self._broker.log(self._topic, p).leader_away]
        if not self._broker.available or (self._next_offsets and not reachable):
            return self._away(timeout_seconds)
        self._away_since = None
        records: list[MemoryMessage] = []
        ends: dict[int, NextOffset] = {}
        partitions = sorted(self._next_offsets)
        self._turn += 1
        first = self._turn % len(partitions) if partitions else 0
        with self._broker.lock:
            for partition in partitions[first:] + partitions[:first]:
                self._take(partition, max_records - len(records), records, ends)
        if not records:
            self._clock.sleep(timeout_seconds)
        return Chunk(records, ends)

    def acknowledge(self, offsets: Mapping[int, NextOffset]) -> None:
        if self._broker.available:
            commits = self._broker.groups.setdefault((self._group_id, self._topic), {})
            for partition, offset in offsets.items():
                commits[partition] = GroupOffset(offset.next_offset, LEDGER_MARK + self._ledger_id)

    def close(self) -> None:
        self._next_offsets = {}

    def _take(self, partition: int, room: int, records: list[MemoryMessage], ends: dict[int, NextOffset]) -> None:
        """Read up to `room` records of a partition, and report its end when the last record is read."""
        log = self._broker.log(self._topic, partition)
        if log.leader_away:
            return
        resume_at = self._next_offsets[partition]
        if not log.holds(*resume_at):
            raise data_loss(
                f"topic {self._topic}", partition=partition, expected=resume_at.next_offset, low=log.start, high=log.end
            )
        readable = log.records(resume_at.next_offset)
        taken = readable[:room]
        if taken:
            records += taken
            resume_at = NextOffset(taken[-1].offset() + 1, taken[-1].leader_epoch())
        if len(taken) == len(readable):
            if resume_at.next_offset < log.stable_end:
                resume_at = NextOffset(log.stable_end, log.epoch)
            if self._reported_ends.get(partition) != resume_at.next_offset:
                self._reported_ends[partition] = resume_at.next_offset
                ends[partition] = resume_at
        self._next_offsets[partition] = resume_at

    def _away(self, timeout_seconds: float) -> Chunk:
        if self._away_since is None:
            self._away_since = self._clock.monotonic()
        self._clock.sleep(timeout_seconds)
        if self._clock.monotonic() - self._away_since >= self._retry_seconds:
            raise KafkaUnavailable(f"topic {self._topic}: no leader of the assigned partitions answers")
        return Chunk()


class MemoryTopic:
    """Implements the `Topic` port."""

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
        """The logs of the partitions whose leader answers."""
        self._ask()
        logs = [self._broker.log(self.name, partition) for partition in partitions]
        return [log for log in logs if not log.leader_away]

    def _ask(self) -> None:
        if not self._broker.available:
            raise KafkaUnavailable(f"topic {self.name}: the in-memory broker is set unavailable")
