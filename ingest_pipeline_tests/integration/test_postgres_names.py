"""Names of tables, columns and schemas are quoted as identifiers everywhere."""

from dataclasses import replace
from datetime import datetime

import msgspec
import pytest

from ingest_pipeline.core.column_names import SYSTEM_COLUMNS
from ingest_pipeline.core.errors import DatabaseUnavailable, NotPermitted
from ingest_pipeline.core.ledger import LetterFilter
from ingest_pipeline.core.record import NextOffset
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.postgres import comparison, rights, schema
from ingest_pipeline.postgres.dead_letters import DeadLetters
from ingest_pipeline.postgres.sql import Schemas
from ingest_pipeline.postgres.table_reads import newest
from ingest_pipeline_tests.integration.postgres_bench import Bench, PlainRole
from ingest_pipeline_tests.samples import BAD, IDENTITY, READING, good, message

pytestmark = pytest.mark.empty_database

ODD = [
    *('a"b', "select", "é", "é" * 31 + "x", "x" * 63, "x; drop table", "100%", "%s"),
    *("a:b", "a::b", ":x", "a :x", "{ledger}", "$1", "A", "\\"),
]


def named(name: str) -> Stream:
    """A column name must be a Python name."""
    fields = [(name if name.isidentifier() else "text", str, msgspec.field(name="value")), ("event_time", datetime)]
    return Stream("odd", msgspec.defstruct("Odd", fields), table=name)


@pytest.mark.parametrize("method", ["copy", "executemany"])
@pytest.mark.parametrize("name", ODD)
def test_any_name_works_for_table_column_and_schemas(database_url: str, name: str, method: str) -> None:
    schemas = Schemas(events=name, ledger=f"{name[:15]}_ledger")
    with Bench(database_url, named(name), schemas=schemas, method=method) as bench:
        bench.begin()
        value = b'{"value": "100%% %s \\" :x", "event_time": "2026-01-01T00:00:00Z"}'
        bench.write([value])
        bench.write([value, BAD, value])
        tables = set(bench.sql("SELECT table_schema, table_name FROM information_schema.tables"))
        assert {(name, name), (schemas.ledger, "position")} <= tables
        position = bench.ledger.positions()[0]
        assert (position.next_offset, position.rows, position.dead_letters) == (4, 3, 1)
        bench.ledger.pause("why", "ann")
        assert bench.session.connection.heartbeat()[bench.stream.name].paused == "why (ann)"
        assert bench.ledger.begin(IDENTITY, {1: NextOffset(0)}, first=False)
        with bench.database.connect("looking") as connection:
            assert comparison.table_differences(connection, bench.stream, name) == []
            assert rights.missing_rights(connection, [bench.stream], schemas) == []


@pytest.mark.parametrize("method", ["copy", "executemany"])
def test_a_table_in_a_schema_of_its_own(database_url: str, method: str) -> None:
    stream = replace(READING, table="telemetry.readings")
    with Bench(database_url, READING) as other, Bench(database_url, stream, method=method) as bench:
        other.begin()
        bench.sql("DELETE FROM ingest.position")
        bench.sql("ALTER ROLE CURRENT_USER SET search_path = public")
        with bench.database.connect("looking") as connection:
            assert 'GRANT USAGE ON SCHEMA "telemetry" TO "postgres"' in rights.missing_rights(
                connection, [stream], bench.database.schemas, absent_too=True
            )
            assert rights.may_look(connection, bench.database.schemas, [stream])
            assert rights.may_create(connection, bench.database.schemas, [stream])
        bench.begin()
        bench.write([good(), BAD, good()])
        assert bench.sql("SELECT kafka_offset FROM telemetry.readings ORDER BY 1") == [0, 2]
        assert other.offsets() == []
        assert bench.sql("SELECT event_table FROM ingest.incarnation") == ["public.reading", "telemetry.readings"]
        assert bench.differences() == []
        letters = DeadLetters(bench.database, stream)
        assert letters.redrive(LetterFilter(), lambda value: bench.batch([message(0, 9)]).rows[0][4:]).stored == 1
        assert len(newest(bench.database, stream, 5)[1]) == 3
        more = replace(stream, event=msgspec.defstruct("More", [("place", str | None, None)], bases=(READING.event,)))
        with bench.database.engine.begin() as holder:
            holder.exec_driver_sql("SELECT FROM telemetry.readings")
            with pytest.raises(DatabaseUnavailable, match=r"Held by session \d+ .*: readings"):
                schema.migrate(bench.database, [more])
        assert schema.migrate(bench.database, [more]) == ["added column telemetry.readings.place"]


def test_a_schema_that_the_role_may_not_create(database_url: str) -> None:
    with Bench(database_url, replace(READING, table="telemetry.readings")) as owner:
        schema.migrate(owner.database, [])
        with PlainRole(owner, "USAGE ON SCHEMA ingest", "ALL ON ALL TABLES IN SCHEMA ingest") as role:
            with pytest.raises(NotPermitted, match="a role that may create schemas and tables"):
                role.bench.ledger.prepare()
            with role.bench.database.connect("looking") as connection:
                assert not rights.may_create(connection, owner.database.schemas, [owner.stream])


def test_the_system_columns_are_those_of_postgresql(database_url: str) -> None:
    with Bench(database_url, named("odd")) as bench:
        bench.begin()
        there = bench.sql("SELECT attname::text FROM pg_attribute WHERE attrelid = 'odd'::regclass AND attnum < 0")
        assert set(there) == set(SYSTEM_COLUMNS)


def test_a_column_is_added_to_a_table_of_any_name(database_url: str) -> None:
    name = 'a:b %s "c'
    with Bench(database_url, named(name), schemas=Schemas(events=name)) as bench:
        bench.begin()
        more = msgspec.defstruct("More", [("é", str | None, None)], bases=(bench.stream.event,), kw_only=True)
        stream = Stream("odd", more, table=name)
        assert schema.migrate(bench.database, [stream]) == [f"added column {name}.{name}.é"]


def test_two_tables_whose_long_names_differ_at_the_end(database_url: str) -> None:
    with Bench(database_url) as bench:
        bench.begin()
        streams = [Stream(f"s{end}", bench.stream.event, table="x" * 62 + end) for end in "12"]
        schema.migrate(bench.database, streams)
        indexes = bench.sql("SELECT indexname FROM pg_indexes WHERE tablename LIKE 'xxx%%'")
        assert len(indexes) == 4
