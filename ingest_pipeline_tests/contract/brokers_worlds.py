"""Two brokers, of which one can go away while the other answers. Each leads one partition."""

import ctypes
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from confluent_kafka.admin import AdminClient

from ingest_pipeline.local.mock_cluster import load_library
from ingest_pipeline_tests.contract.kafka_worlds import MemoryWorld, WireWorld
from ingest_pipeline_tests.servers.kafka_cluster import KafkaCluster


class MemoryBrokers(MemoryWorld):
    def set_leader_away(self, topic: str, partition: int, away: bool) -> None:
        self.broker.set_leader_away(topic, partition, away)


class MockBrokers(WireWorld):
    """librdkafka's mock cluster with two brokers, in this process. A broker that is away closes its connections."""

    def __init__(self, library: ctypes.CDLL, cluster: int) -> None:
        super().__init__(library.rd_kafka_mock_cluster_bootstraps(cluster).decode())
        self._library, self._cluster = library, cluster

    def create(self, partitions: int = 2, config: Mapping[str, str] | None = None) -> str:
        name = f"contract-{uuid.uuid4().hex[:8]}"
        assert self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 2) == 0
        for partition in range(partitions):
            self._library.rd_kafka_mock_partition_set_leader(self._cluster, name.encode(), partition, partition + 1)
        return name

    def set_leader_away(self, topic: str, partition: int, away: bool) -> None:
        change = self._library.rd_kafka_mock_broker_set_down if away else self._library.rd_kafka_mock_broker_set_up
        assert change(self._cluster, partition + 1) == 0


@contextmanager
def mock_brokers() -> Iterator[MockBrokers]:
    library, reason = load_library(), ctypes.create_string_buffer(512)
    pointer, number = ctypes.c_void_p, ctypes.c_int
    library.rd_kafka_mock_partition_set_leader.argtypes = [pointer, ctypes.c_char_p, number, number]
    library.rd_kafka_mock_broker_set_down.argtypes = library.rd_kafka_mock_broker_set_up.argtypes = [pointer, number]
    settings = library.rd_kafka_conf_new()
    library.rd_kafka_conf_set(settings, b"log_level", b"0", reason, len(reason))
    client = library.rd_kafka_new(0, settings, reason, len(reason))
    cluster = library.rd_kafka_mock_cluster_new(client, 2)
    world = MockBrokers(library, cluster)
    try:
        yield world
    finally:
        world.close()
        library.rd_kafka_mock_cluster_destroy(cluster)
        library.rd_kafka_destroy(client)


class RealBrokers(WireWorld):
    """Two brokers of Apache Kafka, each partition on one of them alone. One that is away is killed, or frozen."""

    def __init__(self, cluster: KafkaCluster, freezes: bool) -> None:
        super().__init__(cluster.bootstrap_servers)
        self._cluster, self._freezes = cluster, freezes
        self.admin = AdminClient(self.kafka | {"log_level": "0"})

    def create(self, partitions: int = 2, config: Mapping[str, str] | None = None) -> str:
        name = f"contract-{uuid.uuid4().hex[:8]}"
        self._cluster.create_topic(name, replicas=[[partition + 1] for partition in range(partitions)])
        return name

    def set_leader_away(self, topic: str, partition: int, away: bool) -> None:
        broker = self._cluster.brokers[partition + 1]
        if self._freezes:
            (broker.freeze if away else broker.thaw)()
            if not away:
                self._cluster.wait_in_sync()
        elif away:
            broker.kill()
        else:
            self._cluster.restart(partition + 1)
