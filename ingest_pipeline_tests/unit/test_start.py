"""Where a stream begins, and when it cannot begin."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from ingest_pipeline.core.errors import KafkaUnavailable, LedgerMissing, TopicChanged, TopicMissing
from ingest_pipeline.core.record import NextOffset, TopicIdentity
from ingest_pipeline.core.start import StartPolicy, begin, check_identity, survey
from ingest_pipeline.testing import MemoryBroker, MemoryDatabase, MemoryLedger, MemorySource, MemoryTopic
from ingest_pipeline_tests.samples import READING

POLICY = StartPolicy("earliest", None, "ingest-reading")


@pytest.fixture
def broker() -> MemoryBroker:
    """Partitions with 3 and 5 records, a second apart. The first record of partition 1 is deleted."""
    broker = MemoryBroker({"reading": 2})
    for partition, count in ((0, 3), (1, 5)):
        for number in range(count):
            broker.append("reading", partition, b"x", timestamp_ms=1_000_000 + number * 1000)
    broker.delete_records("reading", 1, 1)
    return broker


@pytest.fixture
def ledger() -> MemoryLedger:
    return MemoryLedger(MemoryDatabase(), READING)


def started(broker: MemoryBroker, ledger: MemoryLedger, policy: StartPolicy = POLICY) -> dict[int, int]:
    begin(MemoryTopic(broker, "reading"), ledger, policy=policy, stream="reading")
    return {partition: position.next_offset for partition, position in ledger.positions().items()}


def commit(broker: MemoryBroker, group: str, offsets: dict[int, int], ledger_id: str) -> None:
    source = MemorySource(broker, groups={"reading": group}, ledger_id=ledger_id)
    source.acknowledge("reading", {partition: NextOffset(offset) for partition, offset in offsets.items()})
    source.close()


@pytest.mark.parametrize(
    ("start_from", "expected"),
    [
        ("earliest", {0: 0, 1: 1}),
        ("latest", {0: 3, 1: 5}),
        (datetime.fromtimestamp(1002, UTC), {0: 2, 1: 2}),
        (datetime.fromtimestamp(9999, UTC), {0: 3, 1: 5}),
    ],
)
def test_a_new_stream_begins_at_start_from(
    broker: MemoryBroker, ledger: MemoryLedger, start_from: str | datetime, expected: dict[int, int]
) -> None:
    assert started(broker, ledger, replace(POLICY, start_from=start_from)) == expected


def test_a_begun_stream_keeps_its_positions(broker: MemoryBroker, ledger: MemoryLedger) -> None:
    started(broker, ledger)
    commit(broker, "ingest-reading", {0: 2}, "any-ledger")
    assert started(broker, ledger, replace(POLICY, start_from="latest")) == {0: 0, 1: 1}


def test_a_stream_that_awaited_its_topic_begins_at_the_first_offset(broker: MemoryBroker, ledger: MemoryLedger) -> None:
    ledger.await_topic()
    assert started(broker, ledger, replace(POLICY, start_from="latest")) == {0: 0, 1: 1}


def test_an_added_partition_begins_at_its_first_offset(broker: MemoryBroker, ledger: MemoryLedger) -> None:
    started(broker, ledger, replace(POLICY, start_from="latest"))
    broker.add_partitions("reading", 3)
    broker.append("reading", 2, b"x")
    assert started(broker, ledger, replace(POLICY, start_from="latest")) == {0: 3, 1: 5, 2: 0}
    assert len({position.incarnation for position in ledger.positions().values()}) == 1


@pytest.mark.parametrize("awaited", [False, True])
def test_a_partition_begins_at_its_first_offset_after_its_leader_returns(
    broker: MemoryBroker, ledger: MemoryLedger, awaited: bool
) -> None:
    policy = replace(POLICY, start_from="latest") if awaited else POLICY
    if awaited:
        ledger.await_topic()
    broker.set_leader_away("reading", 1, True)
    assert started(broker, ledger, policy) == {0: 0}
    assert started(broker, ledger, policy) == {0: 0}
    broker.set_leader_away("reading", 1, False)
    assert started(broker, ledger, policy) == {0: 0, 1: 1}


@pytest.mark.parametrize(
    ("start_from", "expected"), [("latest", {0: 4, 1: 6}), (datetime.fromtimestamp(1002, UTC), {0: 2, 1: 2})]
)
def test_a_stream_with_a_start_time_waits_until_every_partition_answers(
    broker: MemoryBroker, ledger: MemoryLedger, start_from: str | datetime, expected: dict[int, int]
) -> None:
    policy = replace(POLICY, start_from=start_from)
    broker.set_leader_away("reading", 1, True)
    with pytest.raises(KafkaUnavailable, match=r"partition 1: its leader does not answer.*START_FROM"):
        started(broker, ledger, policy)
    assert ledger.positions() == {}
    broker.set_leader_away("reading", 1, False)
    for partition in (0, 1):
        broker.append("reading", partition, b"x", timestamp_ms=2_000_000)
    assert started(broker, ledger, policy) == expected


def test_a_stream_does_not_begin_while_no_partition_answers(broker: MemoryBroker, ledger: MemoryLedger) -> None:
    for partition in (0, 1):
        broker.set_leader_away("reading", partition, True)
    with pytest.raises(KafkaUnavailable, match="partitions 0, 1: their leaders do not answer"):
        started(broker, ledger)
    assert ledger.positions() == {}


def test_an_adopted_partition_needs_no_leader(broker: MemoryBroker, ledger: MemoryLedger) -> None:
    source = MemorySource(broker, groups={"reading": "theirs"}, ledger_id="")
    source.acknowledge("reading", {1: NextOffset(4)})
    broker.set_leader_away("reading", 1, True)
    assert started(broker, ledger, replace(POLICY, start_from="latest", adopt_group="theirs")) == {0: 3, 1: 4}


class TestSurvey:
    def test_a_partition_without_its_leader_is_unknown_but_not_lost(
        self, broker: MemoryBroker, ledger: MemoryLedger
    ) -> None:
        started(broker, ledger)
        broker.delete_records("reading", 0, 2)
        broker.delete_records("reading", 1, 4)
        broker.set_leader_away("reading", 1, True)
        surveyed = survey(MemoryTopic(broker, "reading"), ledger)
        assert [(loss.partition, loss.cause) for loss in surveyed.losses] == [(0, "retention")]
        assert (surveyed.ends.keys(), surveyed.unanswered) == ({0}, [1])
        broker.set_leader_away("reading", 1, False)
        surveyed = survey(MemoryTopic(broker, "reading"), ledger)
        assert [(loss.partition, loss.cause) for loss in surveyed.losses] == [(0, "retention"), (1, "retention")]

    def test_a_position_in_an_open_transaction_is_not_truncated(
        self, broker: MemoryBroker, ledger: MemoryLedger
    ) -> None:
        """A read_uncommitted reader advanced the position before the setting changed."""
        broker.begin_transaction("reading", 0)
        broker.append("reading", 0, b"x")
        topic = MemoryTopic(broker, "reading")
        ledger.begin(topic.identity(), {0: NextOffset(4), 1: NextOffset(5)}, first=True)
        assert topic.end_offsets([0])[0].next_offset == 3
        assert survey(topic, ledger).losses == []
        broker.truncate("reading", 0, 3)
        assert [loss.cause for loss in survey(topic, ledger).losses] == ["truncated"]


def test_a_group_with_our_mark_but_no_ledger_stops_the_stream(broker: MemoryBroker, ledger: MemoryLedger) -> None:
    commit(broker, "ingest-reading", {0: 2}, "lost-ledger")
    with pytest.raises(LedgerMissing, match=r"lost-ledger.*--delete --group ingest-reading"):
        started(broker, ledger)
    assert ledger.positions() == {}


def test_a_recreated_topic_is_another_topic(broker: MemoryBroker, ledger: MemoryLedger) -> None:
    started(broker, ledger)
    broker.recreate_topic("reading")
    with pytest.raises(TopicChanged, match="topic id"):
        started(broker, ledger)


def test_a_missing_topic_raises_topic_missing(ledger: MemoryLedger) -> None:
    with pytest.raises(TopicMissing):
        started(MemoryBroker(), ledger)


def test_missing_ids_are_filled_in(broker: MemoryBroker, ledger: MemoryLedger) -> None:
    topic = MemoryTopic(broker, "reading")
    ledger.begin(TopicIdentity(None, None, 2), topic.start_offsets([0, 1]), first=True)
    started(broker, ledger)
    position = ledger.positions()[0]
    assert position.topic_id == topic.identity().topic_id


@pytest.mark.parametrize(
    ("identity", "sign"),
    [
        (TopicIdentity("other", None, 2), "cluster id"),
        (TopicIdentity(None, "other", 2), "topic id"),
        (TopicIdentity(None, None, 1), "1 partitions"),
        (TopicIdentity(None, "other", 1), "topic id"),
    ],
)
def test_the_error_names_the_sign_of_another_topic(
    broker: MemoryBroker, ledger: MemoryLedger, identity: TopicIdentity, sign: str
) -> None:
    started(broker, ledger)
    with pytest.raises(TopicChanged, match=sign):
        check_identity(identity, ledger.positions(), "reading", "reading")


def test_begin_keeps_the_positions_of_a_faster_run(broker: MemoryBroker) -> None:
    database = MemoryDatabase()

    class Racing(MemoryLedger):
        """Another run begins the stream at the end, just before this run."""

        def begin(self, identity: TopicIdentity, starts: object, first: bool) -> bool:
            MemoryLedger(database, READING).begin(identity, {0: NextOffset(3), 1: NextOffset(5)}, first=True)
            return super().begin(identity, starts, first)  # type: ignore[arg-type]

    assert started(broker, Racing(database, READING)) == {0: 3, 1: 5}
