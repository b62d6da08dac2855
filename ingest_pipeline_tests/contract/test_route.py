"""One topic into several tables, on the in-memory ledger and on PostgreSQL by both ways of writing."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from ingest_pipeline.core.errors import LedgerConflict
from ingest_pipeline.core.ledger import Replayed
from ingest_pipeline.core.route import Route
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.testing import Fault
from ingest_pipeline_tests.contract.stream_worlds import WORLDS, StreamWorld, counters, url_of


class Event(msgspec.Struct):
    kind: str
    count: int


class Click(Event):
    url: str


TABLES: dict[str, Any] = {"click": ("clicks", Click), "tap": ("clicks", Click), "view": "views"}
STREAM = Stream("event", Event, route=Route("kind", TABLES))
SKIPPING = Stream("event", Event, route=Route("kind", TABLES, others="skip"))
KEEPING = Stream("event", Event, table="rest", route=Route("kind", TABLES, others="table"))
NO_TABLE = "no table for this text - at `$.kind`"


def click(count: int, kind: str = "click") -> bytes:
    """The table refuses counts below 0 and drops counts above 99."""
    return msgspec.json.encode({"kind": kind, "count": count, "url": "u"})


def view(count: int, kind: str = "view") -> bytes:
    return msgspec.json.encode({"kind": kind, "count": count})


class RouteWorld(StreamWorld):
    def __init__(self, kind: str, url: str, stream: Stream) -> None:
        super().__init__(kind, url, stream)
        self.check("not_negative", "count >= 0", lambda row: row[5] >= 0)
        self.drop("new.count > 99", lambda row: row[5] > 99)

    def rows(self) -> list[tuple[str, int, int]]:
        """(table, offset, count)."""
        names = [table.table for table in self.stream.tables]
        if self.in_memory:
            return sorted((names[row[-1]], row[2], row[5]) for row in self.table.rows.values())
        return sorted((name, *row) for name in names for row in self.sql(f"SELECT kafka_offset, count FROM {name}"))

    def plant_view(self, offset: int) -> None:
        """Put a row into the table behind the ledger's back."""
        if self.in_memory:
            self.table.rows[1, 0, offset] = (1, 0, offset, None, "view", 1, 1)
        else:
            columns = "kafka_incarnation, kafka_partition, kafka_offset, kind, count"
            self.sql(f"INSERT INTO views ({columns}) VALUES (1, 0, %s, 'view', 1)", offset)


@pytest.fixture
def stream() -> Stream:
    return STREAM


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, stream: Stream) -> Iterator[RouteWorld]:
    made = RouteWorld(request.param, url_of(request), stream)
    yield made
    made.close()


def test_each_record_goes_to_the_table_of_its_value(world: RouteWorld) -> None:
    written = world.write(click(1), view(2), click(3, "tap"), view(4), click(5))
    assert (written.rows, written.dead_letters) == ({0: 5}, {})
    assert world.rows() == [("clicks", 0, 1), ("clicks", 2, 3), ("clicks", 4, 5), ("views", 1, 2), ("views", 3, 4)]
    assert counters(world) == (5, 5, 0, 0, 0)


def test_a_record_without_a_table_is_a_dead_letter(world: RouteWorld) -> None:
    written = world.write(view(1, "scroll"), view(2), b'{"count": 3}', b'{"kind": ["view"], "count": 4}', b"[]", b"{")
    assert (written.rows, written.dead_letters) == ({0: 1}, {0: 5})
    reasons = world.reasons()
    assert reasons[0] == NO_TABLE
    assert reasons[2] == "no table for null or a missing key - at `$.kind`"
    assert reasons[3] == "no table for an array - at `$.kind`"
    assert reasons[4] == "Expected `object`, got `array`"
    assert reasons[5] == "Input data was truncated"
    assert world.rows() == [("views", 1, 2)]


def test_a_record_that_its_tables_struct_refuses_is_a_dead_letter(world: RouteWorld) -> None:
    world.write(view(1, "click"), click(2))
    assert world.reasons() == {0: "Object missing required field `url`"}
    assert world.rows() == [("clicks", 1, 2)]


def test_refused_and_dropped_rows_of_both_tables(world: RouteWorld) -> None:
    written = world.write(click(1), view(-2), click(-3), view(4), click(100), view(5), click(6), view(-7), view(101))
    assert (written.rows, written.dead_letters, written.dropped) == ({0: 4}, {0: 3}, {0: 2})
    assert world.rows() == [("clicks", 0, 1), ("clicks", 6, 6), ("views", 3, 4), ("views", 5, 5)]
    assert world.reasons().keys() == {1, 2, 7}
    assert counters(world) == (9, 4, 3, 2, 0)


def test_a_broken_commit_leaves_no_row_in_any_table(world: RouteWorld) -> None:
    batch = world.batch(click(1), view(2), click(-3))
    world.break_write(world.session, Fault.BEFORE_COMMIT)
    with pytest.raises(Exception, match="connection"):
        world.session.write(batch)
    assert world.rows() == []
    assert world.session.recover(batch) is None
    world.session.write(batch)
    assert world.rows() == [("clicks", 0, 1), ("views", 1, 2)]
    assert counters(world) == (3, 2, 1, 0, 0)


def test_a_redrive_stores_the_row_in_its_table(world: RouteWorld) -> None:
    world.write(click(-1), view(-2), view(3, "scroll"))
    assert (world.redrive().refused, world.rows()) == (3, [])
    world.drop_check("not_negative")
    done = world.redrive()
    assert (done.stored, done.refused) == (2, 1)
    assert world.rows() == [("clicks", 0, -1), ("views", 1, -2)]
    assert world.redrive().stored == 0
    assert world.reasons() == {2: NO_TABLE}


def test_a_replay_stores_missing_rows_of_all_tables(world: RouteWorld) -> None:
    values = click(1), view(2), click(-3), view(4), view(5, "scroll")
    world.write(*values)
    assert world.replay(*values) == Replayed(present=3, dead=2)
    world.delete(0)
    world.delete(3)
    assert world.replay(*values) == Replayed(stored=2, present=1, dead=2)
    assert world.rows() == [("clicks", 0, 1), ("views", 1, 2), ("views", 3, 4)]


def test_a_changed_route_stores_no_record_a_second_time(world: RouteWorld) -> None:
    values = click(1), view(2, "click")
    world.write(*values)
    world.use(Stream("event", Event, route=Route("kind", {"click": "views", "view": ("clicks", Click)})))
    assert world.replay(*values) == Replayed(present=1, dead=1)
    assert world.redrive().stored == 1
    rows = [(offset, count) for _, offset, count in world.rows()]
    assert sorted(rows) == [(0, 1), (1, 2)]


def test_a_row_stored_before_stops_the_stream(world: RouteWorld) -> None:
    world.plant_view(1)
    with pytest.raises(LedgerConflict):
        world.write(click(1), view(2))
    assert counters(world) == (0, 0, 0, 0, 0)


class TestSkipping:
    @pytest.fixture
    def stream(self) -> Stream:
        return SKIPPING

    def test_a_record_without_a_table_is_counted(self, world: RouteWorld) -> None:
        written = world.write(view(1, "scroll"), view(2), b'{"count": 3}', b"{")
        assert (written.rows, written.dead_letters) == ({0: 1}, {0: 1})
        assert counters(world) == (4, 1, 1, 2, 0)


class TestKeeping:
    @pytest.fixture
    def stream(self) -> Stream:
        return KEEPING

    def test_a_record_without_a_table_goes_to_the_streams_own(self, world: RouteWorld) -> None:
        world.write(view(1, "scroll"), view(2), click(3))
        assert world.rows() == [("clicks", 2, 3), ("rest", 0, 1), ("views", 1, 2)]
        assert counters(world) == (3, 3, 0, 0, 0)


POSTGRES = pytest.mark.parametrize("method", [name for name in WORLDS if name != "memory"])


@POSTGRES
def test_a_foreign_key_may_point_to_an_earlier_table(database_url: str, method: str) -> None:
    world = RouteWorld(method, database_url, STREAM)
    world.sql("ALTER TABLE clicks ADD UNIQUE (count)")
    world.sql("ALTER TABLE views ADD FOREIGN KEY (count) REFERENCES clicks (count)")
    world.write(click(1), view(1))
    assert world.write(view(1), click(3), view(2), view(3)).dead_letters == {0: 1}
    assert world.reasons().keys() == {4}
    assert len(world.rows()) == 5
    world.close()


@POSTGRES
def test_tables_that_exist(database_url: str, method: str) -> None:
    stream = Stream("event", Event, coordinates=False, route=Route("kind", TABLES))
    create = "CREATE TABLE clicks (kind varchar(5), count int, url text); CREATE TABLE views (count int2, kind text)"
    world = StreamWorld(method, database_url, stream, create=create)
    written = world.write(click(1), view(2), view(40_000), click(3, "tap"), click(2**40))
    assert (written.rows, written.dead_letters) == ({0: 3}, {0: 2})
    assert world.sql("SELECT * FROM clicks") == [("click", 1, "u"), ("tap", 3, "u")]
    assert world.sql("SELECT * FROM views") == [(2, "view")]
    world.sql("ALTER TABLE views ALTER count TYPE bigint")
    assert (world.redrive().stored, len(world.refused())) == (1, 1)
    assert world.sql("SELECT count FROM views") == [(2,), (40_000,)]
    world.close()
