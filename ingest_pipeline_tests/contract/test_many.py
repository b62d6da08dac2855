"""Records of several events, on the in-memory ledger and on PostgreSQL by both ways of writing."""

from collections.abc import Iterator, Sequence

import msgspec
import pytest

from ingest_pipeline.core.errors import LedgerConflict
from ingest_pipeline.core.ledger import Replayed
from ingest_pipeline.core.many import table_rows
from ingest_pipeline.core.stream import Stream
from ingest_pipeline_tests.contract.stream_worlds import WORLDS, StreamWorld, counters, stream_world


class Count(msgspec.Struct):
    name: str
    count: int


STREAM = Stream("counts", Count, many=True)


def array(*counts: int) -> bytes:
    """A record with an event per count. The table refuses counts below 0 and drops counts above 99."""
    return msgspec.json.encode([{"name": f"n{count}", "count": count} for count in counts])


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> Iterator[StreamWorld]:
    with stream_world(request, STREAM) as made:
        made.check("not_negative", "count >= 0", lambda row: row[-1] >= 0)
        made.drop("new.count > 99", lambda row: row[-1] > 99)
        yield made


def rows(world: StreamWorld) -> list[tuple[int, int, int]]:
    if world.in_memory:
        return sorted((row[2], row[4], row[-1]) for row in table_rows(list(world.table.rows.values())))
    return world.sql("SELECT kafka_offset, kafka_ordinal, count FROM counts ORDER BY 1, 2")


def delete(world: StreamWorld, offset: int, ordinals: Sequence[int]) -> None:
    if not world.in_memory:
        world.sql("DELETE FROM counts WHERE kafka_offset = %s AND kafka_ordinal = ANY(%s)", offset, list(ordinals))
        return
    row = world.table.rows.pop((1, 0, offset))
    if left := [element for element in row[-1] if element[0] not in ordinals]:
        world.table.rows[1, 0, offset] = (*row[:-1], left)


def test_counters_count_records(world: StreamWorld) -> None:
    written = world.write(array(1, 2, 3), b"[]", array(4), b'[{"name": "a", "count": 5}, {"name": 6}]')
    assert (written.rows, written.dead_letters) == ({0: 2}, {0: 1})
    assert rows(world) == [(0, 0, 1), (0, 1, 2), (0, 2, 3), (2, 0, 4)]
    assert world.reasons() == {3: "Expected `str`, got `int` - at `$[1].name`"}
    assert counters(world) == (4, 2, 1, 1, 0)


def test_a_row_that_the_database_refuses_takes_its_siblings_along(world: StreamWorld) -> None:
    written = world.write(array(1, 2), array(3, -1, 4), array(5, 6, 7), array(-2))
    assert (written.rows, written.dead_letters) == ({0: 2}, {0: 2})
    assert rows(world) == [(0, 0, 1), (0, 1, 2), (2, 0, 5), (2, 1, 6), (2, 2, 7)]
    refused = world.reasons()
    assert refused.keys() == {1, 3}
    assert all(reason.startswith("check violation (23514), constraint not_negative") for reason in refused.values())
    if world.kind == "copy":
        assert refused[1].endswith(", in the row of kafka_ordinal 1")
    assert counters(world) == (4, 2, 2, 0, 0)


def test_a_record_is_dropped_with_its_last_row(world: StreamWorld) -> None:
    written = world.write(array(1, 100), array(101, 102), array(2))
    assert (written.rows, written.dropped) == ({0: 2}, {0: 1})
    assert rows(world) == [(0, 0, 1), (2, 0, 2)]
    assert counters(world) == (3, 2, 0, 1, 0)


def test_dropped_and_refused_rows_in_one_batch(world: StreamWorld) -> None:
    world.write(array(100), array(1, -1), array(2, 103))
    assert rows(world) == [(2, 0, 2)]
    assert counters(world) == (3, 1, 1, 1, 0)


def test_a_redrive_stores_all_rows_of_a_record(world: StreamWorld) -> None:
    world.write(array(1, -1, 2), array(3, -3))
    assert (world.redrive().refused, rows(world)) == (2, [])
    world.drop_check("not_negative")
    done = world.redrive()
    assert (done.stored, done.present, done.refused) == (2, 0, 0)
    assert rows(world) == [(0, 0, 1), (0, 1, -1), (0, 2, 2), (1, 0, 3), (1, 1, -3)]
    assert counters(world) == (2, 0, 2, 0, 0)


def test_a_replay_stores_missing_records(world: StreamWorld) -> None:
    values = array(1, 2), b"[]", array(3, 4), array(5, -5)
    world.write(*values)
    assert world.replay(*values) == Replayed(present=2, skipped=0, dead=1)
    delete(world, 0, [1])
    delete(world, 2, [0, 1])
    assert world.replay(*values) == Replayed(stored=2, present=0, skipped=0, dead=1)
    assert rows(world) == [(0, 0, 1), (0, 1, 2), (2, 0, 3), (2, 1, 4)]


@pytest.mark.parametrize("world", WORLDS[1:], indirect=True)
def test_rows_that_share_a_unique_value_refuse_their_record(world: StreamWorld) -> None:
    world.sql("ALTER TABLE counts ADD CONSTRAINT once UNIQUE (count)")
    written = world.write(array(1, 2), array(3, 3), array(4, 1), array(5))
    assert (written.rows, written.dead_letters) == ({0: 2}, {0: 2})
    assert rows(world) == [(0, 0, 1), (0, 1, 2), (3, 0, 5)]
    assert world.sql("SELECT DISTINCT sqlstate FROM ingest.dead_letter") == [("23505",)]


def test_a_record_stored_before_stops_the_stream(world: StreamWorld) -> None:
    world.write(array(1, 2))
    if world.in_memory:
        world.table.rows[1, 0, 1] = (1, 0, 1, None, [(1, "a", 1)])
    else:
        world.sql(
            "INSERT INTO counts (kafka_incarnation, kafka_partition, kafka_offset, kafka_ordinal, name, count)"
            " VALUES (1, 0, 1, 1, 'a', 1)"
        )
    with pytest.raises(LedgerConflict):
        world.write(array(3, 4))
    assert counters(world) == (1, 1, 0, 0, 0)
