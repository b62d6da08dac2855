"""Somebody alters the table of a stream while its run drains, or while it is paused with a batch in hand."""

from __future__ import annotations

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


def altered(here: Bench, change: str) -> None:
    with psycopg.connect(here.url, autocommit=True) as connection:
        connection.execute(f"ALTER TABLE whole ALTER number TYPE {change}")


def accounted(here: Bench) -> bool:
    return all(here.query("SELECT accounted FROM ingest.accounting"))


@pytest.mark.parametrize("kind", ALTERED)
@pytest.mark.parametrize("method", ["copy", "executemany"])
def test_a_run_stops_and_stores_no_garbage(bench: Make, kind: str, method: str) -> None:
    here = bench([WHOLE], RUN_IDLE_SECONDS="3600", BATCH_SIZE="50", WRITE_METHOD=method)
    numbers = Numbers(here)
    numbers.some(100)

    def alter() -> None:
        wait_for("rows", lambda: here.query("SELECT to_regclass('whole')") != [None] and here.rows() > 200)
        altered(here, f"{kind} USING {ALTERED[kind]}")

    with numbers.flowing(), beside(alter):
        result = here.by_sensor()
    assert not result.success
    assert "column number is" in failure(result)
    assert "declared as bigint" in failure(result)
    assert "SchemaMismatch" in here.run_tags(str(result.run_id))[tags.ENDED]
    altered(here, f"bigint USING {BACK[kind]}")
    stored = here.rows()
    assert stored == sum(here.positions().values())
    assert 200 < stored < numbers.written
    assert here.query("SELECT DISTINCT kafka_offset = number / 2 FROM whole") == [True]
    assert accounted(here)
    here = bench([here.stream], KAFKA_BOOTSTRAP_SERVERS=here.bootstrap_servers)
    here.drain()
    assert here.query("SELECT number FROM whole ORDER BY 1") == list(range(numbers.written))
    assert here.query("SELECT count(*) FROM ingest.dead_letter") == [0]
    assert accounted(here)


def test_an_alter_behind_a_pause_stores_no_garbage(bench: Make) -> None:
    """The batch in hand is written after the pause, and it may come after the ALTER."""
    here = bench([WHOLE], RUN_IDLE_SECONDS="3600", BATCH_SIZE="50")
    numbers = Numbers(here)
    numbers.some(100)

    def pause_and_alter() -> None:
        wait_for("rows", lambda: here.query("SELECT to_regclass('whole')") != [None] and here.rows() > 200)
        here.clients.ledger(here.stream).pause("ALTER", "ann")
        altered(here, "double precision")

    with numbers.flowing(), beside(pause_and_alter):
        result = here.by_sensor()
    ended = here.run_tags(str(result.run_id))[tags.ENDED]
    assert ended == "paused" or "SchemaMismatch" in ended
    assert here.rows() == sum(here.positions().values())
    assert here.query("SELECT DISTINCT kafka_offset = floor(number / 2) FROM whole") == [True]
    altered(here, "bigint")
    here.clients.ledger(here.stream).resume()
    here = bench([here.stream], KAFKA_BOOTSTRAP_SERVERS=here.bootstrap_servers)
    here.drain()
    assert here.query("SELECT number FROM whole ORDER BY 1") == list(range(numbers.written))
    assert accounted(here)


def test_a_run_stops_at_a_column_that_no_field_fills(bench: Make) -> None:
    here = bench([WHOLE], RUN_IDLE_SECONDS="3600", BATCH_SIZE="50")
    numbers = Numbers(here)
    numbers.some(100)

    def alter() -> None:
        wait_for("rows", lambda: here.query("SELECT to_regclass('whole')") != [None] and here.rows() > 200)
        here.query("ALTER TABLE whole ADD region text NOT NULL DEFAULT 'north'")
        rows = here.rows()
        wait_for("rows with a region", lambda: here.rows() > rows + 100)
        here.query("ALTER TABLE whole ALTER region DROP DEFAULT")

    with numbers.flowing(), beside(alter):
        result = here.by_sensor()
    assert "column region is NOT NULL without a default, and no field fills it" in failure(result)
    assert here.query("SELECT count(*) FROM ingest.dead_letter") == [0]
    here.query("ALTER TABLE whole ALTER region SET DEFAULT 'south'")
    here = bench([here.stream], KAFKA_BOOTSTRAP_SERVERS=here.bootstrap_servers)
    here.drain()
    assert here.query("SELECT number FROM whole ORDER BY 1") == list(range(numbers.written))


def test_an_operator_sees_what_a_trigger_drops(bench: Make) -> None:
    here = bench([WHOLE])
    Numbers(here).some(10)
    here.drain()
    here.query("""
        CREATE FUNCTION drops() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF new.number % 2 = 1 THEN RETURN NULL; END IF; RETURN new; END $$;
        CREATE TRIGGER drops BEFORE INSERT ON whole FOR EACH ROW EXECUTE FUNCTION drops()""")
    more = Numbers(here)
    more.some(10)
    result = here.by_sensor()
    (event,) = result.get_asset_materialization_events()
    found: dict[str, Any] = {name: value.value for name, value in event.materialization.metadata.items()}
    assert (found["rows"], found["skipped"], found["dropped_by_trigger"], found["absent"]) == (5, 5, 5, 0)
    assert here.query('SELECT sum("rows"), sum(skipped) FROM ingest.position') == [(15, 5)]
    assert accounted(here)
