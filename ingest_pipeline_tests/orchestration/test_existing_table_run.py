"""Whole runs into a table that exists, whose owner changes it while the run writes."""

from collections.abc import Callable

import msgspec
import pytest

from ingest_pipeline.core.roles import Role
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.orchestration.checks import AS_DECLARED
from ingest_pipeline_tests.orchestration.bench import Bench, failure, wait_for
from ingest_pipeline_tests.orchestration.records import Record
from ingest_pipeline_tests.orchestration.test_altered_under_run import Numbers, accounted, beside

pytestmark = [pytest.mark.role(Role.OWNER), pytest.mark.kafka, pytest.mark.slow]
Make = Callable[..., Bench]


class Count(msgspec.Struct):
    number: int


COUNT = Stream("count", Count, table="counts", coordinates=False)
TABLE = "CREATE TABLE counts (id bigserial PRIMARY KEY, number smallint NOT NULL)"


@pytest.mark.parametrize("method", ["copy", "executemany"])
def test_a_run_stores_each_record_once_and_goes_on_while_the_table_changes(make_bench: Make, method: str) -> None:
    bench = make_bench([COUNT], RUN_IDLE_SECONDS="3600", BATCH_SIZE="50", WRITE_METHOD=method)
    bench.query(TABLE)
    bench.produce([Record(b'{"number": 40000}', 0)])
    numbers = Numbers(bench)
    numbers.some(100)

    def change() -> None:
        wait_for("rows", lambda: bench.rows() > 200)
        bench.query("ALTER TABLE counts ADD place text")
        rows = bench.rows()
        wait_for("rows after a new column", lambda: bench.rows() > rows + 100)
        bench.query("ALTER TABLE counts ALTER number TYPE integer")
        rows = bench.rows()
        wait_for("rows of a wider column", lambda: bench.rows() > rows + 100)
        bench.query("ALTER TABLE counts ALTER number TYPE text")

    with numbers.flowing(), beside(change):
        result = bench.by_sensor()
    assert "column number is text, and bigint cannot be written to it unchanged" in failure(result)
    assert not bench.check_results()[AS_DECLARED].passed
    bench.query("ALTER TABLE counts ALTER number TYPE bigint USING number::bigint")
    assert bench.check_results()[AS_DECLARED].passed
    bench = make_bench([bench.stream], KAFKA_BOOTSTRAP_SERVERS=bench.bootstrap_servers)
    bench.drain()
    assert bench.query("SELECT number FROM counts ORDER BY 1") == list(range(numbers.written))
    assert bench.query("SELECT reason FROM ingest.dead_letter") == ["value does not fit column number smallint"]
    assert accounted(bench)
