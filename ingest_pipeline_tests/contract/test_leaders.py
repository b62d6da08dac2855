"""One broker of two is away: what is told of the partitions that it leads, and that the others go on."""

import statistics
import time
from collections.abc import Callable, Iterator

import pytest

from ingest_pipeline.core.record import NextOffset, TopicIdentity
from ingest_pipeline_tests.contract.brokers_worlds import MemoryBrokers, MockBrokers, RealBrokers, mock_brokers
from ingest_pipeline_tests.contract.reading import Reading, offsets, read_until, values
from ingest_pipeline_tests.servers.kafka_cluster import KafkaCluster
from ingest_pipeline_tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
Brokers = MemoryBrokers | MockBrokers | RealBrokers
REAL = [pytest.param(way, marks=pytest.mark.kafka) for way in ("killed", "frozen")]


@pytest.fixture(scope="module")
def two(kafka_cluster: Callable[[int], KafkaCluster]) -> KafkaCluster:
    cluster = kafka_cluster(2)
    cluster.start()
    return cluster


@pytest.fixture(params=["memory", "mock", *REAL])
def world(request: pytest.FixtureRequest) -> Iterator[Brokers]:
    if request.param == "memory":
        yield MemoryBrokers()
    elif request.param == "mock":
        with mock_brokers() as brokers:
            yield brokers
    else:
        made = RealBrokers(request.getfixturevalue("two"), request.param == "frozen")
        yield made
        made.close()


def test_a_partition_whose_leader_is_away_is_left_out_of_every_answer(world: Brokers) -> None:
    led, topic = world.create(1), world.create(2)
    world.append(led, 0, b"a")
    for partition in (0, 1):
        world.append_all(topic, partition, [b"a", b"b"])
    facts, topics = world.facts(topic), world.topics()
    identity = facts.identity()
    world.set_leader_away(topic, 1, True)
    try:
        assert facts.end_offsets([0, 1]).keys() == {0}
        assert facts.start_offsets([0, 1]).keys() == {0}
        assert facts.high_watermarks([0, 1]) == {0: facts.end_offsets([0])[0]}
        assert facts.offsets_at([0, 1], 0).keys() == {0}
        assert facts.end_offsets([1]) == {}, "the cluster answers, the leader does not"
        assert facts.identity() == identity
        ends = topics.end_offsets({led: [0], topic: [1]})
        assert {name: list(partitions) for name, partitions in ends.items()} == {led: [0], topic: []}
        assert all(isinstance(identity, TopicIdentity) for identity in topics.identities([led, topic]).values())
    finally:
        world.set_leader_away(topic, 1, False)
    wait_for("both ends", lambda: facts.end_offsets([0, 1]).keys() == {0, 1})
    assert [place.next_offset for place in facts.end_offsets([0, 1]).values()] == [2, 2]
    assert [place.next_offset for place in facts.start_offsets([0, 1]).values()] == [0, 0]


def test_records_of_the_other_partitions_arrive_meanwhile_and_none_is_lost(world: Brokers) -> None:
    topic = world.create(2)
    for partition in (0, 1):
        for value in (b"a", b"b"):
            world.append(topic, partition, value)
    source = world.reading(topic, {0: NextOffset(0), 1: NextOffset(0)}, retry_seconds=1.0)
    before, _ = read_until(source, lambda seen, _: len(seen) >= 4)
    world.set_leader_away(topic, 1, True)
    try:
        world.append(topic, 0, b"c")
        meanwhile, _ = read_until(source, lambda seen, _: bool(seen))
        assert values(meanwhile) == [b"c"]
        for _ in range(12):
            assert not source.read(10, 0.25).messages, "longer than its patience: one leader answers, that is enough"
    finally:
        world.set_leader_away(topic, 1, False)
    world.append(topic, 1, b"c")
    after, _ = read_until(source, lambda seen, _: bool(seen))
    assert values(after) == [b"c"]
    assert offsets([*before, *meanwhile, *after], 1) == [0, 1, 2]


def test_another_topic_goes_on_without_delay(world: Brokers) -> None:
    led, leaderless = world.create(1), world.create(2)
    world.append(led, 0, b"a")
    world.append(leaderless, 1, b"a")
    source = world.source_of({led: "first", leaderless: "second"}, retry_seconds=1.0)
    source.assign(led, {0: NextOffset(0)})
    source.assign(leaderless, {1: NextOffset(0)})
    reading = Reading(source)
    reading.until(lambda: reading.values(leaderless) == reading.values(led) == [b"a"])
    world.set_leader_away(leaderless, 1, True)
    try:
        delays = []
        for number in range(12):
            world.append(led, 0, b"%d" % number)
            began = time.monotonic()
            reading.until(lambda count=number + 2: len(reading.values(led)) == count)  # type: ignore[misc]
            delays.append(time.monotonic() - began)
            for _ in range(5):
                reading.once()
        assert statistics.median(delays) < 0.5, delays
        assert reading.errors == {}
    finally:
        world.set_leader_away(leaderless, 1, False)
    world.append(leaderless, 1, b"b")
    reading.until(lambda: reading.values(leaderless) == [b"a", b"b"])
    assert reading.values(led) == [b"a", *(b"%d" % number for number in range(12))]
