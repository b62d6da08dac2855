"""An in-memory Kafka: the broker's side. `source.py` has the reader's.

broker = MemoryBroker({"price": 2})
broker.append("price", 0, b'{"symbol": "A", ...}')
source = MemorySource(broker, "price", SettableClock())
source.assign({0: Place(0), 1: Place(0)})
source.read(100, 0.25)
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..core.errors import TopicMissing
from ..core.record import GroupOffset, TopicIdentity
from .log import MemoryMessage, PartitionLog


@dataclass(slots=True)
class _Topic:
    topic_id: str
    logs: dict[int, PartitionLog]


class MemoryBroker:
    """Topics of partition logs, and groups' commits. Several threads may use it.

    Offsets are handed out as Kafka does: markers, aborted and compacted records keep theirs and are never read.
    """

    def __init__(self, topics: Mapping[str, int] | None = None, cluster_id: str = "memory-cluster") -> None:
        """`topics`: name → number of partitions."""
        self.cluster_id = cluster_id
        self.groups: dict[tuple[str, str], dict[int, GroupOffset]] = {}
        """(group, topic) → partition → commit."""
        self._topics: dict[str, _Topic] = {}
        self._created = 0
        self._available = True
        self.lock = threading.RLock()
        for name, partitions in (topics or {}).items():
            self.create_topic(name, partitions)

    def create_topic(self, topic: str, partitions: int = 1) -> None:
        with self.lock:
            self._created += 1
            logs = {partition: PartitionLog(partition) for partition in range(partitions)}
            self._topics[topic] = _Topic(f"topic-id-{self._created}", logs)

    def delete_topic(self, topic: str) -> None:
        with self.lock:
            self._state(topic)
            del self._topics[topic]

    def recreate_topic(self, topic: str, partitions: int | None = None) -> None:
        """Another topic of the same name: another id, no records, offsets from 0."""
        with self.lock:
            self.create_topic(topic, partitions or len(self._state(topic).logs))

    def add_partitions(self, topic: str, total: int) -> None:
        with self.lock:
            logs = self._state(topic).logs
            for partition in range(len(logs), total):
                logs[partition] = PartitionLog(partition)

    def append(
        self,
        topic: str,
        partition: int,
        value: bytes | None,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes | None]] | None = None,
        timestamp_ms: int | None = None,
    ) -> int:
        """Write one record, None being a tombstone, and return its offset."""
        with self.lock:
            log = self.log(topic, partition)
            message = MemoryMessage(partition, log.end, log.epoch, value, key, headers, timestamp_ms)
            return log.append(message)

    def append_marker(self, topic: str, partition: int) -> int:
        """Write a transaction's marker: an offset that is never delivered."""
        with self.lock:
            return self.log(topic, partition).append(None)

    def begin_transaction(self, topic: str, partition: int) -> None:
        """What is appended from now on is held back until `end_transaction`."""
        with self.lock:
            log = self.log(topic, partition)
            log.unstable_from = log.end

    def end_transaction(self, topic: str, partition: int, *, commit: bool) -> None:
        """Write the marker; aborted records keep their offsets and are never delivered."""
        with self.lock:
            log = self.log(topic, partition)
            if not commit and log.unstable_from is not None:
                log.hide(range(log.unstable_from, log.end))
            log.unstable_from = None
            log.append(None)

    def compact(self, topic: str, partition: int, offsets: Sequence[int]) -> None:
        """Remove records as a compacted topic does."""
        with self.lock:
            self.log(topic, partition).hide(offsets)

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        """Move the log's start, as retention and DeleteRecords do."""
        with self.lock:
            self.log(topic, partition).delete_before(before)

    def truncate(self, topic: str, partition: int, end: int) -> None:
        """Lose the records from `end` on under a new leader, as an unclean election does."""
        with self.lock:
            self.log(topic, partition).truncate(end)

    def change_leader(self, topic: str, partition: int) -> None:
        """A new leader epoch that loses nothing."""
        with self.lock:
            self.log(topic, partition).new_epoch()

    def set_leader_away(self, topic: str, partition: int, away: bool) -> None:
        """While set, nobody learns this partition's offsets or reads its records. Other partitions go on."""
        with self.lock:
            self.log(topic, partition).leader_away = away

    def set_unavailable(self, unavailable: bool) -> None:
        """While set, every question raises KafkaUnavailable and reads bring nothing."""
        self._available = not unavailable

    @property
    def available(self) -> bool:
        return self._available

    def identity(self, topic: str) -> TopicIdentity:
        with self.lock:
            state = self._state(topic)
            return TopicIdentity(self.cluster_id, state.topic_id, len(state.logs))

    def log(self, topic: str, partition: int) -> PartitionLog:
        """Raises TopicMissing for a topic or a partition that does not exist."""
        logs = self._state(topic).logs
        if partition not in logs:
            raise TopicMissing(f"topic {topic} has no partition {partition}", partition=partition)
        return logs[partition]

    def _state(self, topic: str) -> _Topic:
        if topic not in self._topics:
            raise TopicMissing(f"topic {topic} does not exist")
        return self._topics[topic]
