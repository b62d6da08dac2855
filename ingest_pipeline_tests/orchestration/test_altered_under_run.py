"""Somebody alters the table of a stream while its run drains, or while it is paused with a batch in hand."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from threading import Event, Thread
from typing import Any

import msgspec
import psycopg
import pytest

from ingest_pipeline.core.stream import Stream
from ingest_pipeline.orchestration import tags
from ingest_pipeline_tests.orchestration.bench import Bench, failure, wait_for
from ingest_pipeline_tests.orchestration.records import Record

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
Make = Callable[..., Bench]


class Whole(msgspec.Struct):
    event_time: datetime
    number: int


WHOLE = Stream("whole", Whole)
ALTERED = {
    "double precision": "number::double precision",
    "timestamptz": "to_timestamp(number)",
    "numeric": "number::numeric",
}
BACK = {
    "double precision": "number::bigint",
    "timestamptz": "extract(epoch FROM number)::bigint",
    "numeric": "number::bigint",
}


class Numbers:
    """Writes numbers without a gap until it is stopped."""

    def __init__(self, bench: Bench) -> None:
        self._bench, self._stop, self.written = bench, Event(), 0
        self._thread = Thread(target=self._write)

    def _write(self) -> None:
        while not self._stop.is_set():
            self.some(20)
            time.sleep(0.02)

    def some(self, count: int) -> None:
        value = b'{"event_time": "2026-01-01T00:00:00Z", "number": %d}'
        numbers = range(self.written, self.written + count)
        self._bench.produce([Record(value % number, number % 2) for number in numbers])
        self.written += count

    @contextmanager
    def flowing(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()


@contextmanager
def beside(work: Callable[[], None]) -> Iterator[None]:
    """Do this in a thread. Raises what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = Thread(target=run)
    thread.start()
    yield
    thread.join()
    if raised:
        raise raised[0]


def altered(bench: Bench, change: str) -> None:
    with psycopg.connect(bench.url, autocommit=True) as connection:
        connection.execute(f"ALTER TABLE whole ALTER number TYPE {change}")


def accounted(bench: Bench) -> bool:
    return all(bench.query("SELECT accounted FROM ingest.accounting"))


@pytest.mark.parametrize("kind", ALTERED)
@pytest.mark.parametrize("method", ["copy", "executemany"])
def test_a_run_stops_and_stores_no_garbage(make_bench: Make, kind: str, method: str) -> None:
    bench = make_bench([WHOLE], RUN_IDLE_SECONDS="3600", BATCH_SIZE="50", WRITE_METHOD=method)
    numbers = Numbers(bench)
    numbers.some(100)

    def alter() -> None:
        wait_for("rows", lambda: bench.query("SELECT to_regclass('whole')") != [None] and bench.rows() > 200)
        altered(bench, f"{kind} USING {ALTERED[kind]}")

    with numbers.flowing(), beside(alter):
        result = bench.by_sensor()
    assert not result.success
    assert "column number is" in failure(result)
    assert "declared as bigint" in failure(result)
    assert "SchemaMismatch" in bench.run_tags(str(result.run_id))[tags.ENDED]
    altered(bench, f"bigint USING {BACK[kind]}")
    stored = bench.rows()
    assert stored == sum(bench.positions().values())
    assert 200 < stored < numbers.written
    assert bench.query("SELECT DISTINCT kafka_offset = number / 2 FROM whole") == [True]
    assert accounted(bench)
    bench = make_bench([bench.stream], KAFKA_BOOTSTRAP_SERVERS=bench.bootstrap_servers)
    bench.drain()
    assert bench.query("SELECT number FROM whole ORDER BY 1") == list(range(numbers.written))
    assert bench.query("SELECT count(*) FROM ingest.dead_letter") == [0]
    assert accounted(bench)


def test_an_alter_behind_a_pause_stores_no_garbage(make_bench: Make) -> None:
    """The batch in hand is written after the pause, and it may come after the ALTER."""
    bench = make_bench([WHOLE], RUN_IDLE_SECONDS="3600", BATCH_SIZE="50")
    numbers = Numbers(bench)
    numbers.some(100)

    def pause_and_alter() -> None:
        wait_for("rows", lambda: bench.query("SELECT to_regclass('whole')") != [None] and bench.rows() > 200)
        bench.clients.ledger(bench.stream).pause("ALTER", "ann")
        altered(bench, "double precision")

    with numbers.flowing(), beside(pause_and_alter):
        result = bench.by_sensor()
    ended = bench.run_tags(str(result.run_id))[tags.ENDED]
    assert ended == "paused" or "SchemaMismatch" in ended
    assert bench.rows() == sum(bench.positions().values())
    assert bench.query("SELECT DISTINCT kafka_offset = floor(number / 2) FROM whole") == [True]
    altered(bench, "bigint")
    bench.clients.ledger(bench.stream).resume()
    bench = make_bench([bench.stream], KAFKA_BOOTSTRAP_SERVERS=bench.bootstrap_servers)
    bench.drain()
    assert bench.query("SELECT number FROM whole ORDER BY 1") == list(range(numbers.written))
    assert accounted(bench)


def test_a_run_stops_at_a_column_that_no_field_fills(make_bench: Make) -> None:
    bench = make_bench([WHOLE], RUN_IDLE_SECONDS="3600", BATCH_SIZE="50")
    numbers = Numbers(bench)
    numbers.some(100)

    def alter() -> None:
        wait_for("rows", lambda: bench.query("SELECT to_regclass('whole')") != [None] and bench.rows() > 200)
        bench.query("ALTER TABLE whole ADD region text NOT NULL DEFAULT 'north'")
        rows = bench.rows()
        wait_for("rows with a region", lambda: bench.rows() > rows + 100)
        bench.query("ALTER TABLE whole ALTER region DROP DEFAULT")

    with numbers.flowing(), beside(alter):
        result = bench.by_sensor()
    assert "column region is NOT NULL without a default, and no field fills it" in failure(result)
    assert bench.query("SELECT count(*) FROM ingest.dead_letter") == [0]
    bench.query("ALTER TABLE whole ALTER region SET DEFAULT 'south'")
    bench = make_bench([bench.stream], KAFKA_BOOTSTRAP_SERVERS=bench.bootstrap_servers)
    bench.drain()
    assert bench.query("SELECT number FROM whole ORDER BY 1") == list(range(numbers.written))


def test_an_operator_sees_what_a_trigger_drops(make_bench: Make) -> None:
    bench = make_bench([WHOLE])
    Numbers(bench).some(10)
    bench.drain()
    bench.query("""
        CREATE FUNCTION drops() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF new.number % 2 = 1 THEN RETURN NULL; END IF; RETURN new; END $$;
        CREATE TRIGGER drops BEFORE INSERT ON whole FOR EACH ROW EXECUTE FUNCTION drops()""")
    more = Numbers(bench)
    more.some(10)
    result = bench.by_sensor()
    (event,) = result.get_asset_materialization_events()
    found: dict[str, Any] = {name: value.value for name, value in event.materialization.metadata.items()}
    assert (found["rows"], found["skipped"], found["dropped_by_trigger"], found["absent"]) == (5, 5, 5, 0)
    assert bench.query('SELECT sum("rows"), sum(skipped) FROM ingest.position') == [(15, 5)]
    assert accounted(bench)
