"""Three brokers restart in turn and leaders are elected, while records are written and drained."""

import itertools
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from ingest_pipeline_tests.faults.acknowledged import Acknowledged, assert_exactly_once
from ingest_pipeline_tests.faults.test_brokers import ALL, during, until_stored
from ingest_pipeline_tests.orchestration.bench import Bench
from ingest_pipeline_tests.orchestration.conftest import TEMPERATURE
from ingest_pipeline_tests.servers.kafka_cluster import KafkaCluster

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)]


def test_a_rolling_restart_under_load_costs_nothing(
    kafka_cluster: Callable[[int], KafkaCluster], make_bench: Callable[..., Bench]
) -> None:
    cluster = kafka_cluster(3)
    cluster.start()
    topic = f"readings-{uuid.uuid4().hex[:8]}"
    cluster.create_topic(topic, len(ALL))
    location = make_bench(
        [replace(TEMPERATURE, topic=topic)], KAFKA_BOOTSTRAP_SERVERS=cluster.bootstrap_servers, RUN_MAX_SECONDS="15"
    )
    acknowledged = Acknowledged(cluster.bootstrap_servers, topic)
    acknowledged.write(20, ALL)
    restarted = threading.Event()
    leaders: list[dict[int, int]] = []

    def write() -> None:
        while not restarted.wait(0.1):
            acknowledged.write(5, ALL)

    def strike() -> None:
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            try:
                for broker in cluster.brokers:
                    cluster.brokers[broker].stop()
                    leaders.append(cluster.leaders(topic))
                    cluster.restart(broker)
                    cluster.elect_preferred(topic)
                    leaders.append(cluster.leaders(topic))
            finally:
                restarted.set()
            writing.result()

    during(location, strike, 240)
    assert any(before != after for before, after in itertools.pairwise(leaders)), "no leader moved"
    acknowledged.write(5, ALL)
    until_stored(location, len(acknowledged.rows))
    assert_exactly_once(location, acknowledged)
