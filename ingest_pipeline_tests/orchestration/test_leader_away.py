"""Two real brokers, each the only holder of one partition, and one of them is killed: nothing is called a loss."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from ingest_pipeline.core.stream import Stream
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.checks import NO_LOSS, UP_TO_DATE
from ingest_pipeline_tests.orchestration.bench import Bench, failure, metadata, wait_for
from ingest_pipeline_tests.orchestration.commands import ingest
from ingest_pipeline_tests.orchestration.conftest import PRICE, TEMPERATURE
from ingest_pipeline_tests.orchestration.records import Record, prices, temperatures
from ingest_pipeline_tests.orchestration.test_data_loss import ACCOUNTING
from ingest_pipeline_tests.servers.kafka_cluster import KafkaCluster

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(400)]
Make = Callable[..., Bench]
SILENT = "partition 1: its leader does not answer, its state is unknown"
NOTED = "select count(*) from ingest.loss"
ROWS = "select kafka_partition, kafka_incarnation, count(*) from temperature group by 1, 2 order by 1, 2"


@pytest.fixture(scope="module")
def started(kafka_cluster: Callable[[int], KafkaCluster]) -> KafkaCluster:
    cluster = kafka_cluster(2)
    cluster.start()
    return cluster


@pytest.fixture
def two(started: KafkaCluster) -> Iterator[KafkaCluster]:
    yield started
    started.start()


def on(make_bench: Make, cluster: KafkaCluster, stream: Stream = TEMPERATURE, **environ: str) -> Bench:
    """A stream whose partition 0 is on broker 1 alone, and partition 1 on broker 2."""
    topic = f"{stream.name}-{uuid.uuid4().hex[:8]}"
    cluster.create_topic(topic, replicas=[[1], [2]])
    return make_bench(
        streams=[replace(stream, topic=topic)], KAFKA_BOOTSTRAP_SERVERS=cluster.bootstrap_servers, **environ
    )


def again(make_bench: Make, bench: Bench, **environ: str) -> Bench:
    """The same stream with other settings."""
    return make_bench(streams=bench.streams, **{**bench.environ, **environ})


def in_partition(partition: int, count: int, first: int) -> list[Record]:
    return [record._replace(partition=partition) for record in temperatures(count, first=first)]


def status(bench: Bench) -> dict[str, Any]:
    (stream,) = json.loads(ingest(bench, "status", "--json", code=1))
    return dict(stream)


def test_a_broker_is_killed_while_no_run_owns_its_partition(make_bench: Make, two: KafkaCluster) -> None:
    bench = on(make_bench, two)
    bench.produce(temperatures(10))
    bench.drain()
    assert bench.tick().skip_message == "caught up: lag 0"
    two.brokers[2].kill()
    two.admin.list_topics(timeout=30)
    bench.produce(in_partition(0, 3, first=10))
    for _ in range(2):  # at first its leadership stands in the metadata still, later there is no leader
        outcome = bench.tick()
        assert [request.tags[tags.SHARD] for request in outcome.run_requests or []] == ["0/1"]
        wait_for("the broker to be missed", lambda: two.leaders(bench.stream.topic)[1] == -1)
    by_hand = bench.by_hand()
    assert by_hand.success, failure(by_hand)
    assert metadata(by_hand, bench.stream)["not_drained"] == SILENT
    assert bench.tick().skip_message == f"caught up: lag 0; {SILENT}"

    found = status(bench)
    assert (found["level"], SILENT in found["messages"]) == ("degraded", True)
    assert [(partition["end"], partition["lag"]) for partition in found["partitions"]] == [(8, 0), (None, None)]
    message = bench.check_results()
    assert message[NO_LOSS].passed and SILENT in message[NO_LOSS].description
    assert not message[UP_TO_DATE].grave
    printed = ingest(bench, "accept-loss", "temperature", "--yes")
    assert SILENT in printed and "nothing to accept" in printed
    assert SILENT in ingest(bench, "check", code=1)
    with_continue = again(make_bench, bench, ON_DATA_LOSS="continue")
    assert with_continue.by_hand().success
    assert bench.query(NOTED) == [0]
    assert bench.positions() == {0: 8, 1: 5}

    two.restart(2)
    bench.produce(in_partition(1, 4, first=20))
    wait_for("the lag to be seen", lambda: bench.tick().run_requests)
    bench.drain()
    assert bench.query(ROWS) == [(0, 1, 8), (1, 1, 9)]
    assert bench.query(NOTED) == [0]
    assert bench.query(ACCOUNTING) == [True]
    assert bench.tick().skip_message == "caught up: lag 0"


def test_a_stream_begins_while_a_broker_is_dead(make_bench: Make, two: KafkaCluster) -> None:
    bench = on(make_bench, two)
    latest = on(make_bench, two, PRICE, START_FROM="latest")
    bench.produce(temperatures(10))
    latest.produce(prices(10))
    two.brokers[2].kill()
    assert len(bench.tick().run_requests or []) == 1
    assert bench.by_hand().success
    assert bench.positions() == {0: 5}
    refused = latest.by_hand()
    assert not refused.success
    assert SILENT in failure(refused) and "START_FROM" in failure(refused)
    assert latest.positions() == {}

    two.restart(2)
    wait_for("the partition to be begun", lambda: bench.tick().run_requests)
    bench.drain()
    assert bench.positions() == {0: 5, 1: 5}
    assert bench.query(ROWS) == [(0, 1, 5), (1, 1, 5)]
    assert bench.query(NOTED) == [0]
    assert latest.by_hand().success
    first = "select first_offset from ingest.position where stream = %s order by kafka_partition"
    assert bench.query(first, "temperature") == [0, 0]
    assert bench.query(first, "price") == [5, 5]
