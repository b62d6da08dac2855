"""ADOPT_GROUP on a real Kafka: what `ingest check` says before the first run, and what that run does."""

from __future__ import annotations

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
def consumer(here: Bench, group: str) -> Iterator[Consumer]:
    settings = {"bootstrap.servers": here.bootstrap_servers, "group.id": group, "auto.offset.reset": "earliest"}
    made = Consumer(settings | {"log_level": "0"})
    try:
        yield made
    finally:
        made.close()


def commit(here: Bench, group: str, offsets: Mapping[int, int]) -> None:
    topic = here.stream.topic
    with consumer(here, group) as theirs:
        theirs.commit(offsets=[TopicPartition(topic, p, at) for p, at in offsets.items()], asynchronous=False)


def line(here: Bench, code: int = 0) -> str:
    """What `ingest check` says of the group."""
    (found,) = [said for said in ingest(here, "check", code=code).splitlines() if "ADOPT_GROUP of temperature" in said]
    return found


def has_members(here: Bench, group: str) -> bool | None:
    return here.clients.admin().has_members(group)


def test_a_misspelt_group_is_refused_before_anything_is_read(bench: Make, group: str) -> None:
    here = bench(ADOPT_GROUP=group.removesuffix(group[-1]))
    here.produce(temperatures(6))
    commit(here, group, {0: 1, 1: 1})
    assert line(here, code=1).startswith("DO  ")
    result = here.by_sensor()
    assert not result.success
    assert "has no committed offset for any partition of topic" in failure(result)
    assert here.query("select count(*) from temperature") == [0]
    assert here.positions() == {}
    (stream,) = [said for said in ingest(here, "status", code=2).splitlines() if "no committed offset" in said]
    assert here.environ["ADOPT_GROUP"] in stream


def test_check_says_what_the_first_run_takes_over(bench: Make, group: str) -> None:
    here = bench(partitions=3, ADOPT_GROUP=group)
    here.produce(temperatures(30))
    commit(here, group, {0: 2, 1: 0})
    said = line(here)
    assert said.startswith("OK  ")
    assert f"group {group}: partition 0 at 2, partition 1 at 0" in said
    assert "no offset for partitions 2, which follow START_FROM" in said
    run = here.drain()
    assert f"takes over offsets of group {group}: partition 0 at 2" in here.said(run)
    first = "select kafka_partition, min(kafka_offset) from temperature group by 1 order by 1"
    assert here.query(first) == [(0, 2), (1, 0)]
    assert "the stream has begun" in line(here)


def test_check_says_that_consumers_of_the_group_still_run(bench: Make, group: str) -> None:
    here = bench(ADOPT_GROUP=group)
    here.produce(temperatures(6))
    with consumer(here, group) as theirs:
        theirs.subscribe([here.stream.topic])
        wait_for("the group's first record", lambda: theirs.poll(0.5))
        theirs.commit(asynchronous=False)
        said = line(here, code=1)
        assert said.startswith("DO  ")
        assert f"Consumers of group {group} still run: stop them" in said
    wait_for("the group to be left", lambda: has_members(here, group) is False)
    assert line(here).startswith("OK  ")
