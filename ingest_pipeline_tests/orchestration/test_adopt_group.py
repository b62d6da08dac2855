"""ADOPT_GROUP on a real Kafka: what `ingest check` says before the first run, and what that run does."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest
from confluent_kafka import Consumer, TopicPartition

from ingest_pipeline_tests.orchestration.bench import Bench, failure, wait_for
from ingest_pipeline_tests.orchestration.commands import ingest
from ingest_pipeline_tests.orchestration.records import temperatures

pytestmark = pytest.mark.kafka
Make = Callable[..., Bench]


@pytest.fixture
def group() -> str:
    return f"connect-{uuid.uuid4().hex[:8]}"


@contextmanager
def consumer(bench: Bench, group: str) -> Iterator[Consumer]:
    settings = {"bootstrap.servers": bench.bootstrap_servers, "group.id": group, "auto.offset.reset": "earliest"}
    made = Consumer(settings | {"log_level": "0"})
    try:
        yield made
    finally:
        made.close()


def commit(bench: Bench, group: str, offsets: Mapping[int, int]) -> None:
    topic = bench.stream.topic
    with consumer(bench, group) as theirs:
        theirs.commit(offsets=[TopicPartition(topic, p, at) for p, at in offsets.items()], asynchronous=False)


def line(bench: Bench, code: int = 0) -> str:
    """What `ingest check` says of the group."""
    (found,) = [line for line in ingest(bench, "check", code=code).splitlines() if "ADOPT_GROUP of temperature" in line]
    return found


def has_members(bench: Bench, group: str) -> bool | None:
    return bench.clients.admin().has_members(group)


def test_a_misspelt_group_is_refused_before_anything_is_read(make_bench: Make, group: str) -> None:
    bench = make_bench(ADOPT_GROUP=group.removesuffix(group[-1]))
    bench.produce(temperatures(6))
    commit(bench, group, {0: 1, 1: 1})
    assert line(bench, code=1).startswith("DO  ")
    result = bench.by_sensor()
    assert not result.success
    assert "has no committed offset for any partition of topic" in failure(result)
    assert bench.query("select count(*) from temperature") == [0]
    assert bench.positions() == {}
    (stream,) = [
        message for message in ingest(bench, "status", code=2).splitlines() if "no committed offset" in message
    ]
    assert bench.environ["ADOPT_GROUP"] in stream


def test_check_says_what_the_first_run_takes_over(make_bench: Make, group: str) -> None:
    bench = make_bench(partitions=3, ADOPT_GROUP=group)
    bench.produce(temperatures(30))
    commit(bench, group, {0: 2, 1: 0})
    message = line(bench)
    assert message.startswith("OK  ")
    assert f"group {group}: partition 0 at 2, partition 1 at 0" in message
    assert "no offset for partitions 2, which follow START_FROM" in message
    run = bench.drain()
    assert f"takes over offsets of group {group}: partition 0 at 2" in bench.said(run)
    first = "select kafka_partition, min(kafka_offset) from temperature group by 1 order by 1"
    assert bench.query(first) == [(0, 2), (1, 0)]
    assert "the stream has begun" in line(bench)


def test_check_says_that_consumers_of_the_group_still_run(make_bench: Make, group: str) -> None:
    bench = make_bench(ADOPT_GROUP=group)
    bench.produce(temperatures(6))
    with consumer(bench, group) as theirs:
        theirs.subscribe([bench.stream.topic])
        wait_for("the group's first record", lambda: theirs.poll(0.5))
        theirs.commit(asynchronous=False)
        message = line(bench, code=1)
        assert message.startswith("DO  ")
        assert f"Consumers of group {group} still run: stop them" in message
    wait_for("the group to be left", lambda: has_members(bench, group) is False)
    assert line(bench).startswith("OK  ")
