"""`ingest migrate --dry-run` prints what `ingest migrate` does, and what it leaves to people."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

import msgspec
import psycopg
import pytest
from click.testing import CliRunner

from ingest_pipeline.cli.main import main
from ingest_pipeline.core.errors import SchemaMismatch
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.postgres import schema
from ingest_pipeline.postgres.migration_plan import planned
from ingest_pipeline_tests.integration.postgres_bench import Bench
from ingest_pipeline_tests.samples import good

pytestmark = pytest.mark.empty_database


class Sale(msgspec.Struct):
    """A sale of 100 % and its parts: all of them."""

    event_time: datetime
    price: Decimal
    item: int
    label: str
    note: str | None = None


SALE = Stream("sale", Sale)
VALUE = b'{"event_time": "2026-01-01T00:00:00.123456Z", "price": "12.345678", "item": 9000000000, "label": "abcdef"}'
NARROW = """
    ALTER TABLE sale ALTER item TYPE int, ALTER label TYPE varchar(3), ALTER price TYPE numeric(6,2),
        ALTER event_time TYPE timestamptz(0), ALTER note SET NOT NULL, ALTER kafka_offset TYPE int"""
WIDENED = {
    'ALTER TABLE "public"."sale" ALTER COLUMN "kafka_offset" TYPE bigint;': "kafka_offset from integer to bigint",
    'ALTER TABLE "public"."sale" ALTER COLUMN "event_time" TYPE timestamp with time zone;': (
        "event_time from timestamp(0) with time zone to timestamp with time zone"
    ),
    'ALTER TABLE "public"."sale" ALTER COLUMN "price" TYPE numeric;': "price from numeric(6,2) to numeric",
    'ALTER TABLE "public"."sale" ALTER COLUMN "item" TYPE bigint;': "item from integer to bigint",
    'ALTER TABLE "public"."sale" ALTER COLUMN "label" TYPE text;': "label from character varying(3) to text",
}


@pytest.fixture
def bench(database_url: str) -> Iterator[Bench]:
    with Bench(database_url, SALE) as made:
        yield made


def test_the_plan_of_an_empty_database_creates_the_same_table(bench: Bench) -> None:
    stream = replace(SALE, table="shop.sale")
    ledger, create_schema, *table = planned(bench.database, [stream])
    assert ledger == f"-- the ledger ingest goes from nothing to version {schema.LEDGER_VERSION}"
    assert create_schema == 'CREATE SCHEMA "shop";'
    assert bench.sql("SELECT to_regclass('shop.sale'), to_regnamespace('ingest')") == [(None, None)]
    bench.sql("\n".join([create_schema, *table]))
    schema.migrate(bench.database, [])
    assert planned(bench.database, [stream]) == []
    assert schema.migrate(bench.database, [stream]) == []


def test_columns_are_widened_and_not_null_is_dropped_as_planned(bench: Bench) -> None:
    bench.begin()
    bench.sql(NARROW)
    bench.sql("INSERT INTO sale VALUES (1, 0, 7, now(), 1.25, 4, 'abc', 'x')")
    statements = [*WIDENED, 'ALTER TABLE "public"."sale" ALTER COLUMN "note" DROP NOT NULL;']
    assert planned(bench.database, [SALE]) == statements
    assert len(bench.differences()) == len(WIDENED)
    assert schema.migrate(bench.database, [SALE]) == [
        *(f"widened column public.sale.{change}" for change in WIDENED.values()),
        "dropped NOT NULL of column public.sale.note",
    ]
    assert planned(bench.database, [SALE]) == bench.differences() == schema.migrate(bench.database, [SALE]) == []
    bench.write([VALUE])
    assert bench.sql("SELECT price, item, label, note FROM sale ORDER BY kafka_offset") == [
        (Decimal("12.345678"), 9000000000, "abcdef", None),
        (Decimal("1.25"), 4, "abc", "x"),
    ]


def test_the_printed_statements_do_the_same(bench: Bench) -> None:
    bench.begin()
    bench.sql(f"{NARROW}, DROP ingested_at")
    bench.sql("\n".join(planned(bench.database, [SALE])))
    assert planned(bench.database, [SALE]) == bench.differences() == []


def test_other_differences_are_printed_and_not_run(bench: Bench) -> None:
    bench.begin()
    bench.sql("ALTER TABLE sale ALTER item TYPE text, ALTER label TYPE varchar(3), ADD must text NOT NULL")
    widen, *by_hand = planned(bench.database, [SALE])
    assert widen == 'ALTER TABLE "public"."sale" ALTER COLUMN "label" TYPE text;'
    assert [line.split(" is ")[0] for line in by_hand] == [
        "-- by hand, for stream sale: column item",
        "-- by hand, for stream sale: column must",
    ]
    assert not any("\n" in line for line in by_hand)
    with pytest.raises(SchemaMismatch, match="column item is text, declared as bigint"):
        schema.migrate(bench.database, [SALE])
    assert bench.sql(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = 'sale'::regclass AND attname = 'label'"
    ) == ["character varying(3)"]


def test_a_column_that_a_view_uses_is_left_with_the_statement(bench: Bench) -> None:
    bench.begin()
    bench.sql("ALTER TABLE sale ALTER item TYPE int; CREATE VIEW items AS SELECT item FROM sale")
    with pytest.raises(SchemaMismatch, match=r'ALTER COLUMN "item" TYPE bigint fails: .*used by a view') as refused:
        schema.migrate(bench.database, [SALE])
    assert "\n" not in refused.value.message


def test_a_table_that_exists_is_only_compared(bench: Bench) -> None:
    bench.begin()
    (line,) = planned(bench.database, [replace(SALE, name="other", table="nothing", coordinates=False)])
    assert line.startswith("-- by hand, for stream other: table public.nothing does not exist")
    bench.sql("CREATE TABLE nothing AS SELECT event_time, price, item::text, label FROM sale")
    lines = planned(bench.database, [replace(SALE, name="other", table="nothing", coordinates=False)])
    assert [line.split()[7] for line in lines] == ["note", "item"]


def test_a_session_of_the_older_declaration_goes_on(database_url: str) -> None:
    with Bench(database_url) as bench:
        bench.begin().write([good("a")])
        more = msgspec.defstruct("More", [("place", str | None, None)], bases=(bench.stream.event,))
        newer = replace(bench.stream, event=more)
        bench.sql("ALTER TABLE reading ADD place varchar(2)")
        bench.write([good("b")])
        assert len(schema.migrate(bench.database, [newer])) == 1
        bench.write([good("c")])
        bench.sql("ALTER TABLE reading DROP place")
        assert schema.migrate(bench.database, [newer]) == ["added column public.reading.place"]
        bench.write([good("d")])
        assert bench.counters() == (4, 4, 0)


def test_the_command_prints_statements_for_psql(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", bench.url)
    dry = CliRunner().invoke(main, ["migrate", "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert re.match(r"-- the ledger ingest goes from nothing to version \d+\n", dry.output)
    with psycopg.connect(bench.url) as connection:
        connection.execute(dry.output.encode())
        connection.rollback()
    CliRunner().invoke(main, ["migrate"])
    done = CliRunner().invoke(main, ["migrate", "--dry-run"])
    assert done.output == "-- nothing to do: the ledger and all tables are as declared\n"
