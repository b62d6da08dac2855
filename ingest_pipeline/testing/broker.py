"""An in-memory Kafka broker. `source.py` has its readers.

broker = MemoryBroker({"price": 2})
broker.append("price", 0, b'{"symbol": "A", ...}')
source = MemorySource(broker, SettableClock())
source.assign("price", {0: NextOffset(0), 1: NextOffset(0)})
source.read(100, 0.25)["price"]
"""

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
    """Topics with partition logs, and the commits of consumer groups. Methods are thread-safe.

    As in Kafka, transaction markers, aborted and compacted records take up offsets and are never read.
    """

    def __init__(self, topics: Mapping[str, int] | None = None) -> None:
        """`topics`: name → number of partitions."""
        self.cluster_id = "memory-cluster"
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
        """Replace the topic by an empty one of the same name, with a new topic id and offsets from 0."""
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
        *,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes | None]] | None = None,
        timestamp_ms: int | None = None,
    ) -> int:
        """Write a record and return its offset. None as value writes a tombstone."""
        with self.lock:
            log = self.log(topic, partition)
            message = MemoryMessage(
                partition, log.end, log.epoch, value, key=key, headers=headers, timestamp_ms=timestamp_ms
            )
            return log.append(message)

    def append_marker(self, topic: str, partition: int) -> int:
        """Write a transaction marker, which takes up an offset and is never read."""
        with self.lock:
            return self.log(topic, partition).append(None)

    def begin_transaction(self, topic: str, partition: int) -> None:
        """Hold back all following records until `end_transaction`."""
        with self.lock:
            log = self.log(topic, partition)
            log.unstable_from = log.end

    def end_transaction(self, topic: str, partition: int, *, commit: bool) -> None:
        """Write the marker. Records of an aborted transaction are never read."""
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
        """Delete the records from `end` on and begin a new leader epoch, as an unclean election does."""
        with self.lock:
            self.log(topic, partition).truncate(end)

    def change_leader(self, topic: str, partition: int) -> None:
        """Begin a new leader epoch without loss."""
        with self.lock:
            self.log(topic, partition).new_epoch()

    def set_leader_away(self, topic: str, partition: int, away: bool) -> None:
        """Make one partition unreadable, and leave its offsets unanswered. Other partitions go on."""
        with self.lock:
            self.log(topic, partition).leader_away = away

    def set_unavailable(self, unavailable: bool) -> None:
        """Make every question raise KafkaUnavailable and every read return no records."""
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
