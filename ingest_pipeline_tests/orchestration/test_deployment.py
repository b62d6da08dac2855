"""Code server and daemon stop, start and are replaced while runs drain."""

from __future__ import annotations

import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.scheduler.instigation import TickStatus

from ingest_pipeline.core.end_reasons import EndReason
from ingest_pipeline.core.roles import Role
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.sensor.alerts import SENSOR as ALERTS
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.orchestration.bench import query, wait_for
from ingest_pipeline_tests.orchestration.dagster_dev import DagsterDev
from ingest_pipeline_tests.orchestration.deployment import LOCATION, Deployment, end_group
from ingest_pipeline_tests.orchestration.location import FIELD, SUFFIX
from ingest_pipeline_tests.orchestration.records import Record, produce, temperatures
from ingest_pipeline_tests.orchestration.webhook import serving_webhook
from ingest_pipeline_tests.servers.broker import RealKafka
from ingest_pipeline_tests.servers.postgres_roles import pipeline_url, url_of

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]
JOB, SENSOR = "drain_temperature", "temperature_sensor"
GAP = """select coalesce(max(gap), 0) from (
    select extract(epoch from ingested_at - lag(ingested_at) over (order by ingested_at))::float
    from temperature where ingested_at >= to_timestamp(%s)
) as gaps (gap)"""


class Feed(threading.Thread):
    """Writes temperatures ten times a second until `stop`."""

    def __init__(self, kafka: RealKafka, topic: str) -> None:
        super().__init__()
        self.produced = 0
        self._kafka, self._topic, self._ended = kafka, topic, threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.1):
            produce(self._kafka.bootstrap_servers, self._topic, temperatures(4, first=self.produced))
            self.produced += 4

    def stop(self) -> int:
        """Number of all records."""
        self._ended.set()
        self.join()
        return self.produced


class Pipeline:
    """Two topics, a database and their settings."""

    def __init__(self, kafka: RealKafka, url: str) -> None:
        self.kafka, self.url, suffix = kafka, url, f"-{uuid.uuid4().hex[:8]}"
        for stream in STREAMS:
            kafka.create_topic(stream.topic + suffix, 2)
        self.topic = STREAMS[0].topic + suffix
        self.environ = {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "DATABASE_URL": pipeline_url(url, STREAMS),
            "BATCH_TIMEOUT": "0.2",
            "RUN_IDLE_SECONDS": "3600",
            SUFFIX: suffix,
        }

    def rows(self) -> int:
        count, distinct = query(
            self.url, "select count(*), count(distinct (kafka_partition, kafka_offset)) from temperature"
        )[0]
        assert count == distinct
        return int(count)

    def owner(self) -> str:
        """The run that drains temperatures, or an empty string."""
        return next(
            iter(
                query(
                    self.url,
                    """select distinct run_id from ingest.position join pg_stat_activity
                    on application_name = 'ingest ' || run_id
                    where stream = 'temperature' and datname = current_database()""",
                )
            ),
            "",
        )

    @contextmanager
    def feed(self) -> Iterator[Feed]:
        """Records come until the end of the block at the latest."""
        feed = Feed(self.kafka, self.topic)
        feed.start()
        try:
            yield feed
        finally:
            feed.stop()

    def wait_for_all(self, feed: Feed, others: int = 0) -> None:
        """Stop the feed, and wait until each of its records and these others is a row."""
        produced = feed.stop() + others
        wait_for("all rows", lambda: self.rows() == produced, every=0.2)

    def next_owner(self, run_id: str = "") -> str:
        """Wait for another run than this one."""
        other: str = wait_for("a run", lambda: owner if (owner := self.owner()) != run_id else "", every=0.2)
        return other

    def wait_for_rows(self, count: int) -> None:
        """Wait until this many rows more are stored."""
        rows = self.rows() + count
        wait_for("rows", lambda: self.rows() >= rows, every=0.2)

    def print_longest_gap(self, began_at: float) -> None:
        """Between two commits since this Unix time."""
        (gap,) = query(self.url, GAP, began_at)
        print(f"the longest gap between commits is {gap:.2f} s")


def replaced(deployment: Deployment, old_id: str, new_id: str) -> tuple[dg.RunRecord, dg.RunRecord]:
    """The older and the newer run: the only runs, and the older one yielded to a successor of another definition."""
    records = {record.dagster_run.run_id: record for record in deployment.records(JOB)}
    assert records.keys() == {old_id, new_id}
    old, new = records[old_id], records[new_id]
    assert new.dagster_run.tags[tags.SUCCESSOR] == "definition"
    assert (old.dagster_run.status, old.dagster_run.tags[tags.ENDED]) == (
        dg.DagsterRunStatus.SUCCESS,
        EndReason.YIELDED,
    )
    return old, new


@pytest.fixture
def pipeline(kafka_server: RealKafka, database_url: str) -> Pipeline:
    return Pipeline(kafka_server, database_url)


def test_a_stopped_deployment_ends_its_runs_launches_none_and_starts_again_without_an_alert(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    with serving_webhook() as webhook:
        # Every problem is posted at once, except for late records.
        alerts = {"ALERT_WEBHOOK_URL": webhook.address, "ALERT_AFTER_SECONDS": "0", "MAX_DELAY_SECONDS": "3600"}
        with Deployment(tmp_path, {**pipeline.environ, **alerts}) as deployment, pipeline.feed() as feed:
            code, daemon = deployment.code_server(), deployment.daemon()
            first = pipeline.next_owner()
            pipeline.wait_for_rows(100)
            assert daemon.exit_code() == 0
            before = {record.dagster_run.run_id for record in deployment.records(JOB)}
            assert code.exit_code() == 0
            runs = [record.dagster_run for record in deployment.records(JOB)]
            assert {run.run_id for run in runs} == before
            assert {(run.status, run.tags[tags.ENDED]) for run in runs} == {(dg.DagsterRunStatus.SUCCESS, "signal")}
            deployment.code_server()
            deployment.daemon()
            pipeline.next_owner(first)
            pipeline.wait_for_rows(100)
            for _ in range(2):  # the second begins after the end of the first
                deployment.wait_for_tick(ALERTS)
            # On a busy machine a run may take longer to start than the minute after which its absence is news.
            assert [text for text in webhook.texts if "no run" not in text] == []
            pipeline.wait_for_all(feed)


@pytest.mark.parametrize("beside", [False, True], ids=["killed", "beside the old one"])
def test_the_runs_of_a_replaced_code_server_commit_until_their_successors_have_started(
    pipeline: Pipeline, tmp_path: Path, beside: bool
) -> None:
    with pipeline.feed() as feed, Deployment(tmp_path, pipeline.environ) as deployment:
        code, daemon = deployment.code_server(), deployment.daemon()
        old_id = pipeline.next_owner()
        pipeline.wait_for_rows(200)
        began_at = time.time()
        if beside:
            deployment.change_port()
        else:
            code.kill()
        deployment.code_server(TEMPERATURE_BATCH_TIMEOUT="0.1")
        if beside:
            assert daemon.exit_code() == 0
            deployment.daemon()
        new_id = pipeline.next_owner(old_id)
        pipeline.wait_for_rows(200)
        pipeline.print_longest_gap(began_at)
        pipeline.wait_for_all(feed)
        old, new = replaced(deployment, old_id, new_id)
        assert new.dagster_run.tags[tags.DEFINITION] != old.dagster_run.tags[tags.DEFINITION]
        assert old.end_time is not None and new.start_time is not None
        assert new.start_time < old.end_time


def test_runs_drain_while_the_code_server_is_away_and_the_sensor_goes_on_after_it_is_back(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    with pipeline.feed() as feed, Deployment(tmp_path, pipeline.environ) as deployment:
        code, _ = deployment.code_server(), deployment.daemon()
        run_id = pipeline.next_owner()
        pipeline.wait_for_rows(100)
        began_at = time.time()
        code.kill()
        failed = [TickStatus.FAILURE, TickStatus.FAILURE]
        wait_for(
            "two failed ticks",
            lambda: [tick.status for tick in deployment.ticks(SENSOR, began_at)][:2] == failed,
            every=0.5,
        )
        for tick in deployment.ticks(SENSOR, began_at)[:2]:
            assert tick.error is not None
            assert f"Unable to reach the user code server for sensor {SENSOR}" in tick.error.to_string()
        pipeline.wait_for_rows(100)
        assert pipeline.owner() == run_id
        deployment.code_server()
        back_at = time.time()
        wait_for("two ticks", lambda: len(deployment.ticks(SENSOR, back_at)) > 1, every=0.5)
        for tick in deployment.ticks(SENSOR, back_at):
            assert (tick.status, tick.run_ids) == (TickStatus.SKIPPED, [])
            assert str(tick.skip_reason).startswith(f"run {run_id[:8]} is draining")
        pipeline.wait_for_rows(100)
        pipeline.wait_for_all(feed)
        (run,) = [record.dagster_run for record in deployment.records(JOB)]
        assert (run.run_id, run.status) == (run_id, dg.DagsterRunStatus.STARTED)


def test_a_run_of_the_older_code_drains_on_a_table_that_the_newer_code_has_migrated(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    with pipeline.feed() as feed, Deployment(tmp_path, pipeline.environ) as deployment:
        code, _ = deployment.code_server(), deployment.daemon()
        old_id = pipeline.next_owner()
        pipeline.wait_for_rows(100)
        newer, began_at = {FIELD: "site"}, time.time()
        owner_url = url_of(pipeline.url, Role.OWNER)
        assert "added column public.temperature.site" in deployment.ingest("migrate", DATABASE_URL=owner_url, **newer)
        pipeline.wait_for_rows(100)
        wait_for("two ticks", lambda: len(deployment.ticks(SENSOR, began_at)) > 1, every=0.5)
        assert {tick.status for tick in deployment.ticks(SENSOR, began_at)} == {TickStatus.SKIPPED}
        assert pipeline.owner() == old_id
        code.kill()
        deployment.code_server(**newer)
        new_id = pipeline.next_owner(old_id)
        (value,) = (record.value for record in temperatures(1))
        assert value is not None
        produce(pipeline.kafka.bootstrap_servers, pipeline.topic, [Record(value[:-1] + b', "site": "north"}')])
        pipeline.wait_for_all(feed, 1)
        assert query(pipeline.url, "select site, count(*) from temperature where site is not null group by 1") == [
            ("north", 1)
        ]
        pipeline.print_longest_gap(began_at)
        wait_for("the older run's end", lambda: deployment.records(JOB)[-1].dagster_run.is_finished, every=0.5)
        replaced(deployment, old_id, new_id)


def test_ctrl_c_leaves_no_process_of_dagster_dev(pipeline: Pipeline, tmp_path: Path) -> None:
    with pipeline.feed(), DagsterDev(tmp_path, pipeline.environ, ["-m", LOCATION]) as dagster:
        run_id = pipeline.next_owner()
        end_group(dagster.family, signal.SIGINT)
    # The paths in dagster.yaml are relative.
    with chdir(tmp_path), dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        run = instance.get_run_by_id(run_id)
    assert run is not None
    assert (run.status, run.tags[tags.ENDED]) == (dg.DagsterRunStatus.SUCCESS, "signal")
