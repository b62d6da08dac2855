"""A table is altered between two batches of a running stream, or during a batch."""

import threading
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
import psycopg
import pytest

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.errors import LedgerConflict, SchemaMismatch
from ingest_pipeline.core.ledger import LetterFilter
from ingest_pipeline.core.record import NextOffset, Position
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.postgres.replay import MissingRows
from ingest_pipeline_tests.integration.postgres_bench import Bench
from ingest_pipeline_tests.samples import BAD, make_batch, message
from ingest_pipeline_tests.waiting import wait_for


class Meter(msgspec.Struct):
    event_time: datetime
    whole: int
    real: float | None = None
    text: str | None = None
    id: uuid.UUID | None = None


METER = Stream("meter", Meter)
DECODE = JsonDecoder(METER).decode
WARM = 15
"""After this many batches the client has prepared the statement, and the server has a generic plan for it."""


def value(whole: int = 3) -> bytes:
    return msgspec.json.encode({"event_time": "2026-01-01T00:00:00Z", "whole": whole, "real": 1.5})


ALTERED = {
    "whole": [
        "ALTER whole TYPE double precision",
        "ALTER whole TYPE timestamptz USING to_timestamp(whole)",
        "ALTER whole TYPE numeric",
        "ALTER whole TYPE integer",
        "ALTER whole TYPE money USING whole::numeric::money",
        "DROP whole, ADD whole double precision",
    ],
    "real": ["ALTER real TYPE bigint", "ALTER real TYPE real", "ALTER real TYPE timestamptz USING to_timestamp(real)"],
    "text": ["ALTER text TYPE bytea USING text::bytea", "ALTER text TYPE varchar(3)"],
    "id": ["ALTER id TYPE text"],
}
BACK = {
    "whole": "DROP whole, ADD whole bigint NOT NULL DEFAULT 0",
    "real": "DROP real, ADD real double precision",
    "text": "DROP text, ADD text text",
    "id": "DROP id, ADD id uuid",
}
CASES = [(column, change) for column, changes in ALTERED.items() for change in changes]


@pytest.fixture(params=["copy", "executemany"])
def bench(request: pytest.FixtureRequest, database_url: str) -> Iterator[Bench]:
    with Bench(database_url, METER, method=request.param) as made:
        yield made.begin()


@pytest.mark.parametrize(("column", "change"), CASES)
def test_another_type_stops_the_next_batch(bench: Bench, column: str, change: str) -> None:
    bench.write([value(), value()])
    bench.sql(f"ALTER TABLE meter {change}")
    with pytest.raises(SchemaMismatch, match=rf"table public\.meter is not as declared: column {column} is ") as caught:
        bench.write([value(), BAD])
    assert "\n" not in caught.value.message
    assert bench.offsets() == [0, 1]
    assert bench.letters() == {}
    assert bench.counters() == (2, 2, 0)
    bench.sql(f"ALTER TABLE meter {BACK[column]}")
    bench.reopen()
    bench.write([value(7), value(8)])
    assert bench.offsets() == [0, 1, 2, 3]
    assert bench.sql("SELECT whole FROM meter WHERE kafka_offset > 1 ORDER BY kafka_offset") == [7, 8]


def test_an_alter_that_changes_no_declared_column_does_not_stop_the_stream(bench: Bench) -> None:
    for change in (
        "ADD note text",
        "ADD kind text NOT NULL DEFAULT 'raw'",
        "ADD number bigint GENERATED ALWAYS AS IDENTITY",
        "ADD doubled bigint GENERATED ALWAYS AS (whole * 2) STORED",
        "DROP note",
        "ALTER whole SET DEFAULT 5",
        "ADD CONSTRAINT positive CHECK (whole >= 0)",
    ):
        bench.sql(f"ALTER TABLE meter {change}")
        bench.write([value()])
    assert bench.offsets() == list(range(7))
    assert bench.letters() == {}


@pytest.mark.parametrize(
    "replacement",
    [
        "ALTER TABLE meter RENAME TO old; CREATE TABLE meter (LIKE old); ALTER TABLE meter ALTER whole TYPE numeric,"
        " ADD CONSTRAINT x PRIMARY KEY (kafka_incarnation, kafka_partition, kafka_offset)",
        "DROP TABLE meter",
        "ALTER TABLE meter RENAME TO old",
        "ALTER TABLE meter RENAME whole TO part",
        "ALTER TABLE meter RENAME TO old; CREATE VIEW meter AS SELECT * FROM old",
        "ALTER TABLE meter SET SCHEMA ingest",
    ],
)
def test_a_table_that_is_replaced_stops_the_next_batch(bench: Bench, replacement: str) -> None:
    bench.write([value()])
    bench.sql(replacement)
    with pytest.raises(SchemaMismatch):
        bench.write([value()])
    assert bench.counters() == (1, 1, 0)


def test_a_table_that_is_replaced_by_its_equal_is_written_to(bench: Bench) -> None:
    bench.write([value()])
    bench.sql("ALTER TABLE meter RENAME TO old; ALTER TABLE old RENAME CONSTRAINT meter_pkey TO old_pkey")
    bench.sql("CREATE TABLE meter (LIKE old INCLUDING ALL); ALTER TABLE meter RENAME CONSTRAINT meter_pkey TO k;"
              "ALTER TABLE meter RENAME CONSTRAINT k TO meter_pkey")  # fmt: skip
    bench.write([value(4)])
    assert bench.sql("SELECT whole FROM meter") == [4]
    assert bench.counters() == (2, 2, 0)


# --- at the same time -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [1, WARM])
def test_a_batch_that_waits_for_an_alter_sees_it(bench: Bench, batches: int) -> None:
    """The batch's statement waits for the lock. It then compares the table as the ALTER left it."""
    for _ in range(batches):
        bench.write([value()])
    outcome: list[Any] = []

    def write() -> None:
        try:
            outcome.append(bench.write([value()]))
        except SchemaMismatch as error:
            outcome.append(error)

    with psycopg.connect(bench.url) as other:
        other.execute("ALTER TABLE meter ALTER whole TYPE double precision")
        writer = threading.Thread(target=write)
        writer.start()
        wait_for("the batch to wait", lambda: bench.sql("SELECT 1 FROM pg_locks WHERE NOT granted"))
    writer.join()
    assert isinstance(outcome[0], SchemaMismatch), outcome
    assert "column whole is double precision, declared as bigint" in outcome[0].message
    assert bench.counters() == (batches, batches, 0)
    assert set(bench.sql("SELECT whole FROM meter")) == {3}


@pytest.mark.parametrize("batches", [0, WARM])
@pytest.mark.parametrize("altered", ["meter ALTER whole TYPE double precision", "ingest.dead_letter ADD x int"])
def test_no_session_alters_a_table_between_comparison_and_commit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, altered: str, batches: int
) -> None:
    for _ in range(batches):
        bench.write([value()])
    refused: list[str] = []
    inserts = bench.session._writer._inserts
    rows = inserts.rows

    def alter_first(*arguments: Any) -> int:
        with psycopg.connect(bench.url) as other:
            other.execute("SET lock_timeout = '100ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                other.execute(f"ALTER TABLE {altered}")
            refused.append(altered)
        return rows(*arguments)

    monkeypatch.setattr(inserts, "rows", alter_first)
    bench.write([value()])
    assert refused == [altered]
    assert bench.counters() == (batches + 1, batches + 1, 0)


# --- dead letters, redrive and replay -------------------------------------------------------------------------------


def test_a_dead_letter_table_of_another_type_stops_the_next_batch(bench: Bench) -> None:
    bench.write([value(), BAD])
    bench.sql("ALTER TABLE ingest.dead_letter ALTER kafka_timestamp_ms TYPE double precision")
    with pytest.raises(
        SchemaMismatch, match=r"column kafka_timestamp_ms of ledger table ingest\.dead_letter is double"
    ):
        bench.write([value(), BAD])
    with pytest.raises(SchemaMismatch, match="kafka_timestamp_ms"):
        bench.new_session("another")
    assert bench.counters() == (2, 1, 1)
    bench.sql("ALTER TABLE ingest.dead_letter ALTER kafka_timestamp_ms TYPE bigint")
    bench.write([value(), BAD])
    assert bench.counters() == (4, 2, 2)


def test_a_redrive_stops_at_another_type(bench: Bench) -> None:
    letters = bench.refuse([value(7)])
    bench.sql("ALTER TABLE meter ALTER real TYPE bigint")
    with pytest.raises(SchemaMismatch, match="column real is bigint"):
        letters.redrive(LetterFilter(), DECODE)
    assert bench.sql("SELECT status FROM ingest.dead_letter") == ["open"]
    bench.sql("ALTER TABLE meter ALTER real TYPE double precision")
    assert letters.redrive(LetterFilter(), DECODE).stored == 1
    assert bench.sql("SELECT whole, real FROM meter") == [(7, 1.5)]


def test_a_replay_stops_at_another_type(bench: Bench) -> None:
    bench.write([value(7), value(8)])
    bench.sql("DELETE FROM meter WHERE kafka_offset = 1")
    store = MissingRows(bench.database, METER)
    bench.sql("ALTER TABLE meter ALTER whole TYPE double precision")
    records = [message(0, 0, value(7)), message(0, 1, value(8))]
    batch = make_batch({0: Position(0, 1, NextOffset(0))}, records, stream=METER, decode=DECODE)
    with pytest.raises(SchemaMismatch, match="column whole is double precision"):
        store.store(batch)
    assert bench.offsets() == [0]
    bench.sql("ALTER TABLE meter ALTER whole TYPE bigint")
    assert store.store(batch).stored == 1
    assert bench.sql("SELECT whole FROM meter ORDER BY 1") == [7, 8]


# --- columns that no field fills ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "change", "column"),
    [
        ("ADD note text DEFAULT ''", "ALTER note SET NOT NULL, ALTER note DROP DEFAULT", "note"),
        ("ADD note text NOT NULL DEFAULT ''", "ALTER note DROP DEFAULT", "note"),
        ("ADD number bigint GENERATED ALWAYS AS IDENTITY", "ALTER number DROP IDENTITY", "number"),
        ("ALTER ingested_at SET DEFAULT now()", "ALTER ingested_at DROP DEFAULT", "ingested_at"),
        ("ADD note never_null DEFAULT ''", "ALTER note DROP DEFAULT", "note"),
        ("ADD note text NOT NULL DEFAULT ''", "ALTER note SET DEFAULT nullif('a', 'a')", "note"),
    ],
)
def test_a_column_that_nothing_fills_is_no_records_fault(bench: Bench, before: str, change: str, column: str) -> None:
    bench.sql("CREATE DOMAIN never_null AS text NOT NULL")
    bench.sql(f"ALTER TABLE meter {before}")
    bench.write([value()])
    bench.sql(f"ALTER TABLE meter {change}")
    with pytest.raises(SchemaMismatch, match=f"column {column} is NOT NULL"):
        bench.write([value(), value()])
    assert bench.letters() == {}
    assert bench.counters() == (1, 1, 0)
    bench.sql(f"ALTER TABLE meter ALTER {column} SET DEFAULT {'now()' if column == 'ingested_at' else '1'}")
    bench.write([value(), value()])
    assert bench.counters() == (3, 3, 0)


@pytest.mark.parametrize(
    "filling",
    [
        "ADD note text GENERATED ALWAYS AS (text || '!') STORED NOT NULL",
        "ADD note text NOT NULL DEFAULT ''; CREATE FUNCTION look_up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " new.note := new.text; RETURN new; END $$; CREATE TRIGGER look_up BEFORE INSERT ON meter FOR EACH ROW"
        " EXECUTE FUNCTION look_up()",
        "ALTER text SET NOT NULL",
    ],
)
def test_a_null_that_comes_of_the_record_is_its_own_fault(bench: Bench, filling: str) -> None:
    bench.sql(f"ALTER TABLE meter {filling}")
    full = msgspec.json.encode({"event_time": "2026-01-01T00:00:00Z", "whole": 1, "text": "a"})
    bench.write([full, value(), full])
    assert bench.offsets() == [0, 2]
    assert list(bench.letters()) == [1]


def test_a_new_declared_bound_is_the_records_matter(bench: Bench) -> None:
    bench.write([value(1)])
    bench.sql("ALTER TABLE meter ADD CONSTRAINT below_five CHECK (whole < 5)")
    bench.write([value(2), value(9)])
    assert bench.offsets() == [0, 1]
    assert list(bench.letters()) == [2]


def test_of_two_reasons_the_row_that_is_there_counts(bench: Bench) -> None:
    """The ledger was set back. A new CHECK refuses the stored rows before their key can."""
    bench.write([value(9)])
    bench.reopen()
    bench.sql('UPDATE ingest.position SET next_offset = 0, "rows" = 0')
    bench.sql("ALTER TABLE meter ADD CONSTRAINT below_five CHECK (whole < 5) NOT VALID")
    with pytest.raises(LedgerConflict, match="partition 0 offset 0: a row with these Kafka coordinates"):
        bench.write([value(9)])
    assert bench.letters() == {}
