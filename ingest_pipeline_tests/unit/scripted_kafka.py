"""A scripted consumer and scripted topics, for events that no broker produces on demand."""

from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from ingest_pipeline.core.errors import IngestError, KafkaUnavailable
from ingest_pipeline.core.record import Chunk, NextOffset, TopicIdentity
from ingest_pipeline.kafka.admin import Admin
from ingest_pipeline.kafka.partition_ends import Partition
from ingest_pipeline.kafka.source import KafkaSource
from ingest_pipeline.kafka.topics import EARLIEST, Answers, KafkaTopics
from ingest_pipeline.testing.clock import SettableClock

TOPIC = "price"
KAFKA = {"bootstrap.servers": "localhost:9092"}


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
        refusal: the error code of every commit.
        early: how many seeks are refused, because the partition is not read yet.
    """

    def __init__(self, config: dict[str, Any], clock: SettableClock) -> None:
        self.config, self.clock = config, clock
        self.script: list[list[Message] | Callable[[], None]] = []
        self.positions: dict[Partition, TopicPartition] = {}
        self.commits: list[list[TopicPartition]] = []
        self.assigned: list[dict[Partition, int]] = []
        self.unassigned: list[list[Partition]] = []
        self.asked: list[str] = []
        self.sought: list[tuple[Partition, int]] = []
        self.early = 0
        self.closed = False
        self.refusal: int | None = None
        self.committed_before: list[TopicPartition] = []

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

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        if self.refusal is not None:
            raise KafkaException(KafkaError(self.refusal))
        return self.committed_before

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> list[TopicPartition]:
        if self.refusal is not None:
            raise KafkaException(KafkaError(self.refusal))
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

    def __init__(self) -> None:
        super().__init__(Admin(KAFKA))
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

    def offsets(
        self, partitions: Mapping[str, Collection[int]], spec: OffsetSpec, deadline: float, isolation: IsolationLevel
    ) -> tuple[Answers, dict[str, IngestError]]:
        if self.away:
            raise KafkaUnavailable("away")
        offsets = self.starts if spec is EARLIEST else self.ends
        if isolation == IsolationLevel.READ_UNCOMMITTED:
            offsets = offsets | self.highs
        return {topic: {**self._of(offsets, numbers)} for topic, numbers in partitions.items()}, {}

    def identities(self, topics: Collection[str]) -> dict[str, TopicIdentity | IngestError]:
        return {topic: TopicIdentity("cluster", "topic", self.partitions) for topic in topics}

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


class Stage:
    """A source on scripted clients.

    Attributes:
        consumers: the reading consumer, one for each group's question, and one for each commit with several groups.
        refusal: the error code of every question and commit of the next consumers.
        committed_before: the answer to the next consumers' questions.
    """

    def __init__(self, *topics: str) -> None:
        self.clock = SettableClock()
        groups = {topic: f"group-{topic}" for topic in topics}
        self.topics = ScriptedTopics()
        self.consumers: list[ScriptedConsumer] = []
        self.refusal: int | None = None
        self.committed_before: list[TopicPartition] = []
        self.source = KafkaSource(
            KAFKA,
            self.topics,
            groups,
            ledger_id="ledger",
            batch_bytes=1 << 20,
            retry_seconds=30.0,
            clock=self.clock,
            client_class=self._consumer,
            background=at_once,
        )
        (self.client,) = self.consumers
        for topic in topics:
            self.source.assign(topic, {0: NextOffset(5, 1), 1: NextOffset(0, 1)})

    def _consumer(self, config: dict[str, Any], logger: object) -> ScriptedConsumer:
        self.consumers.append(ScriptedConsumer(config, self.clock))
        self.consumers[-1].refusal = self.refusal
        self.consumers[-1].committed_before = self.committed_before
        return self.consumers[-1]

    @property
    def committing(self) -> list[ScriptedConsumer]:
        return [consumer for consumer in self.consumers if consumer.commits]

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
