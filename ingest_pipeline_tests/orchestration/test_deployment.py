"""Code server and daemon stop, start and are replaced while runs drain. Each test leaves a deployment that drains."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Sequence

import dagster as dg
import pytest
from dagster._core.scheduler.instigation import TickStatus

from ingest_pipeline.core.end_reasons import EndReason
from ingest_pipeline.core.roles import Role
from ingest_pipeline.orchestration import tags
from ingest_pipeline.orchestration.sensor.alerts import SENSOR as ALERTS
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.orchestration.bench import query, wait_for
from ingest_pipeline_tests.orchestration.deployment import Deployment
from ingest_pipeline_tests.orchestration.location import FIELD, SUFFIX
from ingest_pipeline_tests.orchestration.records import Record, produce, temperatures
from ingest_pipeline_tests.orchestration.webhook import Webhook, serving_webhook
from ingest_pipeline_tests.servers.broker import RealKafka
from ingest_pipeline_tests.servers.choose import RealPostgres
from ingest_pipeline_tests.servers.postgres_roles import pipeline_url, url_of

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]
JOB, SENSOR = "drain_temperature", "temperature_sensor"
GAP = """select coalesce(max(gap), 0) from (
    select extract(epoch from ingested_at - lag(ingested_at) over (order by ingested_at))::float
    from temperature where ingested_at >= to_timestamp(%s)
) as gaps (gap)"""


class Feed(threading.Thread):
    """Writes temperatures ten times a second until `stop`."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__()
        self._pipeline, self._ended = pipeline, threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.1):
            self._pipeline.produce(temperatures(4, first=self._pipeline.produced))

    def stop(self) -> None:
        self._ended.set()
        self.join()


class Pipeline:
    """Two topics, a database and their settings."""

    def __init__(self, kafka: RealKafka, url: str, webhook: Webhook) -> None:
        self.url, suffix = url, f"-{uuid.uuid4().hex[:8]}"
        for stream in STREAMS:
            kafka.create_topic(stream.topic + suffix, 2)
        self._topic, self.produced = STREAMS[0].topic + suffix, 0
        self.environ = {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "DATABASE_URL": pipeline_url(url, STREAMS),
            "BATCH_TIMEOUT": "0.2",
            "RUN_IDLE_SECONDS": "3600",
            SUFFIX: suffix,
            # Every problem is posted at once, except for late records.
            "ALERT_WEBHOOK_URL": webhook.address,
            "ALERT_AFTER_SECONDS": "0",
            "MAX_DELAY_SECONDS": "3600",
        }

    def produce(self, records: Sequence[Record]) -> None:
        produce(self.environ["KAFKA_BOOTSTRAP_SERVERS"], self._topic, records)
        self.produced += len(records)

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

    def wait_for_all(self, feed: Feed) -> None:
        """Stop the feed, and wait until each record is a row."""
        feed.stop()
        wait_for("all rows", lambda: self.rows() == self.produced, every=0.2)

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


def assert_replaced(deployment: Deployment, old_id: str, new_id: str) -> None:
    """The two newest runs: the older one yielded to a successor of another definition that had started before."""
    wait_for("the older run's end", lambda: deployment.records(JOB)[1].dagster_run.is_finished, every=0.5)
    new, old = deployment.records(JOB)[:2]
    assert (old.dagster_run.run_id, new.dagster_run.run_id) == (old_id, new_id)
    assert new.dagster_run.tags[tags.SUCCESSOR] == "definition"
    assert new.dagster_run.tags[tags.DEFINITION] != old.dagster_run.tags[tags.DEFINITION]
    assert (old.dagster_run.status, old.dagster_run.tags[tags.ENDED]) == (
        dg.DagsterRunStatus.SUCCESS,
        EndReason.YIELDED,
    )
    assert old.end_time is not None and new.start_time is not None
    assert new.start_time < old.end_time


@pytest.fixture(scope="module")
def webhook() -> Iterator[Webhook]:
    with serving_webhook() as webhook:
        yield webhook


@pytest.fixture(scope="module")
def pipeline(kafka_server: RealKafka, postgres_server: RealPostgres, webhook: Webhook) -> Iterator[Pipeline]:
    with postgres_server.new_database() as name:
        yield Pipeline(kafka_server, postgres_server.url_of(name), webhook)


@pytest.fixture(scope="module")
def deployment(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("deployment"), pipeline.environ) as deployment:
        yield deployment


@pytest.fixture
def feed(pipeline: Pipeline, deployment: Deployment) -> Iterator[Feed]:
    """Records come until the end of the test at the latest, and a run stores them."""
    deployment.start_what_does_not_run()
    feed = Feed(pipeline)
    feed.start()
    try:
        pipeline.wait_for_rows(100)
        yield feed
    finally:
        feed.stop()


def test_a_stopped_deployment_ends_its_runs_launches_none_and_starts_again_without_an_alert(
    pipeline: Pipeline, deployment: Deployment, webhook: Webhook, feed: Feed
) -> None:
    first = pipeline.owner()
    assert deployment.daemon.exit_code() == 0
    before = {record.dagster_run.run_id for record in deployment.records(JOB)}
    assert deployment.code_server.exit_code() == 0
    runs = [record.dagster_run for record in deployment.records(JOB)]
    assert {run.run_id for run in runs} == before
    assert {(run.status, run.tags[tags.ENDED]) for run in runs} == {(dg.DagsterRunStatus.SUCCESS, "signal")}
    deployment.start_code_server()
    deployment.start_daemon()
    pipeline.next_owner(first)
    pipeline.wait_for_rows(100)
    for _ in range(2):  # the second begins after the end of the first
        deployment.wait_for_tick(ALERTS)
    # On a busy machine a run may take longer to start than the minute after which its absence is news.
    assert [text for text in webhook.texts if "no run" not in text] == []
    pipeline.wait_for_all(feed)


def test_runs_drain_while_the_code_server_is_away_and_the_sensor_goes_on_after_it_is_back(
    pipeline: Pipeline, deployment: Deployment, feed: Feed
) -> None:
    """Dagster sees no end of a run that is killed later. Its missing session shows it."""
    run_id, began_at = pipeline.owner(), time.time()
    deployment.code_server.kill()
    failed = [TickStatus.FAILURE, TickStatus.FAILURE]
    wait_for(
        "two failed ticks",
        lambda: [tick.status for tick in deployment.ticks(SENSOR, began_at)][:2] == failed,
        every=0.5,
    )
    for tick in deployment.ticks(SENSOR, began_at)[:2]:
        assert tick.error is not None
        assert f"Unable to reach the user code server for sensor {SENSOR}" in tick.error.to_string()
    deployment.daemon.stop(signal.SIGKILL)
    pipeline.wait_for_rows(100)
    assert pipeline.owner() == run_id
    deployment.start_code_server()
    deployment.start_daemon()
    back_at = time.time()
    wait_for("two ticks", lambda: len(deployment.ticks(SENSOR, back_at)) > 1, every=0.5)
    for tick in deployment.ticks(SENSOR, back_at):
        assert (tick.status, tick.run_ids) == (TickStatus.SKIPPED, [])
        assert str(tick.skip_reason).startswith(f"run {run_id[:8]} is draining")
    pipeline.wait_for_rows(100)
    run = deployment.records(JOB)[0].dagster_run
    assert (run.run_id, run.status) == (run_id, dg.DagsterRunStatus.STARTED)
    os.kill(int(run.tags[tags.PID]), signal.SIGKILL)
    pipeline.next_owner(run_id)
    pipeline.wait_for_all(feed)


def test_runs_commit_until_the_code_server_beside_theirs_has_started_their_successors(
    pipeline: Pipeline, deployment: Deployment, feed: Feed
) -> None:
    old_id, began_at = pipeline.owner(), time.time()
    deployment.change_port()
    deployment.start_code_server(TEMPERATURE_BATCH_TIMEOUT="0.1")
    assert deployment.daemon.exit_code() == 0
    deployment.start_daemon()
    new_id = pipeline.next_owner(old_id)
    pipeline.wait_for_rows(200)
    pipeline.print_longest_gap(began_at)
    pipeline.wait_for_all(feed)
    assert_replaced(deployment, old_id, new_id)


def test_a_run_of_the_older_code_drains_on_a_table_that_the_newer_code_has_migrated(
    pipeline: Pipeline, deployment: Deployment, feed: Feed
) -> None:
    """The newer code server starts after the older one is killed."""
    old_id, newer, began_at = pipeline.owner(), {FIELD: "site"}, time.time()
    owner_url = url_of(pipeline.url, Role.OWNER)
    assert "added column public.temperature.site" in deployment.ingest("migrate", DATABASE_URL=owner_url, **newer)
    pipeline.wait_for_rows(100)
    wait_for("two ticks", lambda: len(deployment.ticks(SENSOR, began_at)) > 1, every=0.5)
    assert {tick.status for tick in deployment.ticks(SENSOR, began_at)} == {TickStatus.SKIPPED}
    assert pipeline.owner() == old_id
    deployment.code_server.kill()
    deployment.start_code_server(**newer)
    new_id = pipeline.next_owner(old_id)
    pipeline.wait_for_rows(200)
    pipeline.print_longest_gap(began_at)
    feed.stop()
    (value,) = (record.value for record in temperatures(1))
    assert value is not None
    pipeline.produce([Record(value[:-1] + b', "site": "north"}')])
    pipeline.wait_for_all(feed)
    assert query(pipeline.url, "select site, count(*) from temperature where site is not null group by 1") == [
        ("north", 1)
    ]
    assert_replaced(deployment, old_id, new_id)
