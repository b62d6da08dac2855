"""A record source while brokers are killed, frozen, restarted, and lose what they had acknowledged."""

import threading
import time
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from ingest_pipeline.core.errors import DataLoss, KafkaUnavailable, NotPermitted
from ingest_pipeline.core.record import NextOffset
from ingest_pipeline.kafka import acls
from ingest_pipeline.kafka.admin import Admin
from ingest_pipeline.kafka.topic import KafkaTopic
from ingest_pipeline_tests.contract.kafka_worlds import MemoryWorld, RealWorld, World
from ingest_pipeline_tests.contract.reading import Reading, offsets, read_error, read_to, read_until, values
from ingest_pipeline_tests.orchestration.bench import wait_for
from ingest_pipeline_tests.servers.broker import RealKafka
from ingest_pipeline_tests.servers.kafka_jars import KafkaServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def killable(own_kafka: object) -> Iterator[RealWorld]:
    assert isinstance(own_kafka, KafkaServer) or hasattr(own_kafka, "kill")
    world = RealWorld(own_kafka)  # type: ignore[arg-type]
    yield world
    own_kafka.start()  # type: ignore[attr-defined]
    world.close()


@pytest.fixture
def guarded(own_kafka: RealKafka) -> Iterator[RealWorld]:
    world = RealWorld(own_kafka)
    yield world
    world.close()


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def leading(request: pytest.FixtureRequest) -> Iterator[World]:
    """A broker whose leaders can change and whose logs can be cut."""
    if request.param == "kafka":
        yield request.getfixturevalue("killable")
        return
    yield MemoryWorld()


class TestLeaderEpochs:
    def test_the_place_of_an_end_outlives_changes_of_leader(self, leading: World) -> None:
        topic = leading.create(1)
        leading.transaction(topic, 0, [b"a", b"b"])(True)
        first = leading.reading(topic, {0: NextOffset(0)})
        _, ends = read_to(first, {0: 3})
        leading.change_leader(topic, 0)
        second = leading.reading(topic, ends)
        _, ends = read_to(second, {0: 3})
        leading.append(topic, 0, b"c")
        leading.change_leader(topic, 0)
        third = leading.reading(topic, ends)
        records, _ = read_to(third, {0: 4})
        assert values(records) == [b"c"]

    def test_a_log_that_was_cut_and_has_grown_again_is_noticed(self, leading: World) -> None:
        topic = leading.create(1)
        for number in range(10):
            leading.append(topic, 0, b"old%d" % number)
        source = leading.reading(topic, {0: NextOffset(0)})
        records, _ = read_to(source, {0: 10})
        place = NextOffset(10, records[-1].leader_epoch())
        leading.truncate(topic, 0, 4)
        for number in range(20):
            leading.append(topic, 0, b"new%d" % number)
        again = leading.reading(topic, {0: place})
        loss = read_error(again, DataLoss)
        assert isinstance(loss, DataLoss)
        assert loss.where == {"partition": 0, "offset": 10, "low": 0, "high": 24, "cause": "rewritten"}

    def test_a_log_that_was_cut_is_noticed_by_whoever_is_reading_it(self, leading: World) -> None:
        topic = leading.create(1)
        for number in range(10):
            leading.append(topic, 0, b"old%d" % number)
        source = leading.reading(topic, {0: NextOffset(0)})
        read_to(source, {0: 10})
        leading.truncate(topic, 0, 4)
        for number in range(20):
            leading.append(topic, 0, b"new%d" % number)
        loss = read_error(source, DataLoss)
        assert isinstance(loss, DataLoss)
        assert loss.offset == 10

    def test_a_log_that_was_cut_while_its_topic_was_not_read_is_noticed(self, leading: World) -> None:
        """The client knows the new leader by then, and checks no epoch of an assigned offset."""
        topic, other = leading.create(1), leading.create(1)
        for number in range(10):
            leading.append(topic, 0, b"old%d" % number)
        source = leading.source_of({topic: "first", other: "second"})
        for name in (topic, other):
            source.assign(name, {0: NextOffset(0)})
        reading = Reading(source)
        reading.until(lambda: reading.ends.get(topic) == {0: 10})
        place = NextOffset(10, reading.records[topic][-1].leader_epoch())
        source.assign(topic, {})
        leading.truncate(topic, 0, 4)
        for number in range(20):
            leading.append(topic, 0, b"new%d" % number)
        leading.append(other, 0, b"read")
        reading.until(lambda: reading.values(other) == [b"read"])
        source.assign(topic, {0: place})
        reading.until(lambda: topic in reading.errors)
        loss = reading.errors[topic]
        assert isinstance(loss, DataLoss)
        assert (loss.offset, loss.where["cause"]) == (10, "rewritten")


@pytest.mark.kafka
class TestRights:
    """Nobody has a right on a topic that has a rule for somebody else."""

    def deny(self, world: RealWorld, topic: str) -> None:
        literal = ResourcePatternType.LITERAL, "User:somebody", "*", AclOperation.READ, AclPermissionType.ALLOW
        for made in world.admin.create_acls([AclBinding(ResourceType.TOPIC, topic, *literal)]).values():
            made.result(30)

    def grant(self, world: RealWorld, topic: str) -> None:
        every = ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
        for deleted in world.admin.delete_acls([AclBindingFilter(ResourceType.TOPIC, topic, *every)]).values():
            deleted.result(30)

    def test_one_that_is_taken_away_and_given_back_costs_no_record(self, guarded: RealWorld) -> None:
        topic = guarded.create(2)
        guarded.append_all(topic, 0, [b"a", b"b"])
        source = guarded.reading(topic, {0: NextOffset(0), 1: NextOffset(0)}, retry_seconds=60.0)
        before, _ = read_until(source, lambda seen, _: len(seen) >= 2)
        self.deny(guarded, topic)
        denied = time.monotonic()
        while time.monotonic() - denied < 3.0:
            assert not source.read(10, 0.2).messages
        self.grant(guarded, topic)
        for partition in (0, 1):
            guarded.append(topic, partition, b"c")
        after, _ = read_until(source, lambda seen, _: len(seen) >= 2)
        assert sorted(values(before) + values(after)) == [b"a", b"b", b"c", b"c"]

    def test_ingest_check_names_the_missing_right(self, guarded: RealWorld) -> None:
        topic, group = guarded.create(1), "ingest-of-somebody"
        admin = Admin(guarded.kafka)
        assert acls.missing_rights(admin, topic, group) == acls.MissingRights()
        anyone = "User:ANONYMOUS", "*", AclOperation.DESCRIBE, AclPermissionType.ALLOW
        bindings = [
            AclBinding(kind, name, ResourcePatternType.LITERAL, *anyone)
            for kind, name in ((ResourceType.TOPIC, topic), (ResourceType.GROUP, group))
        ]
        for made in guarded.admin.create_acls(bindings).values():
            made.result(30)
        expected = [f"Read on topic {topic}", f"Read on group {group}, so lag tools do not see the position"]
        missing = acls.MissingRights(missing=expected)
        wait_for("both rights to be missing", lambda: acls.missing_rights(admin, topic, group) == missing)
        admin.close()

    def test_a_lasting_lack_of_rights_fails_after_retry_seconds(self, guarded: RealWorld) -> None:
        topic = guarded.create(1)
        source = guarded.reading(topic, {0: NextOffset(0)}, retry_seconds=1.0)
        read_to(source, {0: 0})
        self.deny(guarded, topic)
        assert "Grant Read" in str(read_error(source, NotPermitted))


class TestOutages:
    def test_a_killed_broker_costs_no_record_and_brings_none_twice(self, killable: RealWorld) -> None:
        topic = killable.create(2)
        for partition in (0, 1):
            killable.append_all(topic, partition, [b"%d" % number for number in range(3000)])
        source = killable.reading(topic, {0: NextOffset(0), 1: NextOffset(0)})
        records, _ = read_until(source, lambda seen, _: len(seen) >= 500, max_records=50)
        restart = threading.Thread(target=lambda: (killable.server.kill(), killable.server.start()))
        restart.start()
        more, _ = read_until(source, lambda seen, _: len(seen) + len(records) >= 6000, max_records=50)
        restart.join()
        for partition in (0, 1):
            killable.append_all(topic, partition, [b"late"])
        rest, _ = read_until(source, lambda seen, _: len(seen) >= 2)
        for partition in (0, 1):
            assert offsets([*records, *more, *rest], partition) == list(range(3001))

    def test_an_idle_topic_outlives_an_outage_longer_than_patience(self, killable: RealWorld) -> None:
        """Nothing arrives on an idle topic when its broker is back: silence alone must not look like absence."""
        topic = killable.create(1)
        source = killable.reading(topic, {0: NextOffset(0)}, retry_seconds=1.0)
        read_to(source, {0: 0})
        killable.server.kill()
        source.read(10, 0.2)
        killable.server.start()
        until = time.monotonic() + 4.0
        while time.monotonic() < until:
            assert not source.read(10, 0.2).messages
        killable.append(topic, 0, b"back")
        records, _ = read_to(source, {0: 1})
        assert values(records) == [b"back"]

    def test_a_broker_that_stays_away_is_reported(self, killable: RealWorld) -> None:
        topic = killable.create(1)
        source = killable.reading(topic, {0: NextOffset(0)}, retry_seconds=1.0)
        read_to(source, {0: 0})
        killable.server.kill()
        read_error(source, KafkaUnavailable)

    def test_acknowledging_and_closing_do_not_wait_for_a_dead_broker(self, killable: RealWorld) -> None:
        topic = killable.create(1)
        source = killable.reading(topic, {0: NextOffset(0)})
        read_to(source, {0: 0})
        killable.server.kill()
        started = time.monotonic()
        source.acknowledge({0: NextOffset(1)})
        source.close()
        assert time.monotonic() - started < 30.0, "librdkafka waits 60 s for an answer"

    def test_asking_for_a_groups_offsets_survives_a_restart(self, killable: RealWorld) -> None:
        """The AdminClient's way of asking ends the whole process here (confluentinc/librdkafka#5397)."""
        topic = killable.create(1)
        facts = KafkaTopic(Admin(killable.kafka), topic, timeout_seconds=2.0)
        killable.foreign_commit(f"group-{topic}", topic, {0: 3}, "")
        source = killable.reading(topic, {0: NextOffset(0)}, group_id=f"group-{topic}")
        assert facts.group_offsets(f"group-{topic}")[0].next_offset == 3
        killable.server.kill()
        with pytest.raises(KafkaUnavailable):
            facts.group_offsets(f"group-{topic}")
        source.acknowledge({0: NextOffset(4)})
        source.read(10, 0.5)
        killable.server.start()
        time.sleep(3.0)
        assert facts.group_offsets(f"group-{topic}")[0].next_offset in (3, 4)

    def test_a_frozen_broker_is_waited_out(self, killable: RealWorld) -> None:
        server = killable.server
        if not isinstance(server, KafkaServer):
            pytest.skip(f"{server.description} cannot be frozen from here")
        topic = killable.create(1)
        source = killable.reading(topic, {0: NextOffset(0)})
        read_to(source, {0: 0})
        server.freeze()
        try:
            for _ in range(10):
                assert not source.read(10, 0.2).messages
        finally:
            server.thaw()
        killable.append(topic, 0, b"thawed")
        records, _ = read_until(source, lambda seen, _: bool(seen))
        assert values(records) == [b"thawed"]
