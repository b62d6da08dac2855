"""The three brokers that one contract suite runs on, and what each of them can be made to do."""

import struct
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from ingest_pipeline.core.ports import Source, Topic, Topics
from ingest_pipeline.core.record import Chunk, GroupOffset, NextOffset
from ingest_pipeline.kafka.admin import Admin
from ingest_pipeline.kafka.source import KafkaSource
from ingest_pipeline.kafka.topic import KafkaTopic
from ingest_pipeline.kafka.topics import KafkaTopics
from ingest_pipeline.testing.broker import MemoryBroker
from ingest_pipeline.testing.clock import SettableClock
from ingest_pipeline.testing.source import MemorySource, MemoryTopic, MemoryTopics
from ingest_pipeline_tests.servers.broker import RealKafka
from ingest_pipeline_tests.servers.kafka_jars import KafkaServer

Headers = Sequence[tuple[str, bytes | None]]


def cut_log(path: Path, end: int) -> None:
    """Drop the record batches from offset `end` on. A batch is base offset (8 bytes), length (4), rest."""
    content = path.read_bytes()
    start = 0
    while start + 12 <= len(content):
        base, length = struct.unpack(">qi", content[start : start + 12])
        if base >= end or length <= 0:
            break
        start += 12 + length
    path.write_bytes(content[:start])


def _not_here() -> NoReturn:
    pytest.fail("this broker cannot do that: the test has to call `need` first")


class OneTopic:
    """One topic of a source, whose errors are raised."""

    def __init__(self, source: Source, topic: str) -> None:
        self._source, self._topic = source, topic
        self._unread: Chunk | None = None

    def assign(self, offsets: Mapping[int, NextOffset]) -> None:
        self._source.assign(self._topic, offsets)

    def read(self, max_records: int, timeout_seconds: float) -> Chunk:
        """Raises the topic's error in the read after the records before the error."""
        chunk = self._unread or self._source.read(max_records, timeout_seconds).get(self._topic, Chunk())
        self._unread = None
        if chunk.error is None:
            return chunk
        if not chunk.messages and not chunk.ends:
            raise chunk.error
        self._unread = Chunk(error=chunk.error)
        return replace(chunk, error=None)

    def acknowledge(self, offsets: Mapping[int, NextOffset]) -> None:
        self._source.acknowledge(self._topic, offsets)

    def earlier_commits(self) -> Mapping[int, int]:
        return self._source.earlier_commits(self._topic)

    def close(self) -> None:
        self._source.close()


class World:
    """A broker under test. What it cannot do is in `cannot`, with the reason; `need` skips a test for it."""

    cannot: ClassVar[Mapping[str, str]] = {}

    def __init__(self) -> None:
        self._sources: list[Source] = []

    def need(self, *capabilities: str) -> None:
        for capability in capabilities:
            if capability in self.cannot:
                pytest.skip(self.cannot[capability])

    def source(self, topic: str, *, group_id: str = "ingest", **options: Any) -> OneTopic:
        return OneTopic(self.source_of({topic: group_id}, **options), topic)

    def reading(self, topic: str, offsets: Mapping[int, NextOffset], **options: Any) -> OneTopic:
        """A source that reads the topic from these offsets."""
        source = self.source(topic, **options)
        source.assign(offsets)
        return source

    def source_of(self, groups: Mapping[str, str], **options: Any) -> Source:
        """A source of several topics. `groups`: topic → group id."""
        source = self._new_source(groups, **options)
        self._sources.append(source)
        return source

    def close(self) -> None:
        for source in self._sources:
            source.close()

    def append_all(self, topic: str, partition: int, values: Sequence[bytes | None]) -> None:
        for value in values:
            self.append(topic, partition, value)

    def _new_source(self, groups: Mapping[str, str], **options: Any) -> Source:
        _not_here()

    def topics(self) -> Topics:
        _not_here()

    def facts(self, topic: str) -> Topic:
        _not_here()

    def create(self, partitions: int = 2, config: Mapping[str, str] | None = None) -> str:
        _not_here()

    def append(self, topic: str, partition: int, value: bytes | None, **details: Any) -> None:
        """Write one record with key, headers and timestamp_ms if given. On return it is acknowledged."""
        _not_here()

    def transaction(self, topic: str, partition: int, values: Sequence[bytes]) -> Callable[[bool], None]:
        """Write records in a transaction that stays open. Returns a function that commits or aborts."""
        _not_here()

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        _not_here()

    def recreate(self, topic: str, partitions: int) -> None:
        _not_here()

    def add_partitions(self, topic: str, total: int) -> None:
        _not_here()

    def compact(self, topic: str, partition: int, offsets: Sequence[int]) -> None:
        """Let these records, which later ones replace, be removed some time after the next record is written."""
        _not_here()

    def foreign_commit(self, group: str, topic: str, offsets: Mapping[int, int], metadata: str) -> None:
        _not_here()

    def change_leader(self, topic: str, partition: int) -> None:
        """A new leader epoch, nothing lost."""
        _not_here()

    def truncate(self, topic: str, partition: int, end: int) -> None:
        """Lose the records from `end` on and begin a new leader epoch, as an unclean election does."""
        _not_here()


class MemoryWorld(World):
    """`testing.broker`."""

    def __init__(self) -> None:
        super().__init__()
        self.broker = MemoryBroker()
        self.clock = SettableClock()

    def _new_source(self, groups: Mapping[str, str], **options: Any) -> Source:
        return MemorySource(self.broker, self.clock, groups=groups, **options)

    def topics(self) -> Topics:
        return MemoryTopics(self.broker)

    def facts(self, topic: str) -> Topic:
        return MemoryTopic(self.broker, topic)

    def create(self, partitions: int = 2, config: Mapping[str, str] | None = None) -> str:
        name = f"contract-{uuid.uuid4().hex[:8]}"
        self.broker.create_topic(name, partitions)
        return name

    def append(self, topic: str, partition: int, value: bytes | None, **details: Any) -> None:
        self.broker.append(topic, partition, value, **details)

    def transaction(self, topic: str, partition: int, values: Sequence[bytes]) -> Callable[[bool], None]:
        self.broker.begin_transaction(topic, partition)
        for value in values:
            self.broker.append(topic, partition, value)
        return lambda commit: self.broker.end_transaction(topic, partition, commit=commit)

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        self.broker.delete_records(topic, partition, before)

    def recreate(self, topic: str, partitions: int) -> None:
        self.broker.recreate_topic(topic, partitions)

    def add_partitions(self, topic: str, total: int) -> None:
        self.broker.add_partitions(topic, total)

    def compact(self, topic: str, partition: int, offsets: Sequence[int]) -> None:
        self.broker.compact(topic, partition, offsets)

    def foreign_commit(self, group: str, topic: str, offsets: Mapping[int, int], metadata: str) -> None:
        commits = {partition: GroupOffset(offset, metadata) for partition, offset in offsets.items()}
        self.broker.groups.setdefault((group, topic), {}).update(commits)

    def change_leader(self, topic: str, partition: int) -> None:
        self.broker.change_leader(topic, partition)

    def truncate(self, topic: str, partition: int, end: int) -> None:
        self.broker.truncate(topic, partition, end)


class WireWorld(World):
    """A broker behind a port, met through `kafka.source` and `kafka.topic`."""

    def __init__(self, bootstrap_servers: str) -> None:
        super().__init__()
        self.kafka = {"bootstrap.servers": bootstrap_servers}
        quiet = self.kafka | {"log_level": "0"}
        self._settings = quiet | {"acks": "all", "linger.ms": "0"}
        self._producer = Producer(self._settings)
        self.admin = AdminClient(quiet)

    def _new_source(self, groups: Mapping[str, str], **options: Any) -> Source:
        named = {"ledger_id": "memory-ledger", "batch_bytes": 1 << 20} | options
        return KafkaSource(self.kafka, self.topics(), groups, **named)

    def topics(self) -> KafkaTopics:
        return KafkaTopics(Admin(self.kafka))

    def facts(self, topic: str) -> KafkaTopic:
        return KafkaTopic(Admin(self.kafka), topic)

    def append(
        self, topic: str, partition: int, value: bytes | None, *, timestamp_ms: int | None = None, **details: Any
    ) -> None:
        self._produce(self._producer, topic, partition, value, timestamp=timestamp_ms or 0, **details)
        assert self._producer.flush(30) == 0

    def append_all(self, topic: str, partition: int, values: Sequence[bytes | None]) -> None:
        # Idempotent: else a retry, as just after a topic was made, changes the order of records, even with one request
        # in flight. Of its own: to one that lives on, a log cut short or made anew would have lost its sequence.
        producer = Producer(self._settings | {"enable.idempotence": "true"})
        for value in values:
            self._produce(producer, topic, partition, value)
        assert producer.flush(30) == 0

    def foreign_commit(self, group: str, topic: str, offsets: Mapping[int, int], metadata: str) -> None:
        commits = [TopicPartition(topic, partition, offset, metadata) for partition, offset in offsets.items()]
        consumer = Consumer(self.kafka | {"group.id": group, "log_level": "0"})
        try:
            answers = consumer.commit(offsets=commits, asynchronous=False)
        finally:
            consumer.close()
        assert [answer.error for answer in answers] == [None] * len(offsets)

    @staticmethod
    def _produce(producer: Producer, topic: str, partition: int, value: bytes | None, **more: Any) -> None:
        def delivered(error: object, _: object) -> None:
            assert error is None, error

        more = {name: value for name, value in more.items() if value is not None}
        producer.produce(topic, value, partition=partition, on_delivery=delivered, **more)


class MockWorld(WireWorld):
    """librdkafka's mock cluster, in a process of its own."""

    _ADMIN = "librdkafka's mock cluster answers no admin request but ListOffsets and group offsets"
    cannot: ClassVar[Mapping[str, str]] = {
        "transactions": "librdkafka's mock cluster has no last stable offset and keeps no list of aborted records",
        "compaction": "librdkafka's mock cluster does not compact",
        "delete_records": _ADMIN,
        "recreate": _ADMIN,
        "add_partitions": _ADMIN,
        "topic_id": _ADMIN,
        "timestamps": "librdkafka's mock cluster answers every question for a time with the end",
    }

    def create(self, partitions: int = 2, config: Mapping[str, str] | None = None) -> str:
        """The topic comes into being with 4 partitions, whatever is asked for."""
        name = f"contract-{uuid.uuid4().hex[:8]}"
        self._producer.list_topics(name, timeout=10)
        return name


class RealWorld(WireWorld):
    """Apache Kafka."""

    def __init__(self, server: RealKafka) -> None:
        super().__init__(server.bootstrap_servers)
        self.server = server

    def create(self, partitions: int = 2, config: Mapping[str, str] | None = None) -> str:
        name = f"contract-{uuid.uuid4().hex[:8]}"
        self.server.create_topic(name, partitions, config)
        return name

    def transaction(self, topic: str, partition: int, values: Sequence[bytes]) -> Callable[[bool], None]:
        producer = Producer(self.kafka | {"transactional.id": uuid.uuid4().hex, "log_level": "0"})
        producer.init_transactions(30)
        producer.begin_transaction()
        for value in values:
            self._produce(producer, topic, partition, value)
        assert producer.flush(30) == 0
        return lambda commit: producer.commit_transaction(30) if commit else producer.abort_transaction(30)

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        (answer,) = self.admin.delete_records([TopicPartition(topic, partition, before)]).values()
        assert answer.result(30).low_watermark == before

    def recreate(self, topic: str, partitions: int) -> None:
        self.server.delete_topic(topic)
        self.server.create_topic(topic, partitions)

    def compact(self, topic: str, partition: int, offsets: Sequence[int]) -> None:
        time.sleep(0.2)  # the next record begins a new segment (segment.ms), and the cleaner takes the closed one

    def change_leader(self, topic: str, partition: int) -> None:
        """One node is its partitions' only leader: a restart begins a new epoch."""
        self.server.kill()
        self.server.start()

    def truncate(self, topic: str, partition: int, end: int) -> None:
        """Cut the log's file while the broker is down: what an election of a replica that lags behind comes to."""
        if not isinstance(self.server, KafkaServer):
            pytest.skip(f"{self.server.description} keeps its files where a test cannot cut them")
        self.server.kill()
        folder = self.server.folder / "logs" / f"{topic}-{partition}"
        (log,) = folder.glob("*.log")
        cut_log(log, end)
        for index in [*folder.glob("*.index"), *folder.glob("*.timeindex"), *folder.glob("*.snapshot")]:
            index.unlink()
        self.server.start()

    def add_partitions(self, topic: str, total: int) -> None:
        (answer,) = self.admin.create_partitions([NewPartitions(topic, total)]).values()
        answer.result(30)
        self.server.wait_for_leaders(topic, partitions=total)
        self._producer.list_topics(topic, timeout=10)  # else it knows the old number for a while
