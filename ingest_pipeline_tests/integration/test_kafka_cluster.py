"""The clusters under other tests: they survive the loss of a broker, and the broker returns with its records."""

from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from ingest_pipeline.local.server import HOST
from ingest_pipeline_tests.integration.test_servers import end_offset, produce
from ingest_pipeline_tests.orchestration.bench import wait_for
from ingest_pipeline_tests.servers.kafka_cluster import KafkaCluster
from ingest_pipeline_tests.servers.proxy import TcpProxy

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def write(cluster: KafkaCluster, before: int) -> None:
    """Write ten records to the topic, and check that its leader holds them after the earlier ones."""
    produce(cluster.bootstrap_servers, "shared", 10)
    wait_for("the records", lambda: end(cluster) == before + 10)


def end(cluster: KafkaCluster) -> int | None:
    """The number of records, or None from a new leader that does not know it yet."""
    try:
        return end_offset(cluster.bootstrap_servers, "shared")
    except KafkaException as error:
        assert error.args[0].code() == KafkaError.OFFSET_NOT_AVAILABLE
        return None


def test_three_brokers_live_on_without_their_leader(kafka_cluster: Callable[[int], KafkaCluster]) -> None:
    with kafka_cluster(3) as cluster:
        cluster.create_topic("shared", replicas=[list(cluster.brokers)])
        assert cluster.leaders("shared") == {0: 1}
        write(cluster, before=0)
        cluster.brokers[1].kill()
        wait_for("another leader", lambda: cluster.leaders("shared")[0] in cluster.running)
        write(cluster, before=10)
        cluster.restart(1)
        assert cluster.leaders("shared") != {0: 1}
        cluster.elect_preferred("shared")
        wait_for("the preferred leader", lambda: cluster.leaders("shared") == {0: 1})
        write(cluster, before=20)
        cluster.brokers[1].freeze()
        wait_for("another leader", lambda: cluster.leaders("shared")[0] != 1)
        write(cluster, before=30)
        cluster.brokers[1].thaw()
        cluster.wait_in_sync()
        wait_for("the records of all brokers", lambda: end(cluster) == 40)


def test_the_second_listener_leads_to_the_address_that_it_was_given(
    kafka_cluster: Callable[[int], KafkaCluster],
) -> None:
    cluster = kafka_cluster(1)
    with TcpProxy(cluster.outside_port(1)) as proxy:
        cluster.outside[1] = f"{HOST}:{proxy.port}"
        with cluster:
            cluster.create_topic("proxied", 1)
            client = AdminClient({"bootstrap.servers": cluster.outside[1]})
            client.list_topics(timeout=30)
            # The client may replace its first connection when it has learned the broker's id, and keeps the second.
            wait_for("a connection through the proxy", lambda: proxy.links() != set())
            produce(cluster.outside[1], "proxied", 3)
            assert end_offset(cluster.bootstrap_servers, "proxied") == 3
