"""Whole runs into a table that exists, whose owner changes it while the run writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from ingest_pipeline.core.stream import Stream
from ingest_pipeline.orchestration.checks import as_declared
from ingest_pipeline_tests.orchestration.bench import Bench, failure, wait_for
from ingest_pipeline_tests.orchestration.records import Record
from ingest_pipeline_tests.orchestration.test_altered_under_run import Numbers, accounted, beside

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
Make = Callable[..., Bench]


class Count(msgspec.Struct):
    number: int


COUNT = Stream("count", Count, table="counts", coordinates=False)
TABLE = "CREATE TABLE counts (id bigserial PRIMARY KEY, number smallint NOT NULL)"


@pytest.mark.parametrize("method", ["copy", "executemany"])
def test_a_run_stores_each_record_once_and_goes_on_while_the_table_changes(bench: Make, method: str) -> None:
    here = bench([COUNT], RUN_IDLE_SECONDS="3600", BATCH_SIZE="50", WRITE_METHOD=method)
    here.query(TABLE)
    here.produce([Record(b'{"number": 40000}', 0)])
    numbers = Numbers(here)
    numbers.some(100)

    def change() -> None:
        wait_for("rows", lambda: here.rows() > 200)
        here.query("ALTER TABLE counts ADD place text")
        rows = here.rows()
        wait_for("rows after a new column", lambda: here.rows() > rows + 100)
        here.query("ALTER TABLE counts ALTER number TYPE integer")
        rows = here.rows()
        wait_for("rows of a wider column", lambda: here.rows() > rows + 100)
        here.query("ALTER TABLE counts ALTER number TYPE text")

    with numbers.flowing(), beside(change):
        result = here.by_sensor()
    assert "column number is text, and bigint cannot be written to it unchanged" in failure(result)
    assert not as_declared(here.context).passed
    here.query("ALTER TABLE counts ALTER number TYPE bigint USING number::bigint")
    assert as_declared(here.context).passed
    here = bench([here.stream], KAFKA_BOOTSTRAP_SERVERS=here.bootstrap_servers)
    here.drain()
    assert here.query("SELECT number FROM counts ORDER BY 1") == list(range(numbers.written))
    assert here.query("SELECT reason FROM ingest.dead_letter") == ["value does not fit column number smallint"]
    assert accounted(here)


def test_a_run_without_the_table_stops_with_the_way_out(bench: Make) -> None:
    here = bench([replace(COUNT, table="nothing")])
    here.produce([Record(b'{"number": 1}')])
    result = here.by_sensor()
    assert "table public.nothing does not exist, and no table is created" in failure(result)
