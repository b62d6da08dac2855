"""A stream moves between jobs while records come: nothing lost, nothing twice, and no position ever goes back.

Meanwhile a stream that declares `max_silence` turns stale in Dagster, because no record comes. That takes 75 s.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingest_pipeline.core.roles import Role
from ingest_pipeline_tests.orchestration.bench import query, wait_for
from ingest_pipeline_tests.orchestration.dagster_dev import DagsterDev
from ingest_pipeline_tests.orchestration.location import JOBS_FILE, SILENT_TOPIC, SUFFIX
from ingest_pipeline_tests.orchestration.records import produce, temperatures
from ingest_pipeline_tests.orchestration.test_kill import Feed, note_steps_back, steps_back
from ingest_pipeline_tests.servers.broker import RealKafka

LOCATION = ["-m", "ingest_pipeline_tests.orchestration.location"]
TOGETHER = {"temperature": "sites", "price": "sites"}
APART = {"temperature": "attic", "price": "sites"}
_FRESHNESS = """query ($key: AssetKeyInput!) {assetNodeOrError(assetKey: $key) {... on AssetNode {
    freshnessStatusInfo {freshnessStatus}}}}"""


@pytest.fixture
def feed(kafka_server: RealKafka, database_url: str) -> Iterator[Feed]:
    with Feed(kafka_server, database_url, role=Role.OWNER) as feed:  # the runs make the table of the silent stream
        yield feed


@contextmanager
def load(feed: Feed) -> Iterator[None]:
    """Write records to both topics during the block."""
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(2.0):
            for stream in feed.streams:
                feed.more(stream)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Freshness:
    """Follows the freshness of the silent stream in Dagster: UNKNOWN, HEALTHY or DEGRADED."""

    def __init__(self, dagster: DagsterDev) -> None:
        self._dagster = dagster
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow)
        self.statuses: list[str] = []

    def __enter__(self) -> Freshness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._stop.wait(1.0):
            node = self._dagster.ask(_FRESHNESS, key={"path": ["silent"]})["assetNodeOrError"]
            status = (node.get("freshnessStatusInfo") or {}).get("freshnessStatus")
            if status and self.statuses[-1:] != [status]:
                self.statuses.append(str(status))


def drained_by(dagster: DagsterDev, feed: Feed) -> dict[str, set[str]]:
    """Stream → jobs of the runs that own its positions and go on."""
    job_of = {run.run_id: run.job for run in dagster.runs() if not run.ended}
    positions = query(feed.url, "select stream, run_id from ingest.position")
    return {
        stream.name: {job_of.get(run_id, "") for name, run_id in positions if name == stream.name}
        for stream in feed.streams
    }


def wait_for_jobs(dagster: DagsterDev, feed: Feed, jobs: Mapping[str, str]) -> None:
    """Wait until the streams are drained by these jobs, and then for 5,000 more records of each stream."""
    expected = {stream: {f"drain_{job}"} for stream, job in jobs.items()}
    wait_for(f"runs of {expected}", lambda: drained_by(dagster, feed) == expected, 120, every=0.5)
    for stream in feed.streams:
        target = feed.position(stream) + 5_000
        wait_for("rows", lambda stream=stream, target=target: feed.position(stream) > target)
    assert drained_by(dagster, feed) == expected


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_is_lost_or_twice_while_a_stream_moves(kafka_server: RealKafka, feed: Feed, tmp_path: Path) -> None:
    jobs_file = tmp_path / "jobs.json"
    silent = f"silent{feed.suffix}"
    kafka_server.create_topic(silent, 1)
    produce(kafka_server.bootstrap_servers, silent, temperatures(5, partitions=1))
    jobs_file.write_text(json.dumps(TOGETHER))
    environ = {
        **feed.environ,
        SUFFIX: feed.suffix,
        JOBS_FILE: str(jobs_file),
        SILENT_TOPIC: silent,
        "SILENT_RUN_MAX_SECONDS": "10",
        "SILENT_RUN_IDLE_SECONDS": "0",
    }
    note_steps_back(feed.url)
    with DagsterDev(tmp_path, environ, LOCATION) as dagster, Freshness(dagster) as freshness:
        with load(feed):
            wait_for_jobs(dagster, feed, TOGETHER)
            for jobs in (APART, TOGETHER):
                jobs_file.write_text(json.dumps(jobs))
                dagster.reload()
                wait_for_jobs(dagster, feed, jobs)
        wait_for("lag 0", lambda: feed.lag() == 0, 120)
        assert {run.status for run in dagster.runs() if run.ended} == {"SUCCESS"}
        wait_for("the silence", lambda: freshness.statuses[-2:] == ["HEALTHY", "DEGRADED"], 240, every=0.5)
    feed.assert_exact()
    assert steps_back(feed.url) == []
