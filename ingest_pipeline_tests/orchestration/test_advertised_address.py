"""The settings lead to a broker, and the broker tells clients an address that does not resolve here."""

from collections.abc import Callable
from dataclasses import replace

import dagster as dg
import pytest

from ingest_pipeline.local.server import HOST
from ingest_pipeline_tests.orchestration.bench import Bench, failure, wait_for
from ingest_pipeline_tests.orchestration.commands import ingest
from ingest_pipeline_tests.orchestration.conftest import TEMPERATURE
from ingest_pipeline_tests.servers.kafka_cluster import KafkaCluster

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(400)]


def test_sensor_run_status_and_check_name_the_address(
    kafka_cluster: Callable[[int], KafkaCluster], make_bench: Callable[..., Bench]
) -> None:
    cluster = kafka_cluster(1)
    cluster.outside[1] = "kafka.invalid:9092"
    with cluster:
        cluster.create_topic("reading", 2)
        servers = f"{HOST}:{cluster.outside_port(1)}"
        bench = make_bench([replace(TEMPERATURE, topic="reading")], KAFKA_BOOTSTRAP_SERVERS=servers)
        with pytest.raises(dg.Failure) as tick:
            bench.tick()
        run = bench.by_sensor()
        assert not run.success
        message = (
            f"Kafka at {servers}, topic reading: broker 1 tells clients to connect to kafka.invalid:9092, which does"
            " not resolve on this machine. Correct advertised.listeners there (_RESOLVE)"
        )
        assert tick.value.description == failure(run) == message
        # On a busy machine `ingest status` may give up before Kafka's client has tried that address.
        wait_for("its name in the status", lambda: "kafka.invalid:9092" in ingest(bench, "status", code=3))
        checked = ingest(bench, "check", code=1)
        assert "kafka.invalid:9092 does not resolve" in checked and "advertised.listeners" in checked
