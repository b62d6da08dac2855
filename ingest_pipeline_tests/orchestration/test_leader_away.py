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
from ingest_pipeline.orchestration.checks import NO_LOSS, UP_TO_DATE, check_results
from ingest_pipeline_tests.orchestration.bench import Bench, failure, metadata, wait_for
from ingest_pipeline_tests.orchestration.commands import ingest
from ingest_pipeline_tests.orchestration.conftest import PRICE, TEMPERATURE
from ingest_pipeline_tests.orchestration.records import Record, prices, temperatures
from ingest_pipeline_tests.orchestration.test_data_loss import ACCOUNTING
from ingest_pipeline_tests.servers.kafka_cluster import KafkaCluster

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(300)]
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


def on(bench: Make, cluster: KafkaCluster, stream: Stream = TEMPERATURE, **environ: str) -> Bench:
    """A stream whose partition 0 is on broker 1 alone, and partition 1 on broker 2."""
    topic = f"{stream.name}-{uuid.uuid4().hex[:8]}"
    cluster.create_topic(topic, replicas=[[1], [2]])
    return bench(streams=[replace(stream, topic=topic)], KAFKA_BOOTSTRAP_SERVERS=cluster.bootstrap_servers, **environ)


def again(bench: Make, here: Bench, **environ: str) -> Bench:
    """The same stream with other settings."""
    return bench(streams=here.streams, **{**here.environ, **environ})


def in_partition(partition: int, count: int, first: int) -> list[Record]:
    return [record._replace(partition=partition) for record in temperatures(count, first=first)]


def status(here: Bench) -> dict[str, Any]:
    (stream,) = json.loads(ingest(here, "status", "--json", code=1))
    return dict(stream)


def test_a_broker_is_killed_while_no_run_owns_its_partition(bench: Make, two: KafkaCluster) -> None:
    here = on(bench, two)
    here.produce(temperatures(10))
    here.drain()
    assert here.tick().skip_message == "caught up: lag 0"
    two.brokers[2].kill()
    two.admin.list_topics(timeout=30)
    here.produce(in_partition(0, 3, first=10))
    for _ in range(2):  # at first its leadership stands in the metadata still, later there is no leader
        outcome = here.tick()
        assert [request.tags[tags.SHARD] for request in outcome.run_requests or []] == ["0/1"]
        wait_for("the broker to be missed", lambda: two.leaders(here.stream.topic)[1] == -1)
    by_hand = here.by_hand()
    assert by_hand.success, failure(by_hand)
    assert metadata(by_hand, here.stream)["not_drained"] == SILENT
    assert here.tick().skip_message == f"caught up: lag 0; {SILENT}"

    found = status(here)
    assert (found["level"], SILENT in found["messages"]) == ("degraded", True)
    assert [(at["end"], at["lag"]) for at in found["partitions"]] == [(8, 0), (None, None)]
    said = {each.name: each for each in check_results(here.context)}
    assert said[NO_LOSS].passed and SILENT in said[NO_LOSS].description
    assert not said[UP_TO_DATE].grave
    printed = ingest(here, "accept-loss", "temperature", "--yes")
    assert SILENT in printed and "nothing to accept" in printed
    assert SILENT in ingest(here, "check", code=1)
    with_continue = again(bench, here, ON_DATA_LOSS="continue")
    assert with_continue.by_hand().success
    assert here.query(NOTED) == [0]
    assert here.positions() == {0: 8, 1: 5}

    two.restart(2)
    here.produce(in_partition(1, 4, first=20))
    wait_for("the lag to be seen", lambda: here.tick().run_requests)
    here.drain()
    assert here.query(ROWS) == [(0, 1, 8), (1, 1, 9)]
    assert here.query(NOTED) == [0]
    assert here.query(ACCOUNTING) == [True]
    assert here.tick().skip_message == "caught up: lag 0"


def test_a_stream_begins_while_a_broker_is_dead(bench: Make, two: KafkaCluster) -> None:
    here = on(bench, two)
    latest = on(bench, two, PRICE, START_FROM="latest")
    here.produce(temperatures(10))
    latest.produce(prices(10))
    two.brokers[2].kill()
    assert len(here.tick().run_requests or []) == 1
    assert here.by_hand().success
    assert here.positions() == {0: 5}
    refused = latest.by_hand()
    assert not refused.success
    assert SILENT in failure(refused) and "START_FROM" in failure(refused)
    assert latest.positions() == {}

    two.restart(2)
    wait_for("the partition to be begun", lambda: here.tick().run_requests)
    here.drain()
    assert here.positions() == {0: 5, 1: 5}
    assert here.query(ROWS) == [(0, 1, 5), (1, 1, 5)]
    assert here.query(NOTED) == [0]
    assert latest.by_hand().success
    first = "select first_offset from ingest.position where stream = %s order by kafka_partition"
    assert here.query(first, "temperature") == [0, 0]
    assert here.query(first, "price") == [5, 5]
