"""Event tables partitioned by hand, whose partitions have keys of other names."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from ingest_pipeline.core.errors import LedgerConflict, SchemaMismatch
from ingest_pipeline.core.ledger import LetterFilter, Redriven, Replayed
from ingest_pipeline.postgres.dead_letters import DeadLetters
from ingest_pipeline_tests.integration.postgres_bench import Bench
from ingest_pipeline_tests.samples import BAD, good

BY_OFFSET = """
    ALTER TABLE reading RENAME TO old;
    ALTER TABLE old RENAME CONSTRAINT reading_pkey TO old_pkey;
    CREATE TABLE reading (LIKE old INCLUDING DEFAULTS, CONSTRAINT reading_pkey
        PRIMARY KEY (kafka_incarnation, kafka_partition, kafka_offset)) PARTITION BY RANGE (kafka_offset);
    CREATE TABLE low (LIKE reading INCLUDING DEFAULTS, CONSTRAINT "a key of its own"
        PRIMARY KEY (kafka_incarnation, kafka_partition, kafka_offset));
    ALTER TABLE reading ATTACH PARTITION low FOR VALUES FROM (0) TO (100);
    CREATE TABLE high PARTITION OF reading FOR VALUES FROM (100) TO (1000) {sub}"""
SUB = """PARTITION BY LIST (kafka_partition);
    CREATE TABLE high_0 PARTITION OF high FOR VALUES IN (0)"""


@pytest.fixture(params=["copy", "executemany"])
def bench(request: pytest.FixtureRequest, database_url: str) -> Iterator[Bench]:
    with Bench(database_url, method=request.param) as made:
        made.begin()
        made.sql(BY_OFFSET.format(sub=SUB))
        yield made


def drained(bench: Bench, first: int) -> None:
    """Ten rows from this offset on, in a ledger that was set back to it afterwards."""
    bench.sql("UPDATE ingest.position SET first_offset = %s, next_offset = %s", first, first)
    bench.write([good()] * 10)
    bench.reopen()
    bench.sql('UPDATE ingest.position SET next_offset = first_offset, "rows" = 0')


@pytest.mark.parametrize("first", [0, 95, 200])
@pytest.mark.parametrize("unique", ["", "CREATE UNIQUE INDEX ON reading (device_id, kafka_offset, kafka_partition)"])
def test_a_ledger_set_back_stops_the_stream(bench: Bench, first: int, unique: str) -> None:
    bench.sql(unique or "SELECT 1")
    drained(bench, first)
    with pytest.raises(LedgerConflict, match=rf"partition 0 offset {first}: a row with these Kafka coordinates"):
        bench.write([good()] * 10)
    assert bench.letters() == {}
    assert bench.sql('SELECT next_offset, "rows" FROM ingest.position') == [(first, 0)]
    assert bench.sql("SELECT count(*) FROM reading") == [10]


def test_a_single_row_that_is_there_stops_the_stream(bench: Bench) -> None:
    bench.sql("INSERT INTO reading VALUES (1, 0, 7, 'a', 1.5, now())")
    with pytest.raises(LedgerConflict, match="partition 0 offset 7: "):
        bench.write([good()] * 10)
    assert bench.letters() == {}


def test_a_key_of_the_users_own_is_the_records_matter(bench: Bench) -> None:
    for table in ("low", "high_0"):
        bench.sql(f"CREATE UNIQUE INDEX ON {table} (device_id)")
    bench.write([good("a"), good("b"), good("a"), BAD])
    assert sorted(bench.sql("SELECT kafka_offset FROM reading")) == [0, 1]
    assert list(bench.letters()) == [2, 3]


def test_an_unlogged_partition_is_refused(bench: Bench) -> None:
    bench.sql("ALTER TABLE high_0 SET UNLOGGED")
    with pytest.raises(SchemaMismatch, match="table high_0 is UNLOGGED"):
        bench.new_session()


def test_a_partition_that_drops_rows(bench: Bench) -> None:
    bench.sql("""
        CREATE FUNCTION drops() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
        CREATE TRIGGER drops BEFORE INSERT ON low FOR EACH ROW EXECUTE FUNCTION drops()""")
    bench.sql("UPDATE ingest.position SET first_offset = 95, next_offset = 95")
    written = bench.write([good()] * 10)
    assert (written.rows[0], written.dropped[0]) == (5, 5)
    assert bench.sql('SELECT "rows", skipped FROM ingest.position') == [(5, 5)]


def test_a_replay_and_a_redrive_of_a_partitioned_table(bench: Bench) -> None:
    values = [good("a"), BAD, good("c"), BAD]
    bench.write(values)
    bench.sql("DELETE FROM reading WHERE device_id = 'c'")
    assert bench.replay(values) == Replayed(stored=1, present=1, dead=2)
    bench.sql("INSERT INTO reading VALUES (1, 0, 3, 'd', 1.5, now())")
    letters = DeadLetters(bench.database, bench.stream)
    assert letters.redrive(LetterFilter(), lambda value: ("b", 1.5, datetime.now(UTC))) == Redriven(1, 1)
    assert bench.sql("SELECT device_id FROM reading ORDER BY kafka_offset") == ["a", "b", "c", "d"]
