"""The tables of a route, and a table of several topics, in a real PostgreSQL: names, rights, migrations, partitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from ingest_pipeline.core.choices import NaiveTimestamps
from ingest_pipeline.core.errors import SchemaMismatch
from ingest_pipeline.core.ledger import LetterFilter, Replayed
from ingest_pipeline.core.record import CommitResult, NextOffset, Position
from ingest_pipeline.core.roles import Role
from ingest_pipeline.core.route import Route
from ingest_pipeline.core.rows import Decode
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.operations.decoders import decoder_of
from ingest_pipeline.postgres import acceptance, schema
from ingest_pipeline.postgres.dead_letters import DeadLetters
from ingest_pipeline.postgres.migration_plan import planned
from ingest_pipeline.postgres.partitions import maintain
from ingest_pipeline.postgres.replay import MissingRows
from ingest_pipeline.postgres.sql import Schemas
from ingest_pipeline.postgres.table_reads import newest
from ingest_pipeline_tests.integration.postgres_bench import Bench
from ingest_pipeline_tests.samples import make_batch, message
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


def decode(stream: Stream) -> Decode:
    return decoder_of(stream, NaiveTimestamps.UTC, lambda: pytest.fail("no registry is needed")).decode


def write(bench: Bench, values: Sequence[bytes]) -> CommitResult:
    start = bench.session.positions[0].resume_at.next_offset
    records = [message(0, start + n, value) for n, value in enumerate(values)]
    return bench.session.write(bench.batch(records, decode(bench.stream)))


def redrive(bench: Bench, stream: Stream) -> tuple[int, int, int]:
    """(stored, present, refused)."""
    redriven = DeadLetters(bench.database, stream).redrive(LetterFilter(), decode(stream))
    return redriven.stored, redriven.present, redriven.refused


def replay(bench: Bench, stream: Stream, values: Sequence[bytes]) -> Replayed:
    """Read the records at the offsets from 0 on again."""
    incarnation = bench.session.positions[0].incarnation
    start = {0: Position(0, incarnation, NextOffset(0))}
    records: list[Any] = [message(0, n, value) for n, value in enumerate(values)]
    return MissingRows(bench.database, stream).store(make_batch(start, records, stream=stream, decode=decode(stream)))


@pytest.mark.parametrize("name", ["{ledger}", "{rows}", "{holds}", "a:b", 'a"b', "100%"])
def test_any_name_works_for_the_tables_of_a_route(database_url: str, name: str) -> None:
    tables = {"click": (name, Click), "view": f"{name}2"}
    stream, wider = routed(tables), routed({**tables, "scroll": f"{name}2"})
    schemas = Schemas(events=name, ledger=f"{name}_ledger")
    with Bench(database_url, stream, schemas=schemas) as bench:
        bench.begin()
        values = [event("click", 1), event("view", 2), event("scroll", 3)]
        write(bench, values)
        assert redrive(bench, wider) == (1, 0, 0)
        assert replay(bench, wider, values) == Replayed(present=3)
        assert [len(newest(bench.database, table, 5)[1]) for table in stream.tables] == [1, 2]


def test_a_changed_set_of_tables(database_url: str) -> None:
    values = [event("click", 1), event("view", 2), event("scroll", 3), event("tap", 4)]
    with Bench(database_url, STREAM) as bench:
        bench.begin()
        write(bench, values)
        more = routed({**TABLES, "scroll": "scrolls"})
        with pytest.raises(SchemaMismatch, match=r'"public.scrolls" does not exist. `ingest check`'):
            redrive(bench, more)
        schema.migrate(bench.database, [more])
        assert redrive(bench, more) == (1, 0, 1)
        assert bench.sql("SELECT kafka_offset, number FROM scrolls") == [(2, 3)]
        moved = routed({"click": "views", "view": "scrolls", "scroll": ("clicks", Click), "tap": "views"})
        assert replay(bench, moved, values) == Replayed(present=3, dead=1)
        assert redrive(bench, moved) == (1, 0, 0)
        bench.sql("DELETE FROM views WHERE kafka_offset = 1")
        assert replay(bench, routed({"view": "views"}), values).stored == 1
        tables = [bench.sql(f"SELECT kafka_offset FROM {table} ORDER BY 1") for table in ("clicks", "views", "scrolls")]
        assert tables == [[0], [1, 3], [2]]


@pytest.mark.parametrize("method", ["copy", "executemany"])
def test_the_printed_rights_are_enough(database_url: str, method: str) -> None:
    shared = [Stream(f"site_{n}", Event, table="sites", topic_column="kafka_topic") for n in (1, 2)]
    roles = PostgresRoles(database_url, [STREAM, *shared])
    values = [event("click", 1), event("view", 2), event("view", "x")]  # type: ignore[arg-type]
    with Bench(roles.url_of(Role.WRITER), STREAM, method=method, own_rights=True) as bench:
        bench.begin()
        assert write(bench, values).rows == {0: 2}
    for stream in shared:
        with Bench(roles.url_of(Role.WRITER), stream, method=method, own_rights=True) as bench:
            bench.begin()
            assert write(bench, values).rows == {0: 2}
    roles.as_owner("GRANT DELETE ON clicks TO PUBLIC")
    with Bench(roles.url_of(Role.OPERATOR), STREAM, own_rights=True) as bench:
        bench.sql("DELETE FROM clicks")
        bench.session  # noqa: B018 (owns the partition)
        assert replay(bench, STREAM, values) == Replayed(stored=1, present=1, dead=1)
        assert redrive(bench, STREAM) == (0, 0, 1)


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
        assert write(bench, values).rows == {0: 4}
        assert replay(bench, stream, values) == Replayed(present=4, dead=1)
        moved = replace(stream, route=Route("kind", {"click": "views", "view": ("clicks", TimedClick), "tap": "views"}))
        later = [event(kind, n, event_time=now + timedelta(hours=1)) for n, (kind, _) in enumerate(kinds)]
        assert replay(bench, moved, later) == Replayed(present=4, dead=1)
        assert redrive(bench, moved) == (1, 0, 0)
        assert redrive(bench, moved) == (0, 0, 0)
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
            assert write(bench, [event("view", 1), event("scroll", 2)]).dead_letters == {0: 1}
        first.sql("ALTER TABLE sites ALTER kind TYPE text")
        assert [redrive(bench, bench.stream) for bench in (first, other)] == [(1, 0, 0)] * 2
        rows = "SELECT topic, kind, number FROM sites ORDER BY topic, number"
        assert first.sql(rows) == [(f"site_{n}", *row) for n in (0, 1) for row in (("view", 1), ("scroll", 2))]
