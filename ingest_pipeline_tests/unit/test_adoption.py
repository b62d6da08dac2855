"""ADOPT_GROUP: offsets that a new stream takes over from a foreign group, and offsets that it refuses."""

import pytest

from ingest_pipeline.core.errors import AdoptionRefused, LedgerMissing
from ingest_pipeline.core.record import GroupOffset
from ingest_pipeline.core.start import StartPolicy, begin
from ingest_pipeline.testing import MemoryBroker, MemoryDatabase, MemoryLedger, MemoryTopic
from ingest_pipeline_tests.samples import READING

GROUP = "connect-reading"


@pytest.fixture
def broker() -> MemoryBroker:
    """Three partitions with five records. The first two of partition 2 are deleted."""
    made = MemoryBroker({"reading": 3})
    for partition in range(3):
        for _ in range(5):
            made.append("reading", partition, b"x")
    made.delete_records("reading", 2, 2)
    return made


@pytest.fixture
def ledger() -> MemoryLedger:
    return MemoryLedger(MemoryDatabase(), READING)


def commit(broker: MemoryBroker, offsets: dict[int, int], group: str = GROUP, metadata: str = "") -> None:
    broker.groups[group, "reading"] = {p: GroupOffset(offset, metadata) for p, offset in offsets.items()}


def started(
    broker: MemoryBroker, ledger: MemoryLedger, group: str = GROUP, start_from: str = "earliest"
) -> tuple[dict[int, int], str]:
    """Returns (partition → next offset, warnings)."""
    lines: list[str] = []
    policy = StartPolicy(start_from, group, "ingest-reading")
    begin(MemoryTopic(broker, "reading"), ledger, policy=policy, stream="reading", warn=lines.append)
    return {partition: position.next_offset for partition, position in ledger.positions().items()}, "; ".join(lines)


def test_the_groups_offsets_are_taken_over_and_reported(broker: MemoryBroker, ledger: MemoryLedger) -> None:
    commit(broker, {0: 1, 1: 5, 2: 3})
    positions, line = started(broker, ledger)
    assert positions == {0: 1, 1: 5, 2: 3}
    assert line == (
        f"stream reading takes over offsets of group {GROUP}: partition 0 at 1, partition 1 at 5, partition 2 at 3"
    )


@pytest.mark.parametrize(("start_from", "rest"), [("earliest", {0: 0, 2: 2}), ("latest", {0: 5, 2: 5})])
def test_partitions_without_an_offset_follow_start_from_and_are_reported(
    broker: MemoryBroker, ledger: MemoryLedger, start_from: str, rest: dict[int, int]
) -> None:
    commit(broker, {1: 4})
    positions, line = started(broker, ledger, start_from=start_from)
    assert positions == {1: 4, **rest}
    assert "The group has no offset for partitions 0, 2, which follow START_FROM" in line


@pytest.mark.parametrize("group", ["conect-reading", "ingest-reading"])
def test_a_group_without_any_offset_is_refused(broker: MemoryBroker, ledger: MemoryLedger, group: str) -> None:
    """A misspelt group, and the stream's own group."""
    commit(broker, {0: 1})
    with pytest.raises(AdoptionRefused) as refused:
        started(broker, ledger, group)
    assert ledger.positions() == {}
    assert group in refused.value.message and "topic reading" in refused.value.message
    assert "unset ADOPT_GROUP" in refused.value.message
    assert "\n" not in refused.value.message


def test_offsets_of_missing_partitions_do_not_count(broker: MemoryBroker, ledger: MemoryLedger) -> None:
    commit(broker, {7: 1})
    with pytest.raises(AdoptionRefused, match="no committed offset"):
        started(broker, ledger)


def test_a_stream_that_awaited_its_topic_needs_no_offset_of_the_group(
    broker: MemoryBroker, ledger: MemoryLedger
) -> None:
    """No consumer can have read a new topic."""
    ledger.await_topic()
    assert started(broker, ledger) == ({0: 0, 1: 0, 2: 2}, "")


def test_an_offset_beyond_the_log_is_refused(broker: MemoryBroker, ledger: MemoryLedger) -> None:
    commit(broker, {0: 1, 1: 6})
    with pytest.raises(AdoptionRefused, match=r"partition 1 of topic reading is 6, beyond the log's end at 5") as error:
        started(broker, ledger)
    assert error.value.partition == 1
    assert ledger.positions() == {}


def test_an_offset_in_an_open_transaction_is_inside_the_log(broker: MemoryBroker, ledger: MemoryLedger) -> None:
    """A group that reads uncommitted records may be ahead of the last stable offset."""
    broker.begin_transaction("reading", 0)
    broker.append("reading", 0, b"open")
    commit(broker, {0: 6})
    assert started(broker, ledger)[0][0] == 6


def test_an_expired_offset_is_taken_over_and_reported(broker: MemoryBroker, ledger: MemoryLedger) -> None:
    commit(broker, {0: 1, 1: 1, 2: 0})
    positions, line = started(broker, ledger)
    assert positions[2] == 0  # the stream stops there, or records the gap, as ON_DATA_LOSS wants
    assert "already deleted offsets that the group had not read: partition 2 to 1" in line


@pytest.mark.parametrize("group", [GROUP, "ingest-price"])
def test_offsets_with_a_ledgers_mark_are_refused(broker: MemoryBroker, ledger: MemoryLedger, group: str) -> None:
    commit(broker, {0: 1}, group, "ingest-ledger:theirs")
    with pytest.raises(AdoptionRefused, match="mark of ledger theirs"):
        started(broker, ledger, group)


def test_the_streams_own_group_with_a_mark_means_a_missing_ledger(broker: MemoryBroker, ledger: MemoryLedger) -> None:
    commit(broker, {0: 1}, "ingest-reading", "ingest-ledger:lost")
    with pytest.raises(LedgerMissing, match="lost"):
        started(broker, ledger, "ingest-reading")


def test_a_begun_stream_ignores_the_group(broker: MemoryBroker, ledger: MemoryLedger) -> None:
    commit(broker, {0: 1, 1: 1, 2: 3})
    started(broker, ledger)
    broker.groups.clear()
    assert started(broker, ledger, "misspelt") == ({0: 1, 1: 1, 2: 3}, "")
