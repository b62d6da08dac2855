"""A scripted consumer and scripted topics, for events that no broker produces on demand."""

from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from ingest_pipeline.core.errors import IngestError, KafkaUnavailable
from ingest_pipeline.core.record import Chunk, NextOffset, TopicIdentity
from ingest_pipeline.kafka.admin import Admin
from ingest_pipeline.kafka.partition_ends import Partition
from ingest_pipeline.kafka.source import KafkaSource
from ingest_pipeline.kafka.topic import KafkaTopic
from ingest_pipeline.kafka.topics import KafkaTopics
from ingest_pipeline.testing.clock import SettableClock

TOPIC = "price"


def record(offset: int, epoch: int = 1, partition: int = 0, topic: str = TOPIC) -> Message:
    return Message(topic=topic, partition=partition, offset=offset, value=b"{}", leader_epoch=epoch)


def event(code: int, offset: int = -1, partition: int = 0, topic: str | None = TOPIC) -> Message:
    return Message(topic=topic, partition=partition, offset=offset, error=KafkaError(code), leader_epoch=0)


def end(offset: int, partition: int = 0, topic: str = TOPIC) -> Message:
    return event(KafkaError._PARTITION_EOF, offset, partition, topic)


class ScriptedConsumer:
    """Returns the steps of `script`, each after the time-out. A callable step runs in place of the client's callback.

    Attributes:
        assigned: (topic, partition) → offset, of every call.
        early: how many seeks are refused, because the partition is not read yet.
    """

    def __init__(self, config: dict[str, Any], logger: object = None) -> None:
        self.config = config
        self.script: list[list[Message] | Callable[[], None]] = []
        self.positions: dict[Partition, TopicPartition] = {}
        self.commits: list[list[TopicPartition]] = []
        self.assigned: list[dict[Partition, int]] = []
        self.unassigned: list[list[Partition]] = []
        self.asked: list[str] = []
        self.sought: list[tuple[Partition, int]] = []
        self.early = 0
        self.closed = False
        self.clock = SettableClock()

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        self.assigned.append({(partition.topic, partition.partition): partition.offset for partition in partitions})

    def seek(self, partition: TopicPartition) -> None:
        if self.early:
            self.early -= 1
            raise KafkaException(KafkaError(KafkaError._STATE))
        self.sought.append(((partition.topic, partition.partition), partition.offset))

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        self.unassigned.append([(partition.topic, partition.partition) for partition in partitions])
        for key in self.unassigned[-1]:
            self.positions.pop(key, None)

    def unassign(self) -> None: ...

    def list_topics(self, topic: str, timeout: float) -> None:
        assert any(topic == key[0] for call in self.assigned for key in call), (
            "metadata is requested after the assignment"
        )
        self.asked.append(topic)

    def consume(self, count: int, timeout: float) -> list[Message]:
        step = self.script.pop(0) if self.script else []
        self.clock.advance(timeout)
        if callable(step):
            step()
            return []
        for message in step:
            if message.error() is None:
                key = str(message.topic()), message.partition()
                self.positions[key] = TopicPartition(*key, message.offset() + 1, "", message.leader_epoch())
        return step

    def position(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        keys = [(partition.topic, partition.partition) for partition in partitions]
        return [self.positions.get(key, TopicPartition(*key)) for key in keys]

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> list[TopicPartition]:
        self.commits.append(offsets)
        return offsets

    def poll(self, timeout: float) -> None:
        if self.commits:
            self.answer()

    def answer(self, error: int | None = None) -> None:
        self.config["on_commit"](None if error is None else KafkaError(error), self.commits[-1])

    def complain(self, code: int) -> Callable[[], None]:
        return lambda: self.config["error_cb"](KafkaError(code))

    def close(self) -> None:
        self.closed = True


class ScriptedTopics(KafkaTopics):
    """Answers from dicts. With `away` every question fails. `silent` partitions have no answer."""

    def __init__(self, admin: Admin, *, timeout_seconds: float = 5.0) -> None:
        super().__init__(admin, timeout_seconds=timeout_seconds)
        self.ends: dict[int, NextOffset] = {}
        self.starts: dict[int, NextOffset] = {}
        self.highs: dict[int, NextOffset] = {}
        self.away = False
        self.silent: set[int] = set()
        self.partitions = 2
        self.questions = 0

    def end_offsets(self, partitions: Mapping[str, Collection[int]]) -> dict[str, dict[int, NextOffset]]:
        self.questions += 1
        if self.away:
            raise KafkaUnavailable("away")
        return {topic: self._of(self.ends, numbers) for topic, numbers in partitions.items()}

    def ask_ends(self, partitions: Iterable[Partition]) -> dict[Partition, Future[Any]]:
        self.questions += 1
        return {key: self._end(key[1]) for key in partitions}

    def _end(self, partition: int) -> Future[Any]:
        future = Future[Any]()
        if self.away:
            future.set_exception(KafkaException(KafkaError(KafkaError._TRANSPORT)))
        elif partition in self.silent:
            future.set_result(SimpleNamespace(offset=-1001, leader_epoch=None))
        else:
            offset, epoch = self.ends.get(partition, NextOffset(0, 0))
            future.set_result(SimpleNamespace(offset=offset, leader_epoch=epoch))
        return future

    def _of(self, offsets: Mapping[int, NextOffset], partitions: Collection[int]) -> dict[int, NextOffset]:
        return {p: offsets.get(p, NextOffset(0, 0)) for p in partitions if p not in self.silent}


class ScriptedTopic(KafkaTopic):
    """One topic of ScriptedTopics."""

    def __init__(self, topics: ScriptedTopics, name: str) -> None:
        super().__init__(topics.admin, name)
        self.topics = topics

    def high_watermarks(self, partitions: Collection[int]) -> dict[int, NextOffset]:
        ends = self.topics.end_offsets({self.name: partitions})[self.name]
        return ends | {p: self.topics.highs[p] for p in partitions if p in self.topics.highs}

    def start_offsets(self, partitions: Collection[int]) -> dict[int, NextOffset]:
        return self.topics._of(self.topics.starts, partitions)

    def identity(self) -> TopicIdentity:
        return TopicIdentity("cluster", "topic", self.topics.partitions)


class Stage:
    """A source on a scripted client."""

    def __init__(self, *topics: str) -> None:
        self.clock = SettableClock()
        groups = {topic: f"group-{topic}" for topic in topics}
        kafka = {"bootstrap.servers": "localhost:9092"}
        self.source = KafkaSource(
            kafka, Admin(kafka), groups, ledger_id="ledger", batch_bytes=1 << 20, retry_seconds=30.0, clock=self.clock
        )
        self.client: ScriptedConsumer = self.source._consumer  # type: ignore[assignment]
        self.client.clock = self.clock
        self.topics: ScriptedTopics = self.source._topics  # type: ignore[assignment]
        for topic in topics:
            self.source.assign(topic, {0: NextOffset(5, 1), 1: NextOffset(0, 1)})

    def read(self, *steps: list[Message] | Callable[[], None]) -> list[Chunk]:
        """The chunks of TOPIC. Raises the error of a chunk without records."""
        chunks = [chunks.get(TOPIC, Chunk()) for chunks in self.read_all(*steps)]
        for chunk in chunks:
            if chunk.error is not None:
                raise chunk.error
        return chunks

    def read_until_retried(self) -> None:
        """Read nothing until the source assigns a stopped partition again."""
        calls = len(self.client.assigned)
        while len(self.client.assigned) == calls:
            assert self.read([]) == [Chunk()]

    def read_all(self, *steps: list[Message] | Callable[[], None]) -> list[Mapping[str, Chunk]]:
        self.client.script += steps
        return [self.source.read(100, 0.1) for _ in steps]


def at_once(question: Callable[[], Any]) -> Future[Any]:
    future = Future[Any]()
    try:
        future.set_result(question())
    except (IngestError, KafkaException) as error:
        future.set_exception(error)
    return future


def script_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the clients of every source that is opened from now on."""
    topics: list[ScriptedTopics] = []

    def scripted_topics(admin: Admin, *, timeout_seconds: float) -> ScriptedTopics:
        topics.append(ScriptedTopics(admin, timeout_seconds=timeout_seconds))
        return topics[-1]

    monkeypatch.setattr("ingest_pipeline.kafka.source.Consumer", ScriptedConsumer)
    monkeypatch.setattr("ingest_pipeline.kafka.source.KafkaTopics", scripted_topics)
    monkeypatch.setattr(
        "ingest_pipeline.kafka.stopped_partitions.KafkaTopic", lambda _, name, **__: ScriptedTopic(topics[-1], name)
    )
    for module in ("stopped_partitions", "trouble", "commit_requests"):
        monkeypatch.setattr(f"ingest_pipeline.kafka.{module}.in_background", at_once)
