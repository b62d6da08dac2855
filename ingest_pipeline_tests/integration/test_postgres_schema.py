"""Tables are created, extended, and compared with their declarations. Nothing else about a table changes."""

from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest

from ingest_pipeline.core.errors import SchemaMismatch, SettingsError
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.postgres import schema
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.schema import downgrade
from ingest_pipeline.postgres.sql import Schemas
from ingest_pipeline.settings.database_url import sqlalchemy_url
from ingest_pipeline_tests.integration.postgres_bench import Bench, pasted
from ingest_pipeline_tests.samples import READING, good

pytestmark = pytest.mark.empty_database


class Wide(msgspec.Struct):
    """One field of each type."""

    event_time: datetime
    text: str
    whole: int
    real: float
    yes: bool
    day: date
    exact: Decimal
    id: UUID
    object: dict[str, Any]
    array: list[int]
    raw: bytes


WIDE = Stream("wide", Wide)


class More(msgspec.Struct):
    device_id: str
    temperature: float
    event_time: datetime = msgspec.field(name="timestamp")
    place: str | None = None
    floor: int | None = None


class Stricter(msgspec.Struct):
    device_id: str
    temperature: float
    place: str
    event_time: datetime = msgspec.field(name="timestamp")


WRONG = {
    "whole": ["integer", "smallint", "numeric"],
    "real": ["real", "numeric"],
    "text": ["varchar(10)", "char(3)"],
    "yes": ["integer"],
    "day": ["timestamp"],
    "exact": ["money", "double precision"],
    "id": ["text"],
    "object": ["json", "jsonb[]"],
    "raw": ["text"],
    "event_time": ["timestamp"],
    "kafka_offset": ["integer"],
    "kafka_partition": ["bigint"],
    "kafka_incarnation": ["integer"],
    "kafka_timestamp": ["timestamp"],
}
WIDENED = [("whole", "integer"), ("whole", "smallint"), ("text", "varchar(10)")]


@pytest.fixture
def wide(database_url: str) -> Any:
    with Bench(database_url, WIDE) as bench:
        yield bench.begin()


@pytest.mark.parametrize(("column", "kind"), [(column, kind) for column, kinds in WRONG.items() for kind in kinds])
def test_a_column_of_another_type_stops_the_stream(wide: Bench, column: str, kind: str) -> None:
    wide.sql(f"ALTER TABLE wide DROP COLUMN {column} CASCADE; ALTER TABLE wide ADD COLUMN {column} {kind}")
    for refused in (wide.new_session, wide.ledger.prepare):
        with pytest.raises(SchemaMismatch, match=rf"column {column} is .*: ALTER TABLE") as caught:
            refused()
        assert "\n" not in caught.value.message
        assert "ingest migrate" not in caught.value.message
    if (column, kind) in WIDENED:
        assert schema.migrate(wide.database, [WIDE])[0].startswith(f"widened column public.wide.{column} from ")
    else:
        with pytest.raises(SchemaMismatch, match=": ALTER TABLE"):
            schema.migrate(wide.database, [WIDE])
        for statement in pasted(caught.value.message):
            wide.sql(statement)
    wide.new_session()


def test_a_domain_is_another_type(wide: Bench) -> None:
    wide.sql("CREATE DOMAIN short AS text CHECK (length(value) < 5); ALTER TABLE wide ALTER text TYPE short")
    with pytest.raises(SchemaMismatch, match="column text is short"):
        wide.new_session()


def test_a_missing_column(wide: Bench) -> None:
    wide.sql("ALTER TABLE wide DROP COLUMN day, DROP COLUMN real")
    with pytest.raises(SchemaMismatch, match=r"column real double precision is missing; column day date is missing"):
        wide.new_session()


def test_a_missing_table(wide: Bench) -> None:
    wide.sql("DROP TABLE wide")
    with pytest.raises(SchemaMismatch, match="does not exist"):
        wide.new_session()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("DROP CONSTRAINT wide_pkey", "the primary key is none"),
        ("DROP CONSTRAINT wide_pkey, ADD PRIMARY KEY (kafka_offset)", r"the primary key is wide_pkey \(kafka_offset\)"),
        ("RENAME CONSTRAINT wide_pkey TO mine", "the primary key is mine"),
    ],
)
def test_another_primary_key_stops_the_stream(wide: Bench, change: str, message: str) -> None:
    """The key's name matters: it distinguishes a duplicate from a record's own fault."""
    wide.sql(f"ALTER TABLE wide {change}")
    with pytest.raises(SchemaMismatch, match=message) as stopped:
        wide.new_session()
    (statement,) = pasted(stopped.value.message)
    wide.sql(statement)
    wide.new_session()


def test_what_is_made(wide: Bench) -> None:
    columns = dict(wide.sql("SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'wide'"))
    assert columns == {
        "kafka_incarnation": "smallint",
        "kafka_partition": "integer",
        "kafka_offset": "bigint",
        "kafka_timestamp": "timestamp with time zone",
        "ingested_at": "timestamp with time zone",
        **{item.name: item.pg_type for item in WIDE.fields},
    }
    nullable = wide.sql(
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'wide' AND is_nullable = 'YES'"
    )
    assert nullable == ["kafka_timestamp"]
    assert set(wide.sql("SELECT indexdef FROM pg_indexes WHERE tablename = 'wide'")) == {
        "CREATE INDEX wide_event_time_brin ON public.wide USING brin (event_time)",
        "CREATE UNIQUE INDEX wide_pkey ON public.wide USING btree (kafka_incarnation, kafka_partition, kafka_offset)",
    }
    assert wide.sql("SELECT obj_description('wide'::regclass)") == ["One field of each type."]


def test_migrate_adds_columns_and_is_idempotent(database_url: str) -> None:
    with Bench(database_url) as bench:
        bench.begin().write([good("a")])
        more = Stream("reading", More)
        with pytest.raises(SchemaMismatch, match="ingest migrate"):
            schema.prepare(bench.database, [more])
        assert schema.migrate(bench.database, [more]) == [
            "added column public.reading.place",
            "added column public.reading.floor",
        ]
        assert schema.migrate(bench.database, [more, more]) == []
        assert bench.sql("SELECT device_id, place, floor FROM reading") == [("a", None, None)]
        bench.session.connection.close()
        with pytest.raises(SchemaMismatch):
            schema.migrate(bench.database, [Stream("reading", WIDE.event)])


OPTIONS = {"key_column": "key", "headers_column": "headers", "extra_column": "extra", "id_column": "id"}


def test_migrate_adds_the_columns_of_options_to_rows_that_are_there(database_url: str) -> None:
    with Bench(database_url) as bench:
        bench.begin().write([good("a"), good("b")])
        more = Stream("reading", READING.event, **OPTIONS)
        with pytest.raises(SchemaMismatch, match="column id bigint is missing; column key bytea is missing"):
            schema.prepare(bench.database, [more])
        assert schema.migrate(bench.database, [more]) == [
            f"added column public.reading.{name}" for name in ("id", "key", "headers", "extra")
        ]
        assert schema.migrate(bench.database, [more]) == []
        assert bench.sql("SELECT id, device_id, key, headers, extra FROM reading ORDER BY id") == [
            (1, "a", None, None, None),
            (2, "b", None, None, None),
        ]
        bench.session.connection.close()
        with pytest.raises(SchemaMismatch, match="column key is bytea, declared as text"):
            schema.prepare(bench.database, [Stream("reading", READING.event, key_column="key", key_type=str)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("ALTER id DROP IDENTITY", "column id is not filled by the database"),
        ("ALTER id DROP IDENTITY, ALTER id DROP NOT NULL", "column id is not filled by the database"),
        ("DROP id", "column id bigint is missing"),
        ("DROP id, ADD id int GENERATED ALWAYS AS IDENTITY", "column id is integer, declared as bigint"),
        ("ALTER headers TYPE json", "column headers is json, declared as jsonb"),
        ("ALTER extra TYPE text", "column extra is text, declared as jsonb"),
    ],
)
def test_columns_of_options_are_compared(database_url: str, change: str, message: str) -> None:
    stream = Stream("reading", READING.event, **OPTIONS)
    with Bench(database_url, stream) as bench:
        bench.begin()
        bench.sql(f"ALTER TABLE reading {change}")
        with pytest.raises(SchemaMismatch, match=message), bench.database.connect("checking") as connection:
            schema.verify_table(connection, stream, bench.database)


def test_an_id_that_is_filled_in_another_way_is_as_good(database_url: str) -> None:
    stream = Stream("reading", READING.event, id_column="id")
    with Bench(database_url, stream) as bench:
        bench.begin()
        bench.sql("ALTER TABLE reading DROP id, ADD id bigserial")
        bench.write([good(), good()])
        assert bench.sql("SELECT id FROM reading ORDER BY kafka_offset") == [1, 2]


def test_a_column_that_may_not_be_null_is_added_to_an_empty_table_only(database_url: str) -> None:
    with Bench(database_url) as bench:
        bench.begin()
        stricter = Stream("reading", Stricter)
        bench.sql("INSERT INTO reading VALUES (1, 0, 0, 'a', 1.5, now())")
        with pytest.raises(SchemaMismatch, match=r"ADD \"place\" text, or declare the field `\| None`") as caught:
            schema.migrate(bench.database, [stricter])
        assert "\n" not in caught.value.message
        bench.sql("DELETE FROM reading")
        assert schema.migrate(bench.database, [stricter]) == ["added column public.reading.place"]


def test_a_migration_that_fails_leaves_nothing(database_url: str) -> None:
    with Bench(database_url) as bench:
        bench.sql("CREATE TABLE reading (kafka_offset text)")
        with pytest.raises(SchemaMismatch):
            schema.migrate(bench.database, [WIDE, READING])
        assert bench.sql("SELECT nspname FROM pg_namespace WHERE nspname = 'ingest'") == []
        assert bench.sql("SELECT to_regclass('wide')") == [None]


def test_four_at_a_time(database_url: str) -> None:
    databases = [Database(sqlalchemy_url(database_url), Schemas("events", "ledger")) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda database: schema.migrate(database, [READING, WIDE]), databases))
    for database in databases:
        database.dispose()
    assert sorted(map(len, done)) == [0, 0, 0, 3]


def test_a_ledger_of_another_version(database_url: str) -> None:
    with Bench(database_url) as bench:
        bench.begin().sql("UPDATE ingest.schema_version SET version_num = '9999'")
        with pytest.raises(SchemaMismatch, match=r"has version 9999, this code knows 0007: newer code has migrated it"):
            bench.ledger.prepare()
        with pytest.raises(SchemaMismatch, match=r"has version 9999.*newer code has migrated it"):
            schema.migrate(bench.database, [READING])
        assert bench.sql("SELECT version_num FROM ingest.schema_version") == ["9999"]
        (line,) = [finding for finding in bench.findings() if finding.what == "ledger ingest"]
        assert (line.ok, line.message) == (
            False,
            "version 9999, newer than this code's 0007: start the newer code here",
        )


def test_a_ledger_of_the_first_version_is_brought_up_to_date(database_url: str) -> None:
    with Bench(database_url) as bench:
        bench.begin().write([good(), b"broken"])
        bench.reopen()
        downgrade(bench.database, "0001")
        assert bench.sql("SELECT to_regclass('ingest.accounting'), to_regclass('ingest.loss')") == [(None, None)]
        with pytest.raises(SchemaMismatch, match=r"has version 0001, this code needs 0007: run `ingest migrate`"):
            bench.ledger.prepare()
        assert schema.migrate(bench.database, [READING]) == ["ledger schema ingest is at version 0007"]
        bench.write([good()])
        assert bench.sql('SELECT "rows", dead_letters, accounted FROM ingest.accounting') == [(2, 1, True)]


@pytest.mark.parametrize("version", ["0007", "9999", "0000", "six"])
def test_a_ledger_goes_back_only_to_an_earlier_version(database_url: str, version: str) -> None:
    with Bench(database_url) as bench:
        bench.begin().write([good()])
        bench.session.connection.close()
        with pytest.raises(SettingsError, match=f"has version 0007, and {version} is no earlier one"):
            downgrade(bench.database, version)


def test_a_round_trip_by_one_version_keeps_every_count(database_url: str) -> None:
    with Bench(database_url) as bench:
        bench.begin().write([good(), b"broken"])
        bench.session.connection.close()
        accounting = bench.sql("SELECT * FROM ingest.accounting")
        downgrade(bench.database, "0006")
        assert bench.sql("SELECT to_regclass('ingest.alert')") == [None]
        assert bench.sql("SELECT * FROM ingest.accounting") == accounting
        schema.migrate(bench.database, [READING])
        assert bench.sql("SELECT * FROM ingest.accounting") == accounting
