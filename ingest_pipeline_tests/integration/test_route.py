"""The tables of a route, and a table of several topics, in a real PostgreSQL: names, rights, migrations, partitions."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from ingest_pipeline.core.errors import SchemaMismatch
from ingest_pipeline.core.ledger import Redriven, Replayed
from ingest_pipeline.core.roles import Role
from ingest_pipeline.core.route import Route
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.postgres import acceptance, schema
from ingest_pipeline.postgres.migration_plan import planned
from ingest_pipeline.postgres.partitions import maintain
from ingest_pipeline.postgres.sql import Schemas
from ingest_pipeline.postgres.table_reads import newest
from ingest_pipeline_tests.integration.postgres_bench import Bench
from ingest_pipeline_tests.servers.postgres_roles import PostgresRoles

pytestmark = pytest.mark.empty_database


class Event(msgspec.Struct):
    kind: str
    number: int


class Click(Event):
    url: str


TABLES: dict[str, Any] = {"click": ("clicks", Click), "view": "views"}
STREAM = Stream("event", Event, route=Route("kind", TABLES))


def event(kind: str, number: int, **values: Any) -> bytes:
    return msgspec.json.encode({"kind": kind, "number": number, "url": "u", **values})


def routed(tables: dict[str, Any], **options: Any) -> Stream:
    return replace(STREAM, route=Route("kind", tables), **options)


@pytest.mark.parametrize("name", ["{ledger}", "{rows}", "{holds}", "a:b", 'a"b', "100%"])
def test_any_name_works_for_the_tables_of_a_route(database_url: str, name: str) -> None:
    tables = {"click": (name, Click), "view": f"{name}2"}
    stream, wider = routed(tables), routed({**tables, "scroll": f"{name}2"})
    schemas = Schemas(events=name, ledger=f"{name}_ledger")
    with Bench(database_url, stream, schemas=schemas) as bench:
        bench.begin()
        values = [event("click", 1), event("view", 2), event("scroll", 3)]
        bench.write(values)
        assert bench.redrive(wider) == Redriven(stored=1)
        assert bench.replay(values, wider) == Replayed(present=3)
        assert [len(newest(bench.database, table, 5)[1]) for table in stream.tables] == [1, 2]


def test_a_changed_set_of_tables(database_url: str) -> None:
    values = [event("click", 1), event("view", 2), event("scroll", 3), event("tap", 4)]
    with Bench(database_url, STREAM) as bench:
        bench.begin()
        bench.write(values)
        more = routed({**TABLES, "scroll": "scrolls"})
        with pytest.raises(SchemaMismatch, match=r'"public.scrolls" does not exist. `ingest check`'):
            bench.redrive(more)
        schema.migrate(bench.database, [more])
        assert bench.redrive(more) == Redriven(stored=1, refused=1)
        assert bench.sql("SELECT kafka_offset, number FROM scrolls") == [(2, 3)]
        moved = routed({"click": "views", "view": "scrolls", "scroll": ("clicks", Click), "tap": "views"})
        assert bench.replay(values, moved) == Replayed(present=3, dead=1)
        assert bench.redrive(moved) == Redriven(stored=1)
        bench.sql("DELETE FROM views WHERE kafka_offset = 1")
        assert bench.replay(values, routed({"view": "views"})).stored == 1
        tables = [bench.sql(f"SELECT kafka_offset FROM {table} ORDER BY 1") for table in ("clicks", "views", "scrolls")]
        assert tables == [[0], [1, 3], [2]]


@pytest.mark.parametrize("method", ["copy", "executemany"])
def test_the_printed_rights_are_enough(database_url: str, method: str) -> None:
    shared = [Stream(f"site_{n}", Event, table="sites", topic_column="kafka_topic") for n in (1, 2)]
    roles = PostgresRoles(database_url, [STREAM, *shared])
    values = [event("click", 1), event("view", 2), event("view", "x")]  # type: ignore[arg-type]
    with Bench(roles.url_of(Role.WRITER), STREAM, method=method, own_rights=True) as bench:
        bench.begin()
        assert bench.write(values).rows == {0: 2}
    for stream in shared:
        with Bench(roles.url_of(Role.WRITER), stream, method=method, own_rights=True) as bench:
            bench.begin()
            assert bench.write(values).rows == {0: 2}
    roles.as_owner("GRANT DELETE ON clicks TO PUBLIC")
    with Bench(roles.url_of(Role.OPERATOR), STREAM, own_rights=True) as bench:
        bench.sql("DELETE FROM clicks")
        assert bench.replay(values) == Replayed(stored=1, present=1, dead=1)
        assert bench.redrive() == Redriven(refused=1)


def test_the_plan_of_a_migration_covers_each_table(database_url: str) -> None:
    with Bench(database_url, STREAM) as bench:
        plan = planned(bench.database, [STREAM])
        assert [line.split()[2] for line in plan if line.startswith("CREATE TABLE")] == [
            "public.clicks",
            "public.views",
        ]
        bench.begin()
        assert planned(bench.database, [STREAM]) == []
        more = msgspec.defstruct("More", [("note", str | None, None)], bases=(Event,))
        wider = routed({"click": ("clicks", Click), "view": ("views", more), "tap": "taps"})
        plan = planned(bench.database, [wider])
        assert [line for line in plan if "ADD COLUMN" in line] == ['ALTER TABLE "public"."views" ADD COLUMN note TEXT;']
        assert any("CREATE TABLE public.taps" in line for line in plan)
        assert schema.migrate(bench.database, [wider]) == [
            "added column public.views.note",
            "created table public.taps",
        ]
        assert planned(bench.database, [wider]) == []


def test_tables_partitioned_by_time(database_url: str) -> None:
    class Timed(Event):
        event_time: datetime

    class TimedClick(Timed):
        url: str

    now = datetime.now(UTC)
    tables = {"click": ("clicks", TimedClick), "view": "views"}
    stream = Stream("event", Timed, route=Route("kind", tables), partition_by="day", keep=timedelta(days=3))
    with Bench(database_url, stream) as bench:
        bench.begin()
        long_ago = now - timedelta(days=30)
        kinds = [("click", now), ("view", now), ("click", long_ago), ("view", long_ago), ("tap", now)]
        values = [event(kind, n, event_time=time) for n, (kind, time) in enumerate(kinds)]
        assert bench.write(values).rows == {0: 4}
        assert bench.replay(values) == Replayed(present=4, dead=1)
        moved = replace(stream, route=Route("kind", {"click": "views", "view": ("clicks", TimedClick), "tap": "views"}))
        later = [event(kind, n, event_time=now + timedelta(hours=1)) for n, (kind, _) in enumerate(kinds)]
        assert bench.replay(later, moved) == Replayed(present=4, dead=1)
        assert bench.redrive(moved) == Redriven(stored=1)
        assert bench.redrive(moved) == Redriven()
        for table in stream.tables:
            assert maintain(bench.database, table).startswith(
                f"{table.table}: made no partition, dropped none, deleted 1"
            )
        assert bench.sql("SELECT number FROM clicks") == [0]
        assert bench.sql("SELECT number FROM views ORDER BY 1") == [1, 4]


def test_a_new_incarnation_is_above_those_of_all_tables(database_url: str) -> None:
    with Bench(database_url, STREAM) as bench:
        bench.begin()
        bench.sql("UPDATE ingest.incarnation SET last = 7 WHERE event_table = 'public.views'")
        bench.sql("INSERT INTO clicks VALUES (9, 0, 0, 'click', 1, 'u')")
        with bench.database.connect("beginning again") as connection:
            assert acceptance.new_incarnation(connection, bench.database.schemas, STREAM) == 10
            narrower = routed({"view": "views"})
            assert acceptance.new_incarnation(connection, bench.database.schemas, narrower) == 11


@pytest.mark.parametrize("method", ["copy", "executemany"])
def test_two_topics_in_a_table_that_exists(database_url: str, method: str) -> None:
    streams = [Stream(f"site_{n}", Event, table="sites", coordinates=False, topic_column="topic") for n in (0, 1)]
    with (
        Bench(database_url, streams[0], method=method) as first,
        Bench(database_url, streams[1], method=method) as other,
    ):
        first.sql("CREATE TABLE sites (number smallint, kind varchar(5), topic text)")
        for bench in (first, other):
            bench.begin()
            assert bench.write([event("view", 1), event("scroll", 2)]).dead_letters == {0: 1}
        first.sql("ALTER TABLE sites ALTER kind TYPE text")
        assert [bench.redrive() for bench in (first, other)] == [Redriven(stored=1)] * 2
        rows = "SELECT topic, kind, number FROM sites ORDER BY topic, number"
        assert first.sql(rows) == [(f"site_{n}", *row) for n in (0, 1) for row in (("view", 1), ("scroll", 2))]
