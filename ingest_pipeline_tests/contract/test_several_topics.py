"""What every record source promises about several topics, on the in-memory broker, librdkafka's mock and Kafka."""

from collections.abc import Collection

import pytest

from ingest_pipeline.core.errors import DataLoss, TopicMissing
from ingest_pipeline.core.ports import Source
from ingest_pipeline.core.record import GroupOffset, NextOffset
from ingest_pipeline_tests.contract.kafka_worlds import World
from ingest_pipeline_tests.contract.reading import Reading
from ingest_pipeline_tests.contract.test_source import numbered, starts


@pytest.fixture
def topics(world: World) -> list[str]:
    return [world.create(1), world.create(1)]


@pytest.fixture
def source(world: World, topics: Collection[str]) -> Source:
    return world.source_of({topic: f"group-{topic}" for topic in topics}, ledger_id="ledger-1")


def test_records_of_each_topic_arrive_in_log_order(world: World, topics: list[str], source: Source) -> None:
    for topic in topics:
        world.append_all(topic, 0, numbered(300, topic))
        source.assign(topic, starts(0))
    reading = Reading(source, max_records=7)
    reading.until(lambda: all(reading.ends.get(topic) == {0: 300} for topic in topics))
    for topic in topics:
        assert reading.values(topic) == numbered(300, topic)
        assert reading.offsets(topic) == list(range(300))


def test_unassigning_a_topic_leaves_the_others(world: World, topics: list[str], source: Source) -> None:
    first, second = topics
    for topic in topics:
        source.assign(topic, starts(0))
    reading = Reading(source)
    reading.until(lambda: reading.ends.keys() == {first, second})
    source.assign(first, {})
    for topic in topics:
        world.append(topic, 0, b"later")
    reading.until(lambda: reading.values(second) == [b"later"])
    for _ in range(5):
        reading.once()
    assert reading.values(first) == []


def test_an_assigned_topic_is_read_from_its_offsets_again(world: World, topics: list[str], source: Source) -> None:
    first, second = topics
    for topic in topics:
        world.append_all(topic, 0, numbered(100))
        source.assign(topic, starts(0))
    reading = Reading(source, max_records=5)
    reading.until(lambda: len(reading.values(first)) >= 5)
    source.assign(first, {})
    source.assign(first, {0: NextOffset(50)})
    del reading.records[first]
    reading.until(lambda: all(reading.ends.get(topic) == {0: 100} for topic in topics))
    assert reading.offsets(first) == list(range(50, 100))
    assert reading.offsets(second) == list(range(100))


def test_a_loss_of_one_topic_stops_only_that_topic(world: World, topics: list[str], source: Source) -> None:
    first, second = topics
    world.append_all(first, 0, numbered(3))
    source.assign(first, {0: NextOffset(9)})
    source.assign(second, starts(0))
    reading = Reading(source)
    reading.until(lambda: first in reading.errors)
    loss = reading.errors.pop(first)
    assert isinstance(loss, DataLoss)
    assert loss.where == {"partition": 0, "offset": 9, "low": 0, "high": 3, "cause": "truncated"}
    world.append(first, 0, b"unread")
    world.append(second, 0, b"read")
    reading.until(lambda: reading.values(second) == [b"read"])
    for _ in range(5):
        reading.once()
    assert (reading.values(first), reading.errors) == ([], {})
    source.assign(first, {0: NextOffset(3)})
    reading.until(lambda: reading.values(first) == [b"unread"])


def test_records_before_an_error_come_first(world: World) -> None:
    topic, other = world.create(2), world.create(2)
    world.append_all(topic, 0, numbered(3))
    source = world.source_of({topic: "first", other: "second"})
    source.assign(other, starts(0))
    source.assign(topic, starts(0))
    reading = Reading(source)
    reading.until(lambda: len(reading.values(topic)) == 3)
    source.assign(topic, {0: NextOffset(0), 1: NextOffset(9)})
    reading.until(lambda: topic in reading.errors)
    offsets = reading.offsets(topic)[3:]
    assert offsets == list(range(len(offsets)))
    for _ in range(5):
        reading.once()
    assert reading.offsets(topic)[3:] == offsets


def test_offsets_are_committed_to_the_group_of_each_topic(world: World, topics: list[str], source: Source) -> None:
    for topic in topics:
        source.assign(topic, starts(0))
    for offset, topic in enumerate(topics, start=3):
        source.acknowledge(topic, {0: NextOffset(1, 0)})
        source.acknowledge(topic, {0: NextOffset(offset, 0)})
    source.close()
    for offset, topic in enumerate(topics, start=3):
        commits = world.facts(topic).group_offsets(f"group-{topic}")
        assert commits == {0: GroupOffset(offset, "ingest-ledger:ledger-1")}


class TestQuestions:
    def test_offsets_of_several_topics(self, world: World, topics: list[str]) -> None:
        first, second = topics
        world.append_all(first, 0, numbered(3))
        partitions = {first: [0, 17], second: [0], "contract-missing": [0]}
        for question, expected in (("start_offsets", 0), ("end_offsets", 3), ("high_watermarks", 3)):
            offsets = getattr(world.topics(), question)(partitions)
            assert {topic: {p: offset.next_offset for p, offset in of.items()} for topic, of in offsets.items()} == {
                first: {0: expected},
                second: {0: 0},
                "contract-missing": {},
            }

    def test_identities_are_those_of_each_topic(self, world: World, topics: list[str]) -> None:
        identities = world.topics().identities([*topics, "contract-missing"])
        assert {topic: identities[topic] for topic in topics} == {
            topic: world.facts(topic).identity() for topic in topics
        }
        missing = identities["contract-missing"]
        assert isinstance(missing, TopicMissing)
        assert "contract-missing" in missing.message

    def test_no_topics_are_no_question(self, world: World) -> None:
        assert (world.topics().identities([]), world.topics().end_offsets({})) == ({}, {})
