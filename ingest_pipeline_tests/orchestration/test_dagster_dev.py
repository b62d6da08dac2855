"""A full `dagster dev` on real Kafka and PostgreSQL: runs launched by sensors, stopped in every way there is.

A batch of temperatures closes at 500 records or after a minute, so that what a stopped run has in hand is seen.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass

import dagster as dg
import pytest

from ingest_pipeline.orchestration import tags
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.orchestration.bench import query, wait_for
from ingest_pipeline_tests.orchestration.dagster_dev import ROOT, DagsterDev, Run
from ingest_pipeline_tests.orchestration.deployment import end_group
from ingest_pipeline_tests.orchestration.records import Record, prices, produce, temperatures, with_broken
from ingest_pipeline_tests.servers.broker import RealKafka
from ingest_pipeline_tests.servers.choose import RealPostgres
from ingest_pipeline_tests.servers.postgres_roles import pipeline_url

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(400)]
BATCH = 500
IN_HAND = 200
FETCH_SECONDS = 2.0
"""How long a run on a busy machine takes to read IN_HAND records behind a batch. No other process can see them there.
"""


@dataclass
class Here:
    dagster: DagsterDev
    bootstrap_servers: str
    url: str

    def produce(self, stream: str, records: list[Record]) -> None:
        produce(self.bootstrap_servers, stream, records)

    def rows(self, table: str) -> int:
        return int(query(self.url, f"select count(*) from {table}")[0])

    def drainer(self, stream: str) -> Run:
        """The live run that owns the stream; when there is none a batch of records brings one."""
        if not self._owner(stream):
            self.produce(stream, temperatures(BATCH) if stream == "temperature" else prices(BATCH))
        run_id = wait_for(f"a drainer of {stream}", lambda: self._owner(stream), every=0.2)
        wait_for("its end of the topic", lambda: "lag 0" in self.dagster.skip_reason(stream), every=0.5)
        return self.dagster.run(run_id)

    def with_some_in_hand(self, run: Run) -> int:
        """Let the drainer of temperatures have IN_HAND records that are not committed; the rows there are then."""
        before = self.rows("temperature")
        self.produce("temperature", temperatures(BATCH + IN_HAND))
        wait_for("the full batch", lambda: self.rows("temperature") == before + BATCH)
        time.sleep(FETCH_SECONDS)
        assert not self.dagster.run(run.run_id).ended
        return before + BATCH

    def followed(self, run: Run) -> None:
        """Another run goes on where this one ended."""
        before = self.rows("temperature")
        self.produce("temperature", temperatures(BATCH))
        wait_for("the next run's rows", lambda: self.rows("temperature") == before + BATCH, every=0.2)
        assert self._owner("temperature") != run.run_id

    def _owner(self, stream: str) -> str:
        found = query(
            self.url,
            """select substr(application_name, 8) from pg_stat_activity join ingest.position
               on application_name = 'ingest ' || run_id where stream = %s and datname = current_database()""",
            stream,
        )
        return str(found[0]) if found else ""


@pytest.fixture(scope="module")
def bench(
    own_kafka: RealKafka, postgres_server: RealPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Here]:
    with postgres_server.new_database() as database:
        for name in ("temperature", "price"):
            own_kafka.create_topic(name, 2)
        environ = {
            "KAFKA_BOOTSTRAP_SERVERS": own_kafka.bootstrap_servers,
            "DATABASE_URL": pipeline_url(postgres_server.url_of(database), STREAMS),
            "BATCH_SIZE": str(BATCH),
            "TEMPERATURE_BATCH_TIMEOUT": "60",
            "TEMPERATURE_RECORDS_PER_COMMIT": "1",  # what is more than a batch stays in hand
            "RUN_IDLE_SECONDS": "3600",
        }
        with DagsterDev(tmp_path_factory.mktemp("dagster"), environ) as dagster:
            yield Here(dagster, own_kafka.bootstrap_servers, postgres_server.url_of(database))


def test_sensors_launch_runs_that_drain_both_streams(bench: Here) -> None:
    bench.produce("temperature", with_broken(temperatures(4 * BATCH), every=100))
    bench.produce("price", with_broken(prices(4 * BATCH), every=200))
    wait_for("temperatures", lambda: bench.rows("temperature") == 4 * BATCH - 20, every=0.2)
    wait_for("prices", lambda: bench.rows("price") == 4 * BATCH - 10, every=0.2)
    letters = query(bench.url, "select stream, count(*) from ingest.dead_letter group by 1 order by 1")
    assert letters == [("price", 10), ("temperature", 20)]
    for stream in ("temperature", "price"):
        run = bench.drainer(stream)
        assert run.status == "STARTED"
        assert run.tags["dagster/sensor_name"] == f"{stream}_sensor"
        assert (run.tags[tags.STREAM], run.tags[tags.SHARD]) == (stream, "0/1")
        assert bench.dagster.skip_reason(stream) == f"run {run.run_id[:8]} is draining; lag 0"
        topic = bench.dagster.observed("kafka", stream)[-1]
        assert topic.keys() == {"lag", "blocked_records", "partitions"}
        assert topic["blocked_records"] == 0


def test_terminate_commits_what_is_in_hand(bench: Here) -> None:
    run = bench.drainer("temperature")
    rows = bench.with_some_in_hand(run)
    bench.dagster.terminate(run.run_id)
    ended = bench.dagster.ended(run.run_id)
    assert (ended.status, ended.tags[tags.ENDED]) == ("CANCELED", "terminated")
    assert bench.rows("temperature") == rows + IN_HAND
    assert int(ended.tags[tags.ROWS]) >= BATCH + IN_HAND
    assert bench.dagster.materialized(run.run_id)["temperature"]["ended"] == "terminated"
    bench.followed(run)


def test_a_sigterm_commits_what_is_in_hand(bench: Here) -> None:
    run = bench.drainer("temperature")
    rows = bench.with_some_in_hand(run)
    os.kill(int(run.tags[tags.PID]), signal.SIGTERM)
    ended = bench.dagster.ended(run.run_id)
    assert (ended.status, ended.tags[tags.ENDED]) == ("SUCCESS", "signal")
    assert bench.rows("temperature") == rows + IN_HAND
    bench.followed(run)


def test_a_killed_run_fails_and_the_next_one_stores_what_it_had_in_hand(bench: Here) -> None:
    run = bench.drainer("temperature")
    rows = bench.with_some_in_hand(run)
    os.kill(int(run.tags[tags.PID]), signal.SIGKILL)
    assert bench.dagster.ended(run.run_id).status == "FAILURE"
    assert bench.rows("temperature") == rows
    bench.produce("temperature", temperatures(BATCH - IN_HAND))
    wait_for("a full batch of the next run", lambda: bench.rows("temperature") == rows + BATCH, every=0.2)
    counters = """select sum("rows")::int, sum(dead_letters)::int, sum(next_offset - first_offset)::int
        from ingest.position where stream = 'temperature'"""
    ((stored, letters, consumed),) = query(bench.url, counters)
    assert stored == bench.rows("temperature") == rows + BATCH
    assert consumed == stored + letters


def ingest(bench: Here, *arguments: str) -> str:
    command = [sys.executable, "-m", "ingest_pipeline.cli.main", *arguments]
    environ = {**bench.dagster.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environ, cwd=bench.dagster.folder, capture_output=True, text=True, check=True)
    return done.stdout


def test_a_paused_stream_stops_within_a_batch_until_it_is_resumed(bench: Here) -> None:
    run = bench.drainer("temperature")
    rows = bench.with_some_in_hand(run)
    assert "temperature is paused" in ingest(bench, "pause", "temperature", "--reason", "rebuilding")
    ended = bench.dagster.ended(run.run_id)
    assert (ended.status, ended.tags[tags.ENDED]) == ("SUCCESS", "paused")
    assert bench.rows("temperature") == rows + IN_HAND
    bench.produce("temperature", temperatures(BATCH))
    wait_for("the lag", lambda: bench.dagster.skip_reason("temperature").endswith(f"; lag {BATCH}"), every=0.5)
    assert bench.dagster.skip_reason("temperature").startswith("paused: rebuilding (")
    assert bench.dagster.runs("temperature")[0].run_id == run.run_id
    assert bench.rows("temperature") == rows + IN_HAND
    ingest(bench, "resume", "temperature")
    wait_for("the rest", lambda: bench.rows("temperature") == rows + IN_HAND + BATCH, every=0.2)


def test_a_sensor_switched_off_launches_nothing_and_leaves_the_live_run_alone(bench: Here) -> None:
    run, tick = bench.drainer("temperature"), bench.dagster.tick_of("temperature")
    bench.dagster.switch_sensor("temperature", on=False)
    wait_for("the end of a tick that had begun", lambda: bench.dagster.tick_of("price") > tick + 10, every=0.5)
    rows = bench.rows("temperature")
    bench.produce("temperature", temperatures(BATCH))
    wait_for("its batch", lambda: bench.rows("temperature") == rows + BATCH)
    bench.dagster.terminate(run.run_id)
    bench.dagster.ended(run.run_id)
    bench.produce("temperature", temperatures(BATCH))
    before, tick = bench.dagster.tick_of("temperature"), bench.dagster.tick_of("price")
    wait_for("ticks of the other sensor", lambda: bench.dagster.tick_of("price") > tick + 12, every=0.5)
    assert bench.dagster.tick_of("temperature") == before
    assert bench.dagster.runs("temperature")[0].run_id == run.run_id
    assert bench.rows("temperature") == rows + BATCH
    bench.dagster.switch_sensor("temperature", on=True)
    wait_for("the rest", lambda: bench.rows("temperature") == rows + 2 * BATCH, every=0.2)


def test_materialize_beside_running_drains_names_them(bench: Here) -> None:
    drainers = {stream: bench.drainer(stream) for stream in ("temperature", "price")}
    run_id = bench.dagster.materialize("temperature", "price")
    ended = bench.dagster.ended(run_id)
    assert (ended.status, ended.job) == ("SUCCESS", "__ASSET_JOB")
    materialized = bench.dagster.materialized(run_id)
    for stream, drainer in drainers.items():
        owner = f"run {drainer.run_id[:8]}"
        assert materialized[stream]["drained_by_others"] == f"partition 0: {owner}, partition 1: {owner}"
        assert materialized[stream]["rows"] == 0
        assert not bench.dagster.run(drainer.run_id).ended


def test_ctrl_c_commits_what_is_in_hand_and_leaves_no_process(bench: Here) -> None:
    """The last test, because it ends Dagster."""
    run = bench.drainer("temperature")
    rows = bench.with_some_in_hand(run)
    end_group(bench.dagster.family, signal.SIGINT)
    assert bench.rows("temperature") == rows + IN_HAND
    # The paths in dagster.yaml are relative.
    with chdir(bench.dagster.folder), dg.DagsterInstance.from_config(str(bench.dagster.folder)) as instance:
        ended = instance.get_run_by_id(run.run_id)
    assert ended is not None
    assert (ended.status, ended.tags[tags.ENDED]) == (dg.DagsterRunStatus.SUCCESS, "signal")
