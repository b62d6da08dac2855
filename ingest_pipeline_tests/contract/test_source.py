"""What every record source promises, on the in-memory broker, on librdkafka's mock and on Apache Kafka."""

import time
from collections.abc import Mapping

import pytest

from ingest_pipeline.core.errors import DataLoss, KafkaUnavailable
from ingest_pipeline.core.record import NextOffset
from ingest_pipeline_tests.contract.kafka_worlds import MemoryWorld, World
from ingest_pipeline_tests.contract.reading import offsets, read_error, read_to, read_until, values

COMPACT_SOON = {
    "cleanup.policy": "compact",
    "segment.ms": "100",
    "min.cleanable.dirty.ratio": "0.01",
    "min.compaction.lag.ms": "0",
}


def numbered(count: int, name: str = "v") -> list[bytes]:
    return [f"{name}{number}".encode() for number in range(count)]


def starts(*partitions: int) -> Mapping[int, NextOffset]:
    return {partition: NextOffset(0) for partition in partitions}


class TestRecords:
    def test_they_come_in_log_order_each_once(self, world: World) -> None:
        topic = world.create(2)
        for partition in (0, 1):
            world.append_all(topic, partition, numbered(300, f"p{partition}-"))
        source = world.reading(topic, starts(0, 1))
        records, ends = read_to(source, {0: 300, 1: 300}, max_records=7)
        for partition in (0, 1):
            assert offsets(records, partition) == list(range(300))
            assert values(records, partition) == numbered(300, f"p{partition}-")
        assert ends.keys() == {0, 1}

    def test_they_carry_what_was_written(self, world: World) -> None:
        topic = world.create(1)
        headers = [("a", b"1"), ("a", b"2"), ("raw", b"\xff\xfe\x00"), ("none", None), ("empty", b"")]
        stamp = int(time.time() * 1000) - 5000
        world.append(topic, 0, b"\xff not text", key=b"\x80key", headers=headers, timestamp_ms=stamp)
        world.append(topic, 0, b"")
        world.append(topic, 0, None, key=b"of a tombstone")
        source = world.reading(topic, starts(0))
        records, _ = read_to(source, {0: 3})
        first, second, third = records
        assert (first.key(), first.value(), first.headers()) == (b"\x80key", b"\xff not text", headers)
        assert first.timestamp() == (1, stamp)
        assert (second.key(), second.value(), second.headers()) == (None, b"", None)
        assert (third.key(), third.value(), third.offset()) == (b"of a tombstone", None, 2)

    def test_a_new_assignment_drops_what_the_old_one_had_fetched(self, world: World) -> None:
        topic = world.create(2)
        for partition in (0, 1):
            world.append_all(topic, partition, numbered(100))
        source = world.reading(topic, starts(0, 1))
        read_until(source, lambda records, _: len(records) >= 5, max_records=5)
        source.assign({1: NextOffset(50)})
        records, _ = read_to(source, {1: 100})
        assert offsets(records, 0) == []
        assert offsets(records, 1) == list(range(50, 100))

    def test_a_partition_that_was_added_is_read(self, world: World) -> None:
        world.need("add_partitions")
        topic = world.create(1)
        world.append(topic, 0, b"old")
        source = world.reading(topic, starts(0))
        read_to(source, {0: 1})
        world.add_partitions(topic, 2)
        world.append(topic, 1, b"new")
        source.assign({0: NextOffset(1), 1: NextOffset(0)})
        records, _ = read_to(source, {0: 1, 1: 1})
        assert values(records) == [b"new"]


class TestEnds:
    def test_the_end_of_an_empty_partition_is_reported_once(self, world: World) -> None:
        topic = world.create(1)
        world.append_all(topic, 0, numbered(2))
        source = world.reading(topic, {0: NextOffset(2)})
        read_to(source, {0: 2})
        for _ in range(3):
            assert not source.read(10, 0.05).ends

    def test_aborted_records_are_never_read_and_leave_no_lag(self, world: World) -> None:
        world.need("transactions")
        topic = world.create(1)
        world.append(topic, 0, b"before")
        world.transaction(topic, 0, numbered(3, "aborted"))(False)
        world.append(topic, 0, b"after")
        world.transaction(topic, 0, numbered(2, "aborted"))(False)
        source = world.reading(topic, starts(0))
        records, _ = read_to(source, {0: 9})
        assert values(records) == [b"before", b"after"]
        assert world.facts(topic).end_offsets([0])[0].next_offset == 9

    def test_the_place_of_an_end_can_be_gone_on_from(self, world: World) -> None:
        world.need("transactions")
        topic = world.create(1)
        world.transaction(topic, 0, numbered(3))(True)
        first = world.reading(topic, starts(0))
        records, ends = read_to(first, {0: 4})
        assert offsets(records) == [0, 1, 2]
        assert ends[0].next_offset == world.facts(topic).end_offsets([0])[0].next_offset
        world.append(topic, 0, b"next")
        second = world.reading(topic, ends)
        records, _ = read_to(second, {0: 5})
        assert values(records) == [b"next"]

    def test_a_marker_alone_moves_the_end(self, world: World) -> None:
        world.need("transactions")
        topic = world.create(1)
        world.append(topic, 0, b"a")
        source = world.reading(topic, starts(0))
        read_to(source, {0: 1})
        world.transaction(topic, 0, [b"aborted"])(False)
        records, _ = read_to(source, {0: 3})
        assert records == []

    def test_an_open_transaction_holds_back_what_follows(self, world: World) -> None:
        world.need("transactions")
        topic = world.create(1)
        world.append(topic, 0, b"before")
        finish = world.transaction(topic, 0, [b"inside"])
        world.append(topic, 0, b"behind")
        source = world.reading(topic, starts(0))
        records, _ = read_to(source, {0: 1})
        assert values(records) == [b"before"]
        finish(True)
        records, _ = read_to(source, {0: 4})
        assert values(records) == [b"inside", b"behind"]

    def test_compacted_records_leave_holes_and_no_lag(self, world: World) -> None:
        world.need("compaction")
        topic = world.create(1, COMPACT_SOON)
        for number in range(3):
            world.append(topic, 0, b"%d" % number, key=b"same key")
        world.compact(topic, 0, [0, 1])
        world.append(topic, 0, b"last", key=b"another key")
        deadline = time.monotonic() + 60.0
        while True:
            source = world.reading(topic, starts(0))
            records, ends = read_to(source, {0: world.facts(topic).end_offsets([0])[0].next_offset})
            if len(records) < ends[0].next_offset:
                break
            assert time.monotonic() < deadline, "nothing was compacted"
            time.sleep(0.5)
        assert values(records) == [b"2", b"last"]
        assert offsets(records)[0] == 2


class TestLoss:
    def test_deleted_records_are_reported_with_their_range(self, world: World) -> None:
        world.need("delete_records")
        topic = world.create(1)
        world.append_all(topic, 0, numbered(10))
        world.delete_records(topic, 0, 6)
        source = world.reading(topic, {0: NextOffset(2)})
        loss = read_error(source, DataLoss)
        assert isinstance(loss, DataLoss)
        assert (loss.partition, loss.offset) == (0, 2)
        assert loss.where == {"partition": 0, "offset": 2, "low": 6, "high": 10, "cause": "retention"}
        assert "offsets 2 to 5 were deleted" in loss.message
        assert "\n" not in loss.message

    def test_the_first_offset_held_is_not_lost(self, world: World) -> None:
        world.need("delete_records")
        topic = world.create(1)
        world.append_all(topic, 0, numbered(4))
        world.delete_records(topic, 0, 4)
        source = world.reading(topic, {0: NextOffset(4)})
        records, _ = read_to(source, {0: 4})
        assert records == []

    def test_records_of_other_partitions_are_not_lost_with_it(self, world: World) -> None:
        topic = world.create(2)
        world.append_all(topic, 0, numbered(3))
        world.append_all(topic, 1, numbered(3))
        source = world.reading(topic, {0: NextOffset(0), 1: NextOffset(9)})
        read_error(source, DataLoss)
        source.assign({0: NextOffset(0), 1: NextOffset(0)})
        records, _ = read_to(source, {0: 3, 1: 3})
        assert len(records) == 6


class TestAcknowledge:
    def test_it_is_read_back_with_the_ledgers_mark(self, world: World) -> None:
        topic = world.create(2)
        source = world.reading(topic, starts(0, 1), group_id=f"group-{topic}", ledger_id="ledger-1")
        source.acknowledge({0: NextOffset(3, 0)})
        source.acknowledge({0: NextOffset(5, 0), 1: NextOffset(2)})
        source.close()
        commits = world.facts(topic).group_offsets(f"group-{topic}")
        assert {partition: commit.next_offset for partition, commit in commits.items()} == {0: 5, 1: 2}
        assert {commit.metadata for commit in commits.values()} == {"ingest-ledger:ledger-1"}

    def test_the_commits_of_an_earlier_source_with_the_ledgers_mark_are_known(self, world: World) -> None:
        topic = world.create(2)
        for ledger_id, offset in (("ledger-1", 7), ("ledger-2", 3)):
            source = world.reading(topic, starts(0, 1), group_id=f"group-{topic}", ledger_id=ledger_id)
            source.acknowledge({0: NextOffset(offset)} if ledger_id == "ledger-1" else {1: NextOffset(offset)})
            source.close()
        later = world.reading(topic, starts(0, 1), group_id=f"group-{topic}", ledger_id="ledger-1")
        assert later.earlier_commits() == {}
        later.acknowledge({0: NextOffset(5)})
        later.close()
        assert later.earlier_commits() == {0: 7}
        assert world.facts(topic).group_offsets(f"group-{topic}")[0].next_offset == 5

    def test_closing_twice_is_closing_once(self, world: World) -> None:
        source = world.source(world.create(1))
        source.close()
        source.close()


class TestAbsence:
    def test_a_broker_that_stays_away_fails_the_read_after_retry_seconds(self) -> None:
        world = MemoryWorld()
        topic = world.create(1)
        source = world.reading(topic, starts(0), retry_seconds=2.0)
        world.broker.set_unavailable(True)
        assert not source.read(10, 1.0).messages
        with pytest.raises(KafkaUnavailable):
            source.read(10, 1.0)
        world.broker.set_unavailable(False)
        world.append(topic, 0, b"back")
        assert values(list(source.read(10, 1.0).messages)) == [b"back"]
