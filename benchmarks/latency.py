"""How long a record takes from Kafka to a committed row: at a constant rate through hand-overs, and from idle."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

import psycopg

from ingest_pipeline.cli.progress import progress
from ingest_pipeline.demo.simulate import Plan
from ingest_pipeline_tests.orchestration.bench import wait_for
from ingest_pipeline_tests.orchestration.dagster_dev import DagsterDev

from .rates import quantile
from .system import TOPICS, System, dagster_dev

_LOOK_SECONDS = 0.01
_NEWEST = "{runsOrError(limit: 1) {... on Runs {results {creationTime stepStats {startTime}}}}}"
Seen = dict[tuple[str, int], list[tuple[int, float]]]
"""(stream, partition) → (next offset, when it was first seen committed), in order."""


@dataclass(frozen=True)
class Latency:
    """Seconds from the record's Kafka timestamp until its row was seen by another connection.

    Attributes:
        hand_overs: how often a partition's next batch came from another run.
        hand_over_seconds: the longest time between the last commit of a run and the first of its successor.
        between_commits: the same between two commits of one run: 99 % of them are within it.
        runs: whose commits were seen.
        dagster_mib: what Dagster's storage grew by.
    """

    records: int
    seconds: float
    p50: float
    p99: float
    longest: float
    hand_overs: int
    hand_over_seconds: float
    between_commits: float
    runs: int
    dagster_mib: float


class Watch:
    """Looks at the positions from a connection of its own, a hundred times a second."""

    def __init__(self, url: str) -> None:
        self._url, self._stop = url, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.seen: Seen = defaultdict(list)
        self.runs: dict[tuple[str, int], list[tuple[float, str]]] = defaultdict(list)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._stop.wait(_LOOK_SECONDS):
                if connection.execute("SELECT to_regclass('ingest.position')").fetchone() == (None,):
                    continue
                rows = connection.execute("SELECT stream, kafka_partition, next_offset, run_id FROM ingest.position")
                now = time.time()
                for stream, partition, next_offset, run_id in rows:
                    seen = self.seen[stream, partition]
                    if not seen or seen[-1][0] < next_offset:
                        seen.append((next_offset, now))
                        self.runs[stream, partition].append((now, run_id))


def steady_load(running: System, seconds: float, rate: float, settings: Mapping[str, str]) -> Latency:
    """So many records a second over both topics, drained by sensor-launched runs as they come."""
    with dagster_dev(running, settings) as dagster, Watch(running.database_url) as watch:
        _send(running, Plan(topics=TOPICS, rate=rate, seconds=15, broken_every=0))  # both streams have a run
        before, since = _storage_mib(dagster), time.time()
        _send(running, Plan(topics=TOPICS, rate=rate, seconds=seconds, broken_every=0))
        time.sleep(2.0)
        took, after = time.time() - since, _storage_mib(dagster)
    found = list(_latencies(running, watch.seen, since))
    changes = [gap for gap, change in _gaps(watch, since) if change]
    others = [gap for gap, change in _gaps(watch, since) if not change]
    return Latency(
        len(found),
        took,
        quantile(found, 0.5),
        quantile(found, 0.99),
        max(found),
        len(changes),
        max(changes, default=0.0),
        quantile(others, 0.99),
        len({run for commits in watch.runs.values() for at, run in commits if at >= since}),
        after - before,
    )


@dataclass(frozen=True)
class ColdStart:
    """Seconds from a record's Kafka timestamp until its row is there, while no run of the stream lives.

    Attributes:
        launch: of these, from the run's creation until its op begins: Dagster's own.
        own: from there until the first batch's transaction.
    """

    whole: float
    launch: float
    own: float


def cold_starts(running: System, tries: int) -> list[ColdStart]:
    """One record at a time to one stream, each after the run before has ended."""
    found: list[ColdStart] = []
    plan = Plan(topics=TOPICS[:1], rate=0, records=1, broken_every=0)
    count = f"SELECT count(*) FROM {TOPICS[0]}"
    times = f"SELECT extract(epoch FROM max(kafka_timestamp)), extract(epoch FROM max(ingested_at)) FROM {TOPICS[0]}"
    with dagster_dev(running, {"RUN_IDLE_SECONDS": "1"}) as dagster, progress("cold starts", tries) as show:
        _send(running, plan)
        wait_for("the table", lambda: running.query(f"SELECT to_regclass('{TOPICS[0]}')") != [(None,)], 60)
        for number in range(1, tries + 1):
            _wait_for_rows(running, count, number)
            wait_for("the run's end", lambda: all(run.ended for run in dagster.runs()), 60)
            time.sleep(number % 5)  # not in step with the sensor's ticks
            _send(running, plan)
            _wait_for_rows(running, count, number + 1)
            seen = time.time()
            (run,) = dagster.ask(_NEWEST)["runsOrError"]["results"]
            began = run["stepStats"][0]["startTime"]
            sent, stored = (float(str(at)) for at in running.query(times)[0])
            found.append(ColdStart(seen - sent, began - run["creationTime"], stored - began))
            show(number)
    return found


def import_seconds() -> float:
    """What a new process takes to import Dagster, the least of five: most of a run's start, and the machine's speed."""
    took = []
    for _ in range(5):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", "import dagster"], check=True)
        took.append(time.monotonic() - began)
    return min(took)


def _wait_for_rows(running: System, count: str, rows: int) -> None:
    wait_for("a row", lambda: running.query(count) == [(rows,)], 60, every=0.01)


def _send(running: System, plan: Plan) -> None:
    assert running.send(plan).acknowledged == plan.total, "the broker did not take every record"


def _latencies(running: System, seen: Seen, since: float) -> Iterator[float]:
    for topic in TOPICS:
        statement = (
            f"SELECT kafka_partition, kafka_offset, extract(epoch FROM kafka_timestamp)::float8 FROM {topic}"
            " WHERE kafka_timestamp >= %s"
        )
        with psycopg.connect(running.database_url) as connection:
            for partition, offset, at in connection.execute(statement, [datetime.fromtimestamp(since, UTC)]):
                commits = seen[topic, partition]
                yield commits[bisect_right(commits, offset, key=lambda commit: commit[0])][1] - at


def _gaps(watch: Watch, since: float) -> Iterator[tuple[float, bool]]:
    """(seconds between two commits of a partition, whether the second came from another run)."""
    for commits in watch.runs.values():
        kept = [commit for commit in commits if commit[0] >= since]
        for (before, run), (after, next_run) in pairwise(kept):
            yield after - before, run != next_run


def _storage_mib(dagster: DagsterDev) -> float:
    files = (path for path in dagster.folder.rglob("*") if path.is_file() and path.name != "dagster.log")
    return sum(path.stat().st_size for path in files) / (1 << 20)
