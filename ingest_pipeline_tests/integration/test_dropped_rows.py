"""Rows that a trigger drops or moves are counted correctly, and tables that a crash would empty are refused."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
import pytest

from ingest_pipeline.core.errors import SchemaMismatch
from ingest_pipeline.core.ledger import Redriven, Replayed
from ingest_pipeline.core.progress import Progress
from ingest_pipeline.core.record import NextOffset, Position
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.postgres import comparison
from ingest_pipeline_tests.integration.postgres_bench import Bench
from ingest_pipeline_tests.samples import BAD, IDENTITY, make_batch, message, tombstone


class Count(msgspec.Struct):
    event_time: datetime
    number: int


COUNT = Stream("count", Count)
DROPS = """
    CREATE FUNCTION drops() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN IF new.number < 0 THEN RETURN NULL; END IF; RETURN new; END $$;
    CREATE TRIGGER drops BEFORE INSERT ON count FOR EACH ROW EXECUTE FUNCTION drops()"""
MOVES = """
    CREATE TABLE negative (LIKE count INCLUDING ALL){parent};
    CREATE FUNCTION moves() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN IF new.number < 0 THEN INSERT INTO negative VALUES (new.*); RETURN NULL; END IF; RETURN new; END $$;
    CREATE TRIGGER moves BEFORE INSERT ON count FOR EACH ROW EXECUTE FUNCTION moves()"""
DELETES = """
    CREATE FUNCTION drops() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN DELETE FROM count WHERE kafka_offset = new.kafka_offset AND number < 0; RETURN NULL; END $$;
    CREATE TRIGGER drops AFTER INSERT ON count FOR EACH ROW EXECUTE FUNCTION drops()"""
RENUMBERS = """
    CREATE FUNCTION drops() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN IF new.number < 0 THEN new.kafka_offset := 1000; END IF; RETURN new; END $$;
    CREATE TRIGGER drops BEFORE INSERT ON count FOR EACH ROW EXECUTE FUNCTION drops()"""
COUNTERS = 'SELECT next_offset, "rows", dead_letters, skipped, absent FROM ingest.position ORDER BY kafka_partition'


def count(number: int) -> bytes:
    return msgspec.json.encode({"event_time": "2026-01-01T00:00:00Z", "number": number})


@pytest.fixture(params=["copy", "executemany"])
def bench(request: pytest.FixtureRequest, database_url: str) -> Iterator[Bench]:
    with Bench(database_url, COUNT, method=request.param) as made:
        yield made.begin()


def accounted(bench: Bench) -> bool:
    return bench.sql("SELECT accounted FROM ingest.accounting") == [True]


# --- batches --------------------------------------------------------------------------------------------------------


def test_dropped_rows_count_as_skipped(bench: Bench) -> None:
    bench.write([count(1)])
    bench.sql(DROPS)
    written = bench.write([count(1), count(-1), BAD, count(2), count(-2)])
    assert bench.offsets() == [0, 1, 4]
    assert bench.sql(COUNTERS) == [(6, 3, 1, 2, 0)]
    assert (dict(written.rows), dict(written.dropped)) == ({0: 2}, {0: 2})
    assert accounted(bench)
    bench.write([count(-1)] * 3)
    bench.sql("DROP TRIGGER drops ON count")
    bench.write([count(-1)])
    assert bench.sql(COUNTERS) == [(10, 4, 1, 5, 0)]
    assert accounted(bench)


def test_dropped_rows_of_several_partitions_beside_tombstones(bench: Bench) -> None:
    assert bench.ledger.begin(IDENTITY, {1: NextOffset(0)}, first=False)
    bench.sql(DROPS)
    session = bench.new_session()
    assert session.own([0, 1], exact=True) == {}
    records: list[Any] = [message(p, n, count(-1 if n < 2 + p else 1)) for p in (0, 1) for n in range(4)]
    records += [tombstone(1, 4), message(1, 6, count(1))]
    batch = make_batch(session.positions, records, stream=COUNT)
    written = session.write(batch)
    assert bench.sql(COUNTERS) == [(4, 2, 0, 2, 0), (7, 2, 0, 4, 1)]
    assert dict(written.dropped) == {0: 2, 1: 3}
    progress = Progress(0.0)
    progress.own({p: Position(p, 1, NextOffset(0)) for p in (0, 1)})
    progress.add(batch, written, 0.0, 1.0)
    assert (progress.rows, progress.skipped, progress.dropped, progress.absent) == (4, 6, 5, 1)


@pytest.mark.parametrize(("parent", "skipped"), [("", 2), (" INHERITS (count)", 0)])
def test_rows_that_a_trigger_moves_count_where_the_table_shows_them(bench: Bench, parent: str, skipped: int) -> None:
    """A child table is part of its parent. Another table is not."""
    bench.sql(MOVES.format(parent=parent))
    bench.write([count(n) for n in (1, -1, 2, -2)])
    assert bench.sql(COUNTERS) == [(4, 4 - skipped, 0, skipped, 0)]
    assert bench.sql("SELECT count(*) FROM count") == [4 - skipped]
    assert bench.sql("SELECT count(*) FROM ONLY count") == [2]


@pytest.mark.parametrize(
    "ddl",
    [
        "CREATE FUNCTION drops() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        " CREATE TRIGGER drops BEFORE INSERT ON ingest.dead_letter FOR EACH ROW EXECUTE FUNCTION drops()",
        "CREATE RULE drops AS ON INSERT TO ingest.dead_letter DO INSTEAD NOTHING",
    ],
)
def test_a_ledger_that_drops_dead_letters_stops_the_stream(bench: Bench, ddl: str) -> None:
    bench.write([count(1)])
    bench.sql(ddl)
    if "RULE" in ddl and bench.method == "copy":  # COPY takes no notice of rules
        bench.write([count(1), BAD])
        assert list(bench.letters()) == [2]
        return
    with pytest.raises(SchemaMismatch, match="dead_letter drops 1 of 1 dead letters"):
        bench.write([count(1), BAD])
    assert bench.sql(COUNTERS) == [(1, 1, 0, 0, 0)]


# --- redrive and replay ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ddl", [DROPS, MOVES.format(parent=""), DELETES, RENUMBERS])
def test_a_letter_without_a_row_stays_open(bench: Bench, ddl: str) -> None:
    bench.refuse([count(1), count(-1), count(2)])
    bench.sql(ddl)
    for _ in range(2):
        bench.redrive()
    assert bench.offsets() == [0, 2]
    assert bench.sql("SELECT status, reason FROM ingest.dead_letter ORDER BY kafka_offset") == [
        ("redriven", "older version"),
        ("open", "a trigger of the table drops the row"),
        ("redriven", "older version"),
    ]
    if "negative" in ddl:
        assert bench.sql("SELECT count(*) FROM negative") == [0]
    bench.sql("DROP FUNCTION IF EXISTS drops, moves CASCADE")
    assert bench.redrive() == Redriven(stored=1)
    assert bench.sql("SELECT count(*) FROM count") == [3]


def test_a_row_in_a_child_table_redrives_its_letter(bench: Bench) -> None:
    bench.refuse([count(-1)])
    bench.sql(MOVES.format(parent=" INHERITS (count)"))
    assert bench.redrive() == Redriven(present=1)
    assert bench.sql("SELECT number FROM count") == [-1]


def test_a_replay_leaves_the_letter_of_a_dropped_row_open(bench: Bench) -> None:
    long = count(-1) + b" " * 2000
    bench.refuse([long, count(1) + b" " * 2000])
    bench.sql(DROPS)
    assert bench.replay([long, count(1)]) == Replayed(stored=1, skipped=1)
    assert bench.sql("SELECT status FROM ingest.dead_letter ORDER BY kafka_offset") == ["open", "redriven"]


# --- rules and persistence ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule", ["DO INSTEAD NOTHING", "DO ALSO NOTIFY rows", "DO INSTEAD INSERT INTO negative VALUES (new.*)"]
)
def test_a_rule_on_insert_is_refused(bench: Bench, rule: str) -> None:
    bench.write([count(1)])
    bench.sql("CREATE TABLE negative (LIKE count)")
    bench.sql(f"CREATE RULE away AS ON INSERT TO count WHERE new.number < 0 {rule}"
              if "INTO" in rule else f"CREATE RULE away AS ON INSERT TO count {rule}")  # fmt: skip
    with pytest.raises(SchemaMismatch, match="rule away rewrites each INSERT into the table"):
        bench.write([count(1), count(-1)])
    with pytest.raises(SchemaMismatch, match="rule away"):
        bench.new_session("another")
    assert bench.sql(COUNTERS) == [(1, 1, 0, 0, 0)]
    bench.sql("DROP RULE away ON count")
    bench.write([count(1), count(-1)])
    assert bench.offsets() == [0, 1, 2]


def test_an_unlogged_table_is_refused(bench: Bench) -> None:
    bench.write([count(1)])
    bench.sql("ALTER TABLE count SET UNLOGGED")
    message = r"table count is UNLOGGED, so a crash of PostgreSQL empties it .*SET LOGGED"
    with pytest.raises(SchemaMismatch, match=message):
        bench.write([count(1)])
    for refused in (bench.ledger.prepare, lambda: bench.new_session("another")):
        with pytest.raises(SchemaMismatch, match=message):
            refused()
    bench.sql("ALTER TABLE count SET LOGGED")
    bench.write([count(1)])
    assert bench.sql(COUNTERS) == [(2, 2, 0, 0, 0)]


def test_an_unlogged_table_may_be_allowed(database_url: str) -> None:
    with Bench(database_url, Stream("count", Count, allow_unlogged=True)) as bench:
        bench.begin().sql("ALTER TABLE count SET UNLOGGED")
        bench.write([count(1)])
        assert bench.offsets() == [0]
        bench.sql("ALTER TABLE ingest.gap SET UNLOGGED")
        with pytest.raises(SchemaMismatch, match=r"ledger table ingest\.gap is UNLOGGED"):
            bench.new_session("another")


def test_an_unlogged_child_table_is_refused(bench: Bench) -> None:
    bench.sql("CREATE UNLOGGED TABLE child () INHERITS (count)")
    with pytest.raises(SchemaMismatch, match="table child is UNLOGGED"):
        bench.new_session()


def test_a_temporary_table_is_refused(bench: Bench) -> None:
    stream = Stream("count", Count, allow_unlogged=True)
    with bench.database.connect("temporary") as connection:
        connection.exec_driver_sql("CREATE TEMPORARY TABLE count (LIKE public.count INCLUDING ALL)")
        (difference,) = comparison.table_differences(connection, stream, "pg_temp")
    assert difference.startswith("table count is TEMPORARY, ")


@pytest.mark.parametrize("table", ["position", "dead_letter", "stream_state", "loss", "past_position"])
def test_an_unlogged_ledger_is_refused(bench: Bench, table: str) -> None:
    bench.sql(f"ALTER TABLE ingest.{table} SET UNLOGGED")
    with pytest.raises(
        SchemaMismatch, match=rf'ingest\.{table} is UNLOGGED.*ALTER TABLE "ingest"."{table}" SET LOGGED'
    ):
        bench.new_session()
