"""Tables partitioned by event_time: made ahead, dropped after keep, and each record stored once."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import dagster as dg
import msgspec
import pytest

from ingest_pipeline.core.errors import SchemaMismatch, SettingsError
from ingest_pipeline.core.ledger import LetterFilter, Redriven, Replayed
from ingest_pipeline.core.partitioning import PartitionBy, bounds_ahead, start_of
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.operations.clients import Clients
from ingest_pipeline.operations.stream_context import StreamContext
from ingest_pipeline.orchestration.jobs.retention import partitions_op
from ingest_pipeline.postgres import schema
from ingest_pipeline.postgres.dead_letters import DeadLetters
from ingest_pipeline.postgres.partitions import drop_partitions, maintain, make_partitions
from ingest_pipeline.postgres.table_reads import ddl, newest
from ingest_pipeline.settings import load_settings
from ingest_pipeline_tests.integration.postgres_bench import Bench
from ingest_pipeline_tests.samples import BAD, READING
from ingest_pipeline_tests.waiting import wait_for


class Seen(msgspec.Struct):
    event_time: datetime
    number: int = 0


DAILY = Stream("seen", Seen, partition_by="day", keep=timedelta(days=3))
NOW = datetime.now(UTC)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def seen(time: datetime, number: int = 0) -> bytes:
    return json.dumps({"event_time": time.isoformat(), "number": number}).encode()


@pytest.fixture(params=["copy", "executemany"])
def bench(database_url: str, request: pytest.FixtureRequest) -> Iterator[Bench]:
    with Bench(database_url, DAILY, method=request.param) as made:
        yield made.begin()


def partitions(bench: Bench) -> list[str]:
    return bench.sql("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'seen'::regclass ORDER BY 1")


def of_day(time: datetime) -> str:
    return f"seen_{time:%Y%m%d}"


def test_the_table_has_partitions_from_the_start(bench: Bench) -> None:
    assert bench.differences() == []
    days = [start_of(PartitionBy.DAY, NOW) + timedelta(days=n) for n in range(8)]
    assert partitions(bench) == [*map(of_day, days), "seen_default"]
    bench.write([seen(NOW), seen(NOW + timedelta(days=1)), BAD, seen(LONG_AGO)])
    assert bench.sql("SELECT tableoid::regclass::text FROM seen ORDER BY kafka_offset") == [
        of_day(NOW),
        of_day(NOW + timedelta(days=1)),
        "seen_default",
    ]
    assert bench.counters() == (4, 3, 1)
    assert [row[2] for row in newest(bench.database, DAILY, 2)[1]] == [3, 1]


def test_a_partition_takes_its_rows_from_the_default_partition(bench: Bench) -> None:
    tomorrow = of_day(NOW + timedelta(days=1))
    bench.sql(f"DROP TABLE {tomorrow}")
    bench.write([seen(NOW + timedelta(days=1), 7), seen(LONG_AGO)])
    assert bench.sql("SELECT count(*) FROM seen_default") == [2]
    with bench.database.connect("making") as connection:
        assert make_partitions(connection, DAILY, bench.database.schemas) == ([f"public.{tomorrow}"], [])
        assert make_partitions(connection, DAILY, bench.database.schemas) == ([], [])
    assert bench.sql(f"SELECT number FROM {tomorrow}") == [7]
    assert bench.sql("SELECT count(*) FROM seen") == [2]
    assert bench.differences() == []
    bench.write([seen(NOW + timedelta(days=1), 8)])
    assert bench.sql(f"SELECT number FROM {tomorrow} ORDER BY 1") == [7, 8]


def test_rows_move_with_their_values_by_column_name(bench: Bench) -> None:
    tomorrow = of_day(NOW + timedelta(days=1))
    bench.sql(f"DROP TABLE {tomorrow}; ALTER TABLE seen ADD twice bigint GENERATED ALWAYS AS (number * 2) STORED")
    bench.sql("ALTER TABLE seen ADD first text DEFAULT 'first', ADD second text DEFAULT 'second'")
    bench.sql("ALTER TABLE seen DETACH PARTITION seen_default; ALTER TABLE seen_default DROP first")
    bench.sql("ALTER TABLE seen_default ADD first text DEFAULT 'first'")
    bench.sql("ALTER TABLE seen ATTACH PARTITION seen_default DEFAULT")
    bench.write([seen(NOW + timedelta(days=1), 7)])
    with bench.database.connect("making") as connection:
        make_partitions(connection, DAILY, bench.database.schemas)
    assert bench.sql(f"SELECT number, twice, first, second FROM {tomorrow}") == [(7, 14, "first", "second")]


@pytest.mark.parametrize(("before", "after"), [("day", "month"), ("month", "day"), ("week", "day"), ("day", "week")])
def test_after_a_change_of_partition_by_new_partitions_fill_the_time_between_the_old_ones(
    database_url: str, before: str, after: str
) -> None:
    with Bench(database_url, replace(DAILY, partition_by=before)) as bench:
        bench.begin()
        old = partitions(bench)
        maintain(bench.database, replace(DAILY, partition_by=after))
        assert set(old) <= set(partitions(bench))
        last = max(stop for _, stop in bounds_ahead(PartitionBy(after), NOW))
        times = [NOW + timedelta(days=n) for n in range((last - NOW).days)]
        bench.write([seen(time, number) for number, time in enumerate(times)])
        assert bench.sql("SELECT count(*) FROM seen") == [len(times)]
        assert bench.sql("SELECT number FROM seen_default") == []


def test_a_table_with_the_name_of_a_partition_is_named_and_the_other_partitions_are_made(bench: Bench) -> None:
    tomorrow, next_day = (of_day(NOW + timedelta(days=days)) for days in (1, 2))
    bench.sql(f"ALTER TABLE seen DETACH PARTITION {tomorrow}; DROP TABLE {next_day}")
    assert maintain(bench.database, DAILY) == (
        f"seen: made public.{next_day}, dropped none, deleted 0 rows of the DEFAULT partition. Another table is called"
        f" public.{tomorrow}: rename that table to get the partition"
    )


def test_partitions_without_an_end_are_left_alone(bench: Bench) -> None:
    day = start_of(PartitionBy.DAY, NOW) + timedelta(days=5)
    for days in range(5, 8):
        bench.sql(f"DROP TABLE {of_day(NOW + timedelta(days=days))}")
    bench.sql(f"CREATE TABLE rest PARTITION OF seen FOR VALUES FROM ('{day + timedelta(hours=6)}') TO (MAXVALUE)")
    assert maintain(bench.database, DAILY).startswith(f"seen: made public.{of_day(day)}, dropped none")
    bench.write([seen(day + timedelta(hours=1), 7), seen(day + timedelta(days=99), 8)])
    assert bench.sql("SELECT tableoid::regclass::text FROM seen ORDER BY number") == [of_day(day), "rest"]


def test_what_is_older_than_keep_is_dropped(bench: Bench) -> None:
    for days in (3, 4, 5):
        start = start_of(PartitionBy.DAY, NOW) - timedelta(days=days)
        bench.sql(
            f"CREATE TABLE {of_day(start)} PARTITION OF seen FOR VALUES FROM ('{start}') TO ('{start + timedelta(1)}')"
        )
    bench.sql("CREATE TABLE theirs PARTITION OF seen FOR VALUES FROM ('2019-01-01') TO ('2019-02-01')")
    bench.write([seen(LONG_AGO), seen(NOW - timedelta(days=2)), seen(datetime(2019, 1, 1, tzinfo=UTC))])
    with bench.database.connect("dropping") as connection:
        unlimited = replace(DAILY, keep=None)
        assert drop_partitions(connection, unlimited, bench.database.schemas) == ([], 0)
    old = [f"public.{of_day(NOW - timedelta(days=days))}" for days in (5, 4)]
    assert maintain(bench.database, DAILY) == (
        f"seen: made no partition, dropped {', '.join(old)}, deleted 1 rows of the DEFAULT partition"
    )
    assert "theirs" in partitions(bench)
    assert bench.sql("SELECT count(*) FROM seen_default") == [1]
    bench.write([seen(NOW)])
    assert bench.counters() == (4, 4, 0)


def test_a_row_that_waits_while_its_partition_is_made_is_stored(bench: Bench) -> None:
    tomorrow = of_day(NOW + timedelta(days=1))
    bench.sql(f"DROP TABLE {tomorrow}")
    bench.write([seen(NOW)])
    with ThreadPoolExecutor() as executor:
        with bench.database.connect("making") as connection:
            make_partitions(connection, DAILY, bench.database.schemas)
            written = executor.submit(bench.write, [seen(NOW + timedelta(days=1), 7), seen(LONG_AGO)])
            wait_for("the write waits for a lock", lambda: bench.sql("SELECT 1 FROM pg_locks WHERE NOT granted"))
        written.result()
    assert bench.letters() == {}
    assert bench.sql(f"SELECT number FROM {tomorrow}") == [7]
    assert bench.counters() == (3, 3, 0)


def test_a_partition_of_another_length_is_kept_until_its_own_stop(bench: Bench) -> None:
    for child in partitions(bench):
        bench.sql(f"DROP TABLE {child}")
    begun = start_of(PartitionBy.DAY, NOW) - timedelta(days=6)
    month = f"{of_day(begun)} PARTITION OF seen FOR VALUES FROM ('{begun}') TO ('{begun + timedelta(days=31)}')"
    bench.sql(f"CREATE TABLE {month}")
    bench.sql("CREATE TABLE seen_default PARTITION OF seen DEFAULT")
    bench.write([seen(NOW, 7)])
    with bench.database.connect("dropping") as connection:
        assert drop_partitions(connection, DAILY, bench.database.schemas) == ([], 0)
    assert bench.sql("SELECT number FROM seen") == [7]


def test_the_table_is_free_while_old_rows_are_deleted(bench: Bench) -> None:
    start = start_of(PartitionBy.DAY, NOW) - timedelta(days=9)
    bench.sql(
        f"CREATE TABLE {of_day(start)} PARTITION OF seen FOR VALUES FROM ('{start}') TO ('{start + timedelta(days=1)}')"
    )
    bench.sql("""
        CREATE FUNCTION check_locks() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            ASSERT NOT EXISTS (SELECT FROM pg_locks WHERE relation = 'seen'::regclass AND mode = 'AccessExclusiveLock');
            RETURN NULL;
        END $$""")
    bench.write([seen(LONG_AGO)])
    bench.sql("CREATE TRIGGER check_locks AFTER DELETE ON seen_default EXECUTE FUNCTION check_locks()")
    with bench.database.connect("dropping") as connection:
        assert drop_partitions(connection, DAILY, bench.database.schemas) == ([f"public.{of_day(start)}"], 1)


def test_redrive_and_replay_find_a_row_with_another_time(bench: Bench) -> None:
    bench.write([seen(NOW, 1), BAD, seen(NOW, 2)])
    bench.sql("DELETE FROM seen WHERE number = 2")
    read_again = [seen(NOW + timedelta(days=1), 1), BAD, seen(NOW, 2)]
    assert bench.replay(read_again) == Replayed(stored=1, present=1, dead=1)
    assert bench.sql("SELECT number FROM seen ORDER BY 1") == [1, 2]
    letters = DeadLetters(bench.database, DAILY)

    def decode(value: bytes) -> tuple[Any, ...]:
        return NOW, 3

    assert letters.redrive(LetterFilter(), decode) == Redriven(stored=1)
    bench.sql("UPDATE ingest.dead_letter SET status = 'open'")
    assert letters.redrive(LetterFilter(), lambda value: (NOW + timedelta(days=1), 3)) == Redriven(present=1)
    assert bench.sql("SELECT number FROM seen ORDER BY 1") == [1, 2, 3]


def test_the_printed_statements_make_the_same_table(database_url: str) -> None:
    with Bench(database_url, DAILY) as bench:
        bench.sql(ddl(DAILY, "public"))
        bench.begin()
        assert partitions(bench) == ["seen_default"]
        bench.write([seen(NOW)])
        assert maintain(bench.database, DAILY).startswith(f"seen: made public.{of_day(NOW)}, public.")
        assert bench.sql("SELECT tableoid::regclass::text FROM seen") == [of_day(NOW)]


def test_a_table_without_partitions_is_refused(database_url: str) -> None:
    plain = replace(DAILY, partition_by="", keep=None)
    with Bench(database_url, plain) as bench:
        bench.begin()
        with pytest.raises(SchemaMismatch, match="it is not partitioned by event_time, as partition_by declares"):
            schema.prepare(bench.database, [DAILY])


def test_the_bounds_of_each_length() -> None:
    time = datetime(2026, 12, 31, 23, 30, tzinfo=UTC)
    first = {kind: next(bounds_ahead(kind, time)) for kind in (PartitionBy.DAY, PartitionBy.WEEK, PartitionBy.MONTH)}
    assert first == {
        PartitionBy.DAY: (datetime(2026, 12, 31, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        PartitionBy.WEEK: (datetime(2026, 12, 28, tzinfo=UTC), datetime(2027, 1, 4, tzinfo=UTC)),
        PartitionBy.MONTH: (datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
    }
    for kind in first:
        bounds = list(bounds_ahead(kind, time))
        assert all(stop == start for (_, stop), (start, _) in pairwise(bounds))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"partition_by": "year"}, "partition_by 'year' is not day, week or month"),
        ({"partition_by": "", "keep": timedelta(days=9)}, "keep drops partitions, and partition_by is not declared"),
        ({"keep": timedelta(hours=23)}, "keep is 23:00:00, at least a day is needed"),
        ({"id_column": "id"}, "partition_by and id_column exclude each other"),
        ({"event": msgspec.defstruct("Bare", [("number", int)])}, "partition_by needs a datetime called event_time"),
        ({"event": msgspec.defstruct("Maybe", [("event_time", datetime | None)])}, "which is never null"),
        ({"coordinates": False}, "partition_by is for a table with the Kafka coordinates"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        replace(DAILY, **options)


def test_the_op_of_maintenance_makes_and_drops_partitions(bench: Bench) -> None:
    bench.sql(f"DROP TABLE {of_day(NOW + timedelta(days=1))}")
    bench.write([seen(LONG_AGO), seen(NOW + timedelta(days=1))])
    clients = Clients(load_settings(["seen"], {"DATABASE_URL": bench.url}))
    maintain_partitions = partitions_op(clients, [StreamContext(DAILY, clients), StreamContext(READING, clients)])

    @dg.job
    def maintenance() -> None:
        maintain_partitions()

    try:
        assert maintenance.execute_in_process().success
    finally:
        clients.close()
    assert of_day(NOW + timedelta(days=1)) in partitions(bench)
    assert bench.sql("SELECT count(*) FROM seen_default") == [0]
    assert bench.sql("SELECT count(*) FROM seen") == [1]
