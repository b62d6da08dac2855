"""What every answerer about a topic promises, on the in-memory broker, librdkafka's mock and Apache Kafka."""

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

from ingest_pipeline.core.errors import KafkaUnavailable, TopicMissing
from ingest_pipeline.core.record import GroupOffset, NextOffset
from ingest_pipeline.kafka.admin import Admin
from ingest_pipeline.kafka.source import KafkaSource
from ingest_pipeline.kafka.topic import KafkaTopic
from ingest_pipeline.kafka.topics import KafkaTopics
from ingest_pipeline.local.server import HOST, free_port
from ingest_pipeline_tests.contract.kafka_worlds import MockWorld, World
from ingest_pipeline_tests.waiting import wait_for

Answer = TypeVar("Answer")
LIBRDKAFKA_SECONDS = 60.0
"""librdkafka's own time-out of a question. A busy machine takes less than half of it for a time-out of one second."""


def next_offsets(places: dict[int, NextOffset]) -> dict[int, int]:
    return {partition: place.next_offset for partition, place in places.items()}


def once_answered(ask: Callable[[], Answer]) -> Answer:
    """A coordinator that has just been chosen may ask to be asked again for a moment."""
    deadline = time.monotonic() + 120
    while True:
        try:
            return ask()
        except KafkaUnavailable:
            assert time.monotonic() < deadline, "no answer in 120 s"
            time.sleep(0.1)


class TestIdentity:
    def test_it_stays_the_same(self, world: World) -> None:
        facts = world.facts(world.create(4))
        identity = facts.identity()
        assert identity == facts.identity()
        assert identity.cluster_id
        assert identity.partitions == 4

    def test_a_topic_made_again_has_another_id(self, world: World) -> None:
        world.need("recreate")
        topic = world.create(2)
        facts = world.facts(topic)
        before = facts.identity()
        world.recreate(topic, 2)
        after = facts.identity()
        assert before.topic_id and after.topic_id
        assert before.topic_id != after.topic_id
        assert before.cluster_id == after.cluster_id

    def test_added_partitions_are_counted(self, world: World) -> None:
        world.need("add_partitions")
        topic = world.create(2)
        facts = world.facts(topic)
        assert facts.identity().partitions == 2
        world.add_partitions(topic, 5)
        wait_for("the added partitions", lambda: facts.identity().partitions == 5)

    def test_a_missing_topic_is_reported_and_not_created(self, world: World) -> None:
        facts = world.facts("contract-nobody-made-this")
        for _ in range(2):
            with pytest.raises(TopicMissing) as missing:
                facts.identity()
            assert "contract-nobody-made-this" in missing.value.message
            with pytest.raises(TopicMissing):
                facts.end_offsets([0])

    def test_a_broker_without_topic_ids_is_asked_for_them_once(self, world: World) -> None:
        if not isinstance(world, MockWorld):
            pytest.skip("this broker knows topic ids")
        topic = world.create()
        assert world.facts(topic).identity().topic_id is None
        patient = KafkaTopic(Admin(world.kafka), topic, timeout_seconds=LIBRDKAFKA_SECONDS)
        started = time.monotonic()
        assert patient.identity().topic_id is None
        assert time.monotonic() - started < LIBRDKAFKA_SECONDS / 2, "the second question waits for no answer"


class TestOffsets:
    def test_bounds(self, world: World) -> None:
        topic = world.create(2)
        facts = world.facts(topic)
        assert next_offsets(facts.end_offsets([0, 1])) == {0: 0, 1: 0}
        for value in (b"a", b"b", b"c"):
            world.append(topic, 1, value)
        assert next_offsets(facts.end_offsets([0, 1])) == {0: 0, 1: 3}
        assert next_offsets(facts.start_offsets([0, 1])) == {0: 0, 1: 0}
        assert next_offsets(facts.high_watermarks([0, 1])) == {0: 0, 1: 3}
        assert next_offsets(facts.end_offsets([1])) == {1: 3}
        assert facts.end_offsets([]) == {}

    def test_the_start_moves_with_deletion(self, world: World) -> None:
        world.need("delete_records")
        topic = world.create(1)
        for value in (b"a", b"b", b"c"):
            world.append(topic, 0, value)
        world.delete_records(topic, 0, 2)
        facts = world.facts(topic)
        assert next_offsets(facts.start_offsets([0])) == {0: 2}
        assert next_offsets(facts.end_offsets([0])) == {0: 3}

    def test_the_end_is_where_a_committed_reader_stops(self, world: World) -> None:
        world.need("transactions")
        topic = world.create(1)
        facts = world.facts(topic)
        world.append(topic, 0, b"before")
        finish = world.transaction(topic, 0, [b"inside"])
        world.append(topic, 0, b"behind")
        assert next_offsets(facts.end_offsets([0])) == {0: 1}
        assert next_offsets(facts.high_watermarks([0])) == {0: 3}
        finish(True)
        wait_for("the end", lambda: next_offsets(facts.end_offsets([0])) == {0: 4})
        assert next_offsets(facts.high_watermarks([0])) == {0: 4}

    def test_a_time_gives_the_first_record_not_older_or_the_end(self, world: World) -> None:
        world.need("timestamps")
        topic = world.create(2)
        base = int(time.time() * 1000) - 60_000
        for number in range(3):
            world.append(topic, 0, b"x", timestamp_ms=base + number * 1000)
        facts = world.facts(topic)
        assert next_offsets(facts.offsets_at([0, 1], base + 1000)) == {0: 1, 1: 0}
        assert next_offsets(facts.offsets_at([0, 1], base + 1001)) == {0: 2, 1: 0}
        assert next_offsets(facts.offsets_at([0, 1], base + 9000)) == {0: 3, 1: 0}
        assert next_offsets(facts.offsets_at([0, 1], 0)) == {0: 0, 1: 0}

    def test_a_partition_that_does_not_exist(self, world: World) -> None:
        facts = world.facts(world.create(1))
        with pytest.raises(TopicMissing):
            facts.end_offsets([17])


class TestGroup:
    def test_an_unused_group_has_no_offsets(self, world: World) -> None:
        facts = world.facts(world.create(2))
        assert once_answered(lambda: facts.group_offsets("contract-nobody-used-this")) == {}

    def test_a_foreign_commit_is_read_with_its_metadata(self, world: World) -> None:
        topic = world.create(3)
        world.foreign_commit(f"foreign-{topic}", topic, {0: 4, 2: 0}, "flink")
        facts = world.facts(topic)
        assert once_answered(lambda: facts.group_offsets(f"foreign-{topic}")) == {
            0: GroupOffset(4, "flink"),
            2: GroupOffset(0, "flink"),
        }

    def test_commits_of_other_topics_are_not_mixed_in(self, world: World) -> None:
        topic, other = world.create(1), world.create(1)
        world.foreign_commit(f"foreign-{topic}", other, {0: 4}, "")
        assert world.facts(topic).group_offsets(f"foreign-{topic}") == {}


class TestNobodyListens:
    """A bootstrap address that refuses connections: every question ends in bounded time, naming it."""

    @pytest.fixture
    def address(self) -> str:
        return f"{HOST}:{free_port()}"

    @pytest.mark.parametrize("question", ["identity", "end_offsets", "start_offsets", "offsets_at", "group_offsets"])
    def test_questions(self, address: str, question: str) -> None:
        facts = KafkaTopic(Admin({"bootstrap.servers": address}), "price", timeout_seconds=1.0)
        asked: dict[str, Callable[[], object]] = {
            "identity": facts.identity,
            "end_offsets": lambda: facts.end_offsets([0]),
            "start_offsets": lambda: facts.start_offsets([0]),
            "offsets_at": lambda: facts.offsets_at([0], 0),
            "group_offsets": lambda: facts.group_offsets("g"),
        }
        started = time.monotonic()
        with pytest.raises(KafkaUnavailable) as away:
            asked[question]()
        assert time.monotonic() - started < LIBRDKAFKA_SECONDS / 2
        assert address in away.value.message
        assert "\n" not in away.value.message

    def test_reading_and_closing(self, address: str) -> None:
        kafka = {"bootstrap.servers": address}
        source = KafkaSource(
            kafka,
            KafkaTopics(Admin(kafka), timeout_seconds=1.0),
            {"price": "g"},
            ledger_id="l",
            batch_bytes=1 << 20,
            retry_seconds=1.0,
        )
        started = time.monotonic()
        source.assign("price", {0: NextOffset(5)})
        with pytest.raises(KafkaUnavailable) as away:
            while time.monotonic() - started < LIBRDKAFKA_SECONDS:
                source.read(10, 0.2)
        assert address in away.value.message
        source.acknowledge("price", {0: NextOffset(5)})
        source.close()
        assert time.monotonic() - started < LIBRDKAFKA_SECONDS / 2
