"""Streams into a table that exists: no column of ours, types that are converted, and refusals by name."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest

from ingest_pipeline.core.errors import LedgerConflict, SchemaMismatch, SettingsError
from ingest_pipeline.core.ledger import Redriven
from ingest_pipeline.core.record import NextOffset
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.postgres import schema
from ingest_pipeline.postgres.dead_letters import DeadLetters
from ingest_pipeline.postgres.table_reads import newest
from ingest_pipeline_tests.integration.postgres_bench import Bench
from ingest_pipeline_tests.samples import BAD, IDENTITY

METHODS = ["copy", "executemany"]
ORDERS = """
    CREATE TABLE orders (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, number text NOT NULL UNIQUE, amount numeric NOT NULL,
        doubled numeric GENERATED ALWAYS AS (amount * 2) STORED, created timestamptz NOT NULL DEFAULT now(),
        state text NOT NULL DEFAULT 'new')"""


class Order(msgspec.Struct):
    number: str
    amount: Decimal


ORDER = Stream("order", Order, table="orders", coordinates=False)


def order(number: str, amount: str = "1") -> bytes:
    return json.dumps({"number": number, "amount": amount}).encode()


@pytest.fixture(params=METHODS)
def bench(database_url: str, request: pytest.FixtureRequest) -> Iterator[Bench]:
    with Bench(database_url, ORDER, method=request.param) as made:
        made.sql(ORDERS)
        yield made.begin()


def test_a_table_needs_none_of_our_columns(bench: Bench) -> None:
    assert bench.differences() == []
    assert bench.remarks() == []
    bench.write([order("a", "1.5"), BAD, order("b")])
    assert bench.sql("SELECT id, number, amount, doubled, state FROM orders ORDER BY 1") == [
        (1, "a", Decimal("1.5"), Decimal("3.0"), "new"),
        (2, "b", Decimal(1), Decimal(2), "new"),
    ]
    assert bench.counters() == (3, 2, 1)


def test_a_duplicate_of_the_tables_own_key_is_one_dead_letter(bench: Bench) -> None:
    bench.write([order("a"), order("b"), order("a"), order("c")])
    assert bench.sql("SELECT number FROM orders ORDER BY 1") == ["a", "b", "c"]
    assert bench.letters() == {2: ("unique violation (23505), constraint orders_number_key", "23505")}
    assert bench.counters() == (4, 3, 1)
    assert bench.redrive() == Redriven(refused=1)
    bench.sql("DELETE FROM orders WHERE number = 'a'")
    assert bench.redrive() == Redriven(stored=1)
    assert bench.redrive() == Redriven()
    assert bench.sql("SELECT number FROM orders ORDER BY 1") == ["a", "b", "c"]


def test_the_window_of_the_limit_comes_from_the_ledger(bench: Bench) -> None:
    bench.write([order("a"), BAD, order("b"), BAD])
    recent = bench.session.connection.connection.execute(
        bench.session._sql.recent, {"stream": "order", "partitions": [0], "window": 3}
    )
    assert [(row.kafka_offset, row.reason is not None) for row in recent] == [(3, True), (2, False), (1, True)]
    bench.session.connection.connection.rollback()
    refusals = DeadLetters(bench.database, bench.stream).refusals(3, None)
    assert (refusals.records, refusals.refused) == (3, 2)


def test_what_needs_coordinates_is_refused_with_the_reason(bench: Bench) -> None:
    with pytest.raises(SettingsError, match="order has coordinates=False: its newest rows"):
        newest(bench.database, bench.stream, 5)


def test_a_trigger_that_drops_a_row_is_a_remark(bench: Bench) -> None:
    bench.sql("CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    bench.write([order("a"), BAD])
    bench.sql("CREATE TRIGGER sieve BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION nothing()")
    (remark,) = bench.remarks()
    assert remark.endswith(
        "may change or drop rows before they are stored, and the ledger counts a dropped row as stored"
    )
    bench.write([order("b")])
    assert bench.counters() == (3, 2, 1)
    assert bench.redrive() == Redriven(refused=1)


def test_migrate_neither_creates_nor_alters_the_table(database_url: str) -> None:
    with Bench(database_url, ORDER) as bench:
        for _ in range(2):
            with pytest.raises(
                SchemaMismatch, match=r"table public\.orders does not exist, and no table is created"
            ) as no:
                schema.migrate(bench.database, [ORDER])
            assert "`ingest migrate` adds" not in no.value.message
        with pytest.raises(SchemaMismatch, match="`ingest schema order` prints it"):
            bench.ledger.prepare()
        bench.sql("CREATE TABLE orders (number text)")
        with pytest.raises(
            SchemaMismatch, match=r'column amount numeric is not there: ALTER TABLE "public"\."orders" ADD'
        ):
            schema.migrate(bench.database, [ORDER])
        bench.sql("ALTER TABLE orders ADD amount numeric, ADD place text NOT NULL")
        with pytest.raises(SchemaMismatch, match="column place is NOT NULL without a default"):
            schema.migrate(bench.database, [ORDER])


def test_a_renamed_stream_is_refused_by_the_other_streams_positions(bench: Bench) -> None:
    renamed = replace(ORDER, name="renamed", topic="order")
    with Bench(bench.url, renamed) as other:
        other.ledger.prepare()
        with pytest.raises(LedgerConflict, match=r"table public\.orders may hold rows of topic order already"):
            other.ledger.begin(IDENTITY, {0: NextOffset(0)}, first=True)


class Everything(msgspec.Struct):
    name: str | None = None
    code: str | None = None
    mood: str | None = None
    tag: str | None = None
    post: str | None = None
    small: int | None = None
    middle: int | None = None
    exact: int | None = None
    rough: float | None = None
    price: Decimal | None = None
    seen: datetime | None = None
    rounded: datetime | None = None
    plain: dict[str, Any] | None = None
    numbers: list[int] | None = None
    words: list[str] | None = None
    reals: list[float | None] | None = None
    flags: list[bool] | None = None
    document: list[int] | None = None
    day: date | None = None
    key: UUID | None = None
    level: int | None = None


EVERYTHING = Stream("everything", Everything, coordinates=False, timestamp_zone="Europe/Berlin")
TABLE = """
    CREATE TYPE citext;
    CREATE FUNCTION citextin(cstring) RETURNS citext AS 'textin' LANGUAGE internal IMMUTABLE STRICT;
    CREATE FUNCTION citextout(citext) RETURNS cstring AS 'textout' LANGUAGE internal IMMUTABLE STRICT;
    CREATE FUNCTION citextrecv(internal) RETURNS citext AS 'textrecv' LANGUAGE internal STABLE STRICT;
    CREATE FUNCTION citextsend(citext) RETURNS bytea AS 'textsend' LANGUAGE internal STABLE STRICT;
    CREATE TYPE citext (
        INPUT = citextin, OUTPUT = citextout, RECEIVE = citextrecv, SEND = citextsend, LIKE = text, CATEGORY = 'S');
    CREATE TYPE mood AS ENUM ('glad', 'sad');
    CREATE DOMAIN post AS varchar(5) CHECK (value ~ '^[0-9]+$');
    CREATE DOMAIN level AS smallint CHECK (value > 0);
    CREATE DOMAIN high AS level CHECK (value > 10);
    CREATE TABLE everything (
        name varchar(5), code char(3), mood mood, tag citext, post post, small smallint, middle integer,
        exact numeric(4), rough real, price numeric(6,2), seen timestamp, rounded timestamptz(3), plain json,
        numbers int[], words varchar(3)[], reals real[], flags boolean[], document jsonb, day date, key uuid,
        level high, made timestamptz NOT NULL DEFAULT now())"""
"""The type citext is made as its extension makes it, because the embedded PostgreSQL has no contrib modules."""
GOOD: dict[str, tuple[Any, Any]] = {
    "name": ("añb😀c", "añb😀c"),
    "code": ("ab", "ab "),
    "mood": ("sad", "sad"),
    "tag": ("Tag", "Tag"),
    "post": ("12345", "12345"),
    "small": (-32768, -32768),
    "middle": (2147483647, 2147483647),
    "exact": (9999, Decimal(9999)),
    "rough": (0.1, 0.1),
    "price": ("1234.50", Decimal("1234.50")),
    "seen": ("2026-07-01T12:00:00.123456Z", datetime(2026, 7, 1, 14, 0, 0, 123456)),
    "rounded": ("2026-07-01T12:00:00.123Z", None),
    "plain": ({"b": 1, "a": [1.0, None]}, {"b": 1, "a": [1.0, None]}),
    "numbers": ([1, -2147483648], [1, -2147483648]),
    "words": (["abc", ""], ["abc", ""]),
    "reals": ([0.5, None], [0.5, None]),
    "flags": ([True, False], [True, False]),
    "document": ([1], [1]),
    "day": ("2026-07-01", date(2026, 7, 1)),
    "key": ("12345678-1234-5678-1234-567812345678", UUID("12345678-1234-5678-1234-567812345678")),
    "level": (11, 11),
}
REFUSED: dict[str, tuple[Any, str]] = {
    "name": ("sechs!", "value does not fit column name character varying(5)"),
    "code": ("abcd", "value does not fit column code character(3)"),
    "mood": ("angry", "invalid text representation (22P02)"),
    "post": ("a", "check violation (23514), constraint post_check"),
    "small": (32768, "value does not fit column small smallint"),
    "middle": (-2147483649, "value does not fit column middle integer"),
    "exact": (10000, "value does not fit column exact numeric(4,0)"),
    "rough": (1e39, "value does not fit column rough real"),
    "price": ("1.005", "value does not fit column price numeric(6,2)"),
    "rounded": ("2026-07-01T12:00:00.1234Z", "value does not fit column rounded timestamp(3) with time zone"),
    "numbers": ([1, 2147483648], "value does not fit column numbers integer[]"),
    "words": (["abcd"], "value does not fit column words character varying(3)[]"),
    "reals": ([1e39], "value does not fit column reals real[]"),
    "level": (1, "check violation (23514), constraint high_check"),
}
MORE_REFUSED = {
    "name": ["abcde "],
    "small": [-32769],
    "exact": [-10000, 9223372036854775807],
    "rough": [1e-60, -1e39],
    "price": ["10000", "0.001", "-1E-300", "1E+300"],
    "level": [40000, 0],
}


@pytest.fixture(params=METHODS)
def wide(database_url: str, request: pytest.FixtureRequest) -> Iterator[Bench]:
    with Bench(database_url, EVERYTHING, method=request.param) as made:
        made.sql(TABLE)
        yield made.begin()


def one(field: str, value: Any) -> bytes:
    return json.dumps({field: value}).encode()


def test_each_type_takes_its_values_unchanged(wide: Bench) -> None:
    assert wide.differences() == []
    assert wide.remarks() == ["column rough is real, which keeps about 6 digits of a number"]
    values = [one(field, value) for field, (value, _) in GOOD.items()]
    wide.write(values)
    assert wide.letters() == {}
    for field, (_, stored) in GOOD.items():
        (actual,) = wide.sql(f"SELECT {field} FROM everything WHERE {field} IS NOT NULL")
        if stored is not None:
            assert actual == stored, field
    assert wide.sql("SELECT plain::text FROM everything WHERE plain IS NOT NULL") == ['{"b": 1, "a": [1.0, null]}']
    assert wide.sql("SELECT count(*) FROM everything WHERE rounded = '2026-07-01 12:00:00.123+00'") == [1]
    wide.write([json.dumps({field: value for field, (value, _) in GOOD.items()}).encode()])
    assert wide.counters() == (len(GOOD) + 1, len(GOOD) + 1, 0)


def test_a_value_that_does_not_fit_is_one_dead_letter(wide: Bench) -> None:
    values = [one(field, value) for field, (value, _) in REFUSED.items()]
    between = [record for value in values for record in (value, b"{}")]
    wide.write(between)
    letters = wide.letters()
    assert sorted(letters) == list(range(0, len(between), 2))
    for letter, (field, (_, reason)) in zip(sorted(letters.items()), REFUSED.items(), strict=True):
        assert letter[1][0].startswith(reason), field
    assert wide.sql("SELECT count(*) FROM everything") == [len(values)]
    more = [one(field, value) for field, values in MORE_REFUSED.items() for value in values]
    wide.write(more)
    assert wide.counters() == (len(between) + len(more), len(values), len(values) + len(more))
    assert wide.redrive() == Redriven(refused=len(values) + len(more))
    wide.sql("ALTER TABLE everything ALTER name TYPE text, ALTER price TYPE numeric, ALTER small TYPE bigint")
    assert wide.redrive().stored == 3 + 1 + 1 + 4
    wide.write([one("name", "x" * 100), one("small", 1 << 40)])
    assert wide.sql("SELECT max(small), max(length(name)) FROM everything") == [(1 << 40, 100)]


UNSUITABLE = {
    "name": ["integer", "name", '"char"', "bytea", "inet", "xml", "uuid", "text[]"],
    "small": ["text", "double precision", "real", "boolean", "money", "oid"],
    "rough": ["numeric", "integer"],
    "price": ["double precision", "money", "bigint"],
    "seen": ["date", "time", "text", "bigint"],
    "day": ["timestamp", "timestamptz"],
    "plain": ["text", "jsonb[]", "int[]"],
    "numbers": ["text[]", "numeric[]", "real[]"],
    "words": ["char(3)[]", "mood[]", "post[]", "int[]"],
    "key": ["text", "bytea"],
}


def test_other_types_are_refused_by_name_before_anything_is_read(database_url: str) -> None:
    with Bench(database_url, EVERYTHING) as bench:
        bench.sql(TABLE)
        for column, types in UNSUITABLE.items():
            for type_ in types:
                bench.sql(f"ALTER TABLE everything DROP {column}, ADD {column} {type_}")
                (difference,) = bench.differences()
                (shown,) = bench.sql(f"SELECT format_type('{type_}'::regtype, NULL)")
                if "(" not in type_:
                    assert difference.startswith(f"column {column} is {shown}, and "), difference
                with pytest.raises(SchemaMismatch, match=f"column {column} is "):
                    bench.ledger.prepare()
            (type_,) = [line.split(None, 1)[1] for line in _columns() if line.split()[0] == column]
            bench.sql(f"ALTER TABLE everything DROP {column}, ADD {column} {type_}")
        assert bench.differences() == []


def _columns() -> list[str]:
    body = TABLE.split("CREATE TABLE everything (")[1].removesuffix(")").replace("(6,2)", "(6;2)")
    return [column.strip().replace(";", ",") for column in body.split(",")]


def test_a_timestamp_without_zone_needs_the_zone(database_url: str) -> None:
    with Bench(database_url, replace(EVERYTHING, timestamp_zone="")) as bench:
        bench.sql(TABLE)
        (difference,) = bench.differences()
        assert 'names no instant: declare whose clock its values show, as timestamp_zone="UTC"' in difference


@pytest.mark.parametrize("method", METHODS)
def test_a_view_with_an_instead_of_trigger_works(database_url: str, method: str) -> None:
    with Bench(database_url, ORDER, method=method) as bench:
        bench.sql(ORDERS.replace("orders", "base"))
        bench.sql("CREATE VIEW orders AS SELECT number, amount FROM base")
        (difference,) = bench.differences()
        assert difference == (
            "public.orders is a view without an INSTEAD OF INSERT trigger for each row: create it, or name the table"
            " behind the view"
        )
        bench.sql("""
            CREATE FUNCTION put() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
            BEGIN INSERT INTO base (number, amount) VALUES (new.number, new.amount); RETURN new; END $$;
            CREATE TRIGGER put INSTEAD OF INSERT ON orders FOR EACH ROW EXECUTE FUNCTION put()""")
        assert bench.differences() == []
        bench.begin()
        bench.write([order("a"), BAD, order("a"), order("b")])
        assert bench.sql("SELECT number FROM base ORDER BY 1") == ["a", "b"]
        assert bench.counters() == (4, 2, 2)
        bench.sql("DELETE FROM base WHERE number = 'a'")
        assert bench.redrive() == Redriven(stored=1, refused=1)


def test_a_foreign_table_is_refused_because_its_commit_is_elsewhere(database_url: str) -> None:
    with Bench(database_url, ORDER) as bench:
        bench.sql("CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER files FOREIGN DATA WRAPPER nothing")
        bench.sql("CREATE FOREIGN TABLE orders (number text, amount numeric) SERVER files")
        (difference,) = bench.differences()
        assert "a foreign table, whose COMMIT is another server's, so exactly once cannot hold" in difference


def test_a_materialized_view_is_refused(database_url: str) -> None:
    with Bench(database_url, ORDER) as bench:
        bench.sql("CREATE MATERIALIZED VIEW orders AS SELECT 'a' AS number, 1.0 AS amount")
        (difference,) = bench.differences()
        assert difference.startswith("public.orders is a materialized view: give the stream a table of its own")


def test_a_partitioned_table_of_any_key_works(database_url: str) -> None:
    with Bench(database_url, ORDER) as bench:
        bench.sql("CREATE TABLE orders (number text PRIMARY KEY, amount numeric) PARTITION BY LIST (number)")
        bench.sql("CREATE TABLE a PARTITION OF orders FOR VALUES IN ('a')")
        bench.begin()
        bench.write([order("a"), order("b")])
        assert bench.letters() == {
            1: ("no partition of table orders for this row (23514): create it, then redrive", "23514")
        }
