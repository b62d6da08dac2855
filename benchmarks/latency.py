"""How long a record takes from Kafka to a committed row, at a constant rate through hand-overs between runs."""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

import click
import psycopg

from ingest_pipeline.demo.simulate import Plan
from ingest_pipeline.settings import JobSettings
from ingest_pipeline_tests.orchestration.dagster_dev import DagsterDev

from . import document
from .effort import Effort
from .rates import quantile
from .system import TOPICS, System, dagster_dev, send_all

_LOOK_SECONDS = 0.01
Seen = dict[tuple[str, int], list[tuple[int, float]]]
"""(stream, partition) → (next offset, when it was first seen committed), in order."""


@dataclass(frozen=True)
class Latency:
    """Seconds from a record's Kafka timestamp until another connection saw its row.

    Attributes:
        hand_overs: how often a partition's next batch came from another run.
        hand_over_seconds: the longest time between the last commit of a run and the first of its successor.
        between_commits: the time between two commits of one run that 99 % do not exceed.
        runs: how many runs committed.
        dagster_mib: growth of Dagster's storage.
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
    """Reads the positions by its own connection, a hundred times a second."""

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


def section(running: System, effort: Effort) -> str:
    rows, growths = [], []
    for name, seconds, settings in (
        ("default settings, RUN_MAX_SECONDS=150", 600.0, {"RUN_MAX_SECONDS": "150"}),
        ("BATCH_TIMEOUT=0.1, RUN_MAX_SECONDS=60", 180.0, {"RUN_MAX_SECONDS": "60", "BATCH_TIMEOUT": "0.1"}),
    ):
        load = steady_load(running, seconds * effort.scale, 1000, settings)
        click.echo(f"  {name}: {load}")
        figures = (load.p50, load.p99, load.longest, load.between_commits, load.hand_over_seconds)
        rows.append((name, f"{load.records:,}", *(f"{value:.3f}" for value in figures), str(load.hand_overs)))
        growths.append(f"{load.dagster_mib:.1f} MiB in {load.seconds:.0f} s with {load.runs} runs ({name})")
    head = ["settings", "records", "p50", "p99", "longest", "between two commits, p99"]
    head += ["between the commits of two runs, longest", "hand-overs"]
    runs_a_day = 86_400 // JobSettings().run_max_seconds
    return "\n\n".join(
        [
            "1,000 records a second over both topics, drained by sensor-launched runs. Seconds from a record's Kafka\n"
            "timestamp until another connection sees it committed. Commits and hand-overs are counted for each\n"
            "partition.",
            document.table(head, rows),
            f"Dagster's storage grew by {' and by '.join(growths)}.\nAt constant traffic and default settings a stream"
            f" has {runs_a_day} runs a day.",
        ]
    )


def steady_load(running: System, seconds: float, rate: float, settings: Mapping[str, str]) -> Latency:
    """Send `rate` records a second over both topics, while sensor-launched runs drain them."""
    with dagster_dev(running, settings) as dagster, Watch(running.database_url) as watch:
        send_all(running, Plan(topics=TOPICS, rate=rate, seconds=15, broken_every=0))  # both streams have a run
        before, since = _storage_mib(dagster), time.time()
        send_all(running, Plan(topics=TOPICS, rate=rate, seconds=seconds, broken_every=0))
        time.sleep(2.0)
        took, after = time.time() - since, _storage_mib(dagster)
    latencies = list(_latencies(running, watch.seen, since))
    changes = [gap for gap, change in _gaps(watch, since) if change]
    others = [gap for gap, change in _gaps(watch, since) if not change]
    return Latency(
        len(latencies),
        took,
        p50=quantile(latencies, 0.5),
        p99=quantile(latencies, 0.99),
        longest=max(latencies),
        hand_overs=len(changes),
        hand_over_seconds=max(changes, default=0.0),
        between_commits=quantile(others, 0.99),
        runs=len({run for commits in watch.runs.values() for seconds, run in commits if seconds >= since}),
        dagster_mib=after - before,
    )


def _latencies(running: System, seen: Seen, since: float) -> Iterator[float]:
    for topic in TOPICS:
        statement = (
            f"SELECT kafka_partition, kafka_offset, extract(epoch FROM kafka_timestamp)::float8 FROM {topic}"
            " WHERE kafka_timestamp >= %s"
        )
        with psycopg.connect(running.database_url) as connection:
            for partition, offset, produced_at in connection.execute(statement, [datetime.fromtimestamp(since, UTC)]):
                commits = seen[topic, partition]
                yield commits[bisect_right(commits, offset, key=lambda commit: commit[0])][1] - produced_at


def _gaps(watch: Watch, since: float) -> Iterator[tuple[float, bool]]:
    """(seconds between two commits of a partition, whether the second came from another run)."""
    for commits in watch.runs.values():
        kept = [commit for commit in commits if commit[0] >= since]
        for (before, run), (after, next_run) in pairwise(kept):
            yield after - before, run != next_run


def _storage_mib(dagster: DagsterDev) -> float:
    files = (path for path in dagster.folder.rglob("*") if path.is_file() and path.name != "dagster.log")
    return sum(path.stat().st_size for path in files) / (1 << 20)
