"""Runs on Celery workers with a real Redis: a worker is killed in mid-drain, and another one is stopped."""

import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ingest_pipeline.orchestration import tags
from ingest_pipeline_tests.conftest import needed
from ingest_pipeline_tests.orchestration.bench import query, wait_for
from ingest_pipeline_tests.orchestration.celery_workers import LAUNCHER, CeleryWorker
from ingest_pipeline_tests.orchestration.dagster_dev import DagsterDev
from ingest_pipeline_tests.orchestration.location import SUFFIX
from ingest_pipeline_tests.orchestration.records import prices, produce, temperatures
from ingest_pipeline_tests.servers.broker import RealKafka
from ingest_pipeline_tests.servers.redis import RedisServer

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]
LOCATION = "ingest_pipeline_tests.orchestration.location"
PARTITIONS, RECORDS, SHARDS = 4, 40, 4
MAKERS = {"temperature": temperatures, "price": prices}
KEYS = {"temperature": "device_id", "price": "symbol"}
IDLE_TICKS = 5
"""The first ticks after a kill may still see the sessions of the killed runs, for longer on a busy machine."""
OWNERS = """SELECT DISTINCT p.run_id FROM ingest.position p
    JOIN pg_stat_activity a ON a.application_name = 'ingest ' || p.run_id"""
MOVED = "SELECT count(*) FROM ingest.position WHERE updated_at > to_timestamp(%s)"
ACCOUNTED = "SELECT coalesce(sum(next_offset), 0)::int FROM ingest.position"
STORED = "SELECT count(*), count(DISTINCT {key}), (SELECT count(*) FROM ingest.dead_letter) FROM {table}"
PAUSE = """SELECT extract(epoch FROM max(pause))::float FROM (
    SELECT ingested_at - lag(ingested_at) OVER (PARTITION BY kafka_partition ORDER BY ingested_at) AS pause
    FROM {table} WHERE ingested_at > to_timestamp(%s)) AS pauses"""
"""Between two transactions of a partition, the longest."""


class Feed:
    """Writes records, no two alike, to every partition of both topics until the block ends."""

    def __init__(self, kafka: RealKafka, suffix: str) -> None:
        self._kafka, self._suffix = kafka, suffix
        self.produced = 0
        """Records of each topic."""

    @contextmanager
    def running(self) -> Iterator[None]:
        ended = threading.Event()
        thread = threading.Thread(target=self._run, args=(ended,))
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _run(self, ended: threading.Event) -> None:
        while not ended.wait(0.1):
            for name, make in MAKERS.items():
                records = make(RECORDS, PARTITIONS, first=self.produced)
                produce(self._kafka.bootstrap_servers, name + self._suffix, records)
            self.produced += RECORDS


class Location:
    """`dagster dev` of two streams with two shards each, whose runs start on Celery workers."""

    def __init__(self, dagster: DagsterDev, url: str, stack: ExitStack) -> None:
        self._dagster, self._url, self._stack = dagster, url, stack

    def worker(self, name: str, slots: int) -> CeleryWorker:
        worker = CeleryWorker(name, self._dagster.folder, LOCATION, self._dagster.environ, slots)
        self._stack.callback(worker.stop)
        return worker

    def runs_of(self, worker: CeleryWorker) -> list[str]:
        """The runs that own partitions and are processes of this worker."""
        pids = {run.run_id: int(run.tags[tags.PID]) for run in self._dagster.runs() if tags.PID in run.tags}
        return [run_id for run_id in query(self._url, OWNERS) if _group(pids.get(run_id, 0)) == worker.pid]

    def wait_until_all_move(self) -> None:
        since, partitions = time.time(), PARTITIONS * len(MAKERS)
        wait_for("rows of every partition", lambda: query(self._url, MOVED, since) == [partitions])


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid) if pid else 0
    except ProcessLookupError:
        return 0


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with needed("REQUIRE_REDIS"), RedisServer(tmp_path) as server:
        yield server


def test_a_killed_worker_and_a_stopped_one(
    kafka_server: RealKafka, database_url: str, writer_url: str, redis: RedisServer, tmp_path: Path
) -> None:
    suffix = f"-celery-{uuid.uuid4().hex[:8]}"
    for name in MAKERS:
        kafka_server.create_topic(name + suffix, PARTITIONS)
    environ = {
        SUFFIX: suffix,
        "CELERY_BROKER_URL": redis.url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka_server.bootstrap_servers,
        "KAFKA_GROUP_PREFIX": f"celery{suffix}-",
        "DATABASE_URL": writer_url,
        "PARALLELISM": str(SHARDS // len(MAKERS)),
        "RUN_IDLE_SECONDS": "3600",
        "BATCH_TIMEOUT": "0.2",
        "RUN_MEMORY": "1Gi",
    }
    feed = Feed(kafka_server, suffix)
    with ExitStack() as stack:
        dagster = stack.enter_context(DagsterDev(tmp_path, environ, ("-m", LOCATION), settings=LAUNCHER))
        location = Location(dagster, database_url, stack)
        first, second = (location.worker(name, SHARDS - 1) for name in ("first", "second"))
        with feed.running():
            wait_for("runs on both workers", lambda: all(map(location.runs_of, (first, second))))
            third = location.worker("third", SHARDS)
            third.wait_until_ready()
            location.wait_until_all_move()
            killed = {dagster.run(run_id).job.removeprefix("drain_") for run_id in location.runs_of(first)}
            killed_at = time.time()

            os.killpg(first.pid, signal.SIGKILL)
            location.wait_until_all_move()
            for name in killed:
                ticks = dagster.ticks_before_launch(name, killed_at)
                print(f"{name}: {ticks} ticks between the kill and the tick that launched")
                assert ticks <= IDLE_TICKS

            stopped = location.runs_of(second)
            os.kill(second.pid, signal.SIGTERM)
            wait_for("the worker's end", lambda: not second.runs)
            runs = [dagster.ended(run_id) for run_id in stopped]
            assert all('"memory": "1Gi"' in run.tags[tags.KUBERNETES] for run in runs)
            assert {(run.status, run.tags[tags.ENDED]) for run in runs} == {("SUCCESS", "signal")}
            wait_for("runs on the third worker alone", lambda: len(location.runs_of(third)) == SHARDS)
            location.wait_until_all_move()
        wait_for("all records", lambda: query(database_url, ACCOUNTED) == [feed.produced * len(MAKERS)])
    for table, key in KEYS.items():
        assert query(database_url, STORED.format(table=table, key=key)) == [(feed.produced, feed.produced, 0)]
        (pause,) = query(database_url, PAUSE.format(table=table), killed_at)
        print(f"{table}: {feed.produced:,} records, {pause:.1f} s without a row")
