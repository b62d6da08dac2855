"""Where a stream begins, and when it refuses to."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from ingest_pipeline.core.errors import LedgerMissing, TopicChanged, TopicMissing
from ingest_pipeline.core.record import Place, TopicIdentity
from ingest_pipeline.core.start import StartPolicy, begin, check_identity
from ingest_pipeline.testing import MemoryBook, MemoryBroker, MemoryDatabase, MemorySource, MemoryTopic
from ingest_pipeline_tests.samples import READING

POLICY = StartPolicy("earliest", None, "ingest-reading")


@pytest.fixture
def broker() -> MemoryBroker:
    """Two partitions; 3 and 5 records a second apart, the first of partition 1 deleted."""
    found = MemoryBroker({"reading": 2})
    for partition, count in ((0, 3), (1, 5)):
        for number in range(count):
            found.append("reading", partition, b"x", timestamp_ms=1_000_000 + number * 1000)
    found.delete_records("reading", 1, 1)
    return found


@pytest.fixture
def book() -> MemoryBook:
    return MemoryBook(MemoryDatabase(), READING)


def started(broker: MemoryBroker, book: MemoryBook, policy: StartPolicy = POLICY) -> dict[int, int]:
    begin(MemoryTopic(broker, "reading"), book, policy, "reading")
    return {partition: at.next_offset for partition, at in book.positions().items()}


def commit(broker: MemoryBroker, group: str, places: dict[int, int], ledger_id: str) -> None:
    source = MemorySource(broker, "reading", group_id=group, ledger_id=ledger_id)
    source.acknowledge({partition: Place(offset) for partition, offset in places.items()})
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
def test_a_new_stream_begins_where_start_from_says(
    broker: MemoryBroker, book: MemoryBook, start_from: str | datetime, expected: dict[int, int]
) -> None:
    assert started(broker, book, replace(POLICY, start_from=start_from)) == expected


def test_a_begun_stream_is_left_where_it_is(broker: MemoryBroker, book: MemoryBook) -> None:
    started(broker, book)
    assert started(broker, book, replace(POLICY, start_from="latest")) == {0: 0, 1: 1}


def test_a_topic_that_was_awaited_begins_at_its_beginning(broker: MemoryBroker, book: MemoryBook) -> None:
    book.await_topic()
    assert started(broker, book, replace(POLICY, start_from="latest")) == {0: 0, 1: 1}


def test_a_partition_that_is_added_begins_at_its_beginning(broker: MemoryBroker, book: MemoryBook) -> None:
    started(broker, book, replace(POLICY, start_from="latest"))
    broker.add_partitions("reading", 3)
    broker.append("reading", 2, b"x")
    assert started(broker, book, replace(POLICY, start_from="latest")) == {0: 3, 1: 5, 2: 0}
    assert len({at.incarnation for at in book.positions().values()}) == 1


def test_our_own_mark_without_a_ledger_stops(broker: MemoryBroker, book: MemoryBook) -> None:
    commit(broker, "ingest-reading", {0: 2}, "lost-ledger")
    with pytest.raises(LedgerMissing, match=r"lost-ledger.*--delete --group ingest-reading"):
        started(broker, book)
    assert book.positions() == {}


def test_our_own_mark_is_never_read_once_there_is_a_ledger(broker: MemoryBroker, book: MemoryBook) -> None:
    started(broker, book)
    commit(broker, "ingest-reading", {0: 2}, "any-ledger")
    assert started(broker, book) == {0: 0, 1: 1}


def test_a_topic_of_the_same_name_is_not_the_same_topic(broker: MemoryBroker, book: MemoryBook) -> None:
    started(broker, book)
    broker.recreate_topic("reading")
    with pytest.raises(TopicChanged, match="topic id"):
        started(broker, book)


def test_a_missing_topic_is_told(book: MemoryBook) -> None:
    with pytest.raises(TopicMissing):
        started(MemoryBroker(), book)


def test_ids_that_were_not_known_are_filled_in(broker: MemoryBroker, book: MemoryBook) -> None:
    topic = MemoryTopic(broker, "reading")
    book.begin(TopicIdentity(None, None, 2), topic.start_offsets([0, 1]), first=True)
    started(broker, book)
    known = book.positions()[0]
    assert known.topic_id == topic.identity().topic_id


@pytest.mark.parametrize(
    ("identity", "what"),
    [
        (TopicIdentity("other", None, 2), "cluster id"),
        (TopicIdentity(None, "other", 2), "topic id"),
        (TopicIdentity(None, None, 1), "1 partitions"),
    ],
)
def test_each_sign_of_another_topic_is_named(
    broker: MemoryBroker, book: MemoryBook, identity: TopicIdentity, what: str
) -> None:
    started(broker, book)
    with pytest.raises(TopicChanged, match=what):
        check_identity(identity, book.positions(), "reading", "reading")


def test_an_id_that_either_side_lacks_says_nothing(broker: MemoryBroker, book: MemoryBook) -> None:
    started(broker, book)
    check_identity(TopicIdentity(None, None, 2), book.positions(), "reading", "reading")
    check_identity(TopicIdentity("any", "any", 2), {}, "reading", "reading")


def test_a_stream_that_another_run_began_meanwhile_is_taken_as_it_is(broker: MemoryBroker) -> None:
    database = MemoryDatabase()

    class Racing(MemoryBook):
        """Another run begins the stream, at the end, just before we do."""

        def begin(self, identity: TopicIdentity, places: object, first: bool) -> bool:
            MemoryBook(database, READING).begin(identity, {0: Place(3), 1: Place(5)}, first=True)
            return super().begin(identity, places, first)  # type: ignore[arg-type]

    assert started(broker, Racing(database, READING)) == {0: 3, 1: 5}
