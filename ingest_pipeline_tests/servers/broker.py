"""What every real broker of the tests offers, wherever it runs."""

import time
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from ingest_pipeline.local.server import LocalServer

KAFKA_VERSION = "4.4.0"

# Settings that make one node enough, and start, restart, compaction and group joins quick.
QUICK_SINGLE_NODE = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
    "log.initial.task.delay.ms": "500",
    "log.cleaner.backoff.ms": "500",
    "log.cleaner.dedupe.buffer.size": "8388608",
}
_FENCED = (KafkaError.INVALID_REPLICATION_FACTOR, KafkaError.INVALID_REPLICA_ASSIGNMENT)
"""Answers to a new topic after a broker's start or freeze, until the controller lets the broker in again."""
HEAP = "-Xms256m -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1"


class ServerUnavailable(Exception):
    """A server cannot be started in this way here. The message is one line with the reason."""


def asking_again(ask: Callable[[], Any], codes: Collection[int]) -> Any:
    """The answer to a question that Kafka answers with one of these error codes for a moment."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in codes or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


class RealKafka(LocalServer):
    """A running Apache Kafka. ``description`` names it in the test report."""

    description: str
    bootstrap_servers: str

    def __init__(self) -> None:
        self._admin: AdminClient | None = None

    @abstractmethod
    def start(self) -> None:
        """Start the broker, also again with the same topics and address. On return it accepts records."""

    @abstractmethod
    def stop(self) -> None:
        """End the broker in order. On return it is gone, and its data stay for the next start."""

    @abstractmethod
    def kill(self) -> None:
        """End the broker with SIGKILL. On return it is gone, and its data stay as they were."""

    @property
    def admin(self) -> AdminClient:
        """One admin client for this broker, quiet while the broker is away."""
        if self._admin is None:
            settings = {"bootstrap.servers": self.bootstrap_servers, "log_level": 0, "reconnect.backoff.max.ms": 200}
            # The client sends requests to a frozen broker until one request has been open for this long.
            self._admin = AdminClient(settings | {"socket.timeout.ms": 2000})
        return self._admin

    def create_topic(self, name: str, partitions: int = 4, config: Mapping[str, str] | None = None) -> None:
        """Make a topic. On return every partition has a leader."""
        self._create(NewTopic(name, partitions, replication_factor=1, config=dict(config or {})))

    def _create(self, topic: NewTopic) -> None:
        asking_again(lambda: self.admin.create_topics([topic], request_timeout=30)[topic.topic].result(30), _FENCED)
        self.wait_for_leaders(topic.topic)

    def delete_topic(self, name: str) -> None:
        """Delete a topic. On return the broker has accepted the request. A moment later the name is free again."""
        self.admin.delete_topics([name], request_timeout=30)[name].result(30)

    def wait_for_leaders(self, topic: str | None = None, timeout_seconds: float = 60.0, *, partitions: int = 0) -> None:
        """Return when the broker answers and every partition (of one topic, or of all) has a leader.

        Args:
            partitions: the smallest number of partitions. A broker learns of added partitions a moment late.
        """
        deadline = time.monotonic() + timeout_seconds
        problem = "no answer"
        while time.monotonic() < deadline:
            self.check_alive()
            try:
                metadata = self.admin.list_topics(topic, timeout=1) if topic else self.admin.list_topics(timeout=1)
            except KafkaException as error:
                problem = error.args[0].str()
                continue
            leaders = [p.leader for facts in metadata.topics.values() for p in facts.partitions.values()]
            complete = len(leaders) >= max(partitions, 0 if topic is None else 1)
            if metadata.brokers and complete and all(leader >= 0 for leader in leaders):
                return
            problem = "a partition without a leader"
            time.sleep(0.05)
        raise ServerUnavailable(f"{self.description} was not ready in {timeout_seconds:g} s: {problem}")

    @abstractmethod
    def check_alive(self) -> None:
        """Raise ServerUnavailable when the broker has ended, which cuts a wait for it short."""


class ExternalKafka(RealKafka):
    """A broker named in the environment, which the tests never start or stop."""

    def __init__(self, bootstrap_servers: str) -> None:
        super().__init__()
        self.bootstrap_servers = bootstrap_servers
        self.description = f"Kafka at {bootstrap_servers}"

    def start(self) -> None:
        self.wait_for_leaders(timeout_seconds=15)

    def stop(self) -> None:
        """Leaves it running."""

    def kill(self) -> None:
        raise ServerUnavailable("a broker named in the environment is not ours to kill")

    def check_alive(self) -> None:
        """Its process is not visible here."""
