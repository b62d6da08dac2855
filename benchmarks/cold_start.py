"""How long the first record of an idle stream takes from Kafka to a committed row."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from ingest_pipeline.cli.progress import progress
from ingest_pipeline.demo.simulate import Plan
from ingest_pipeline_tests.orchestration.bench import wait_for
from ingest_pipeline_tests.orchestration.celery_workers import LAUNCHER, CeleryWorker
from ingest_pipeline_tests.orchestration.dagster_dev import DagsterDev
from ingest_pipeline_tests.servers.redis import RedisServer

from . import document
from .effort import Effort
from .rates import SPREAD, quantile, spread
from .system import TOPICS, System, dagster_dev, send_all

QUICK_END = {"RUN_IDLE_SECONDS": "1"}
_NEWEST = "{runsOrError(limit: 1) {... on Runs {results {creationTime stepStats {startTime}}}}}"


def section(running: System, effort: Effort) -> str:
    with dagster_dev(running, QUICK_END) as dagster:
        starts = cold_starts(running, dagster, effort.of(20))
    return "\n\n".join(
        [
            f"One record to an idle stream without a run, {len(starts)} times, default POLL_SECONDS and BATCH_TIMEOUT."
            f" Seconds. `import dagster` alone took a new process {import_seconds():.2f} s at the end of it.",
            _table({"": starts}),
        ]
    )


def celery_section(running: System, effort: Effort) -> str:
    tries = effort.of(20)
    with dagster_dev(running, QUICK_END) as dagster:
        default = cold_starts(running, dagster, tries)
    with on_celery(running) as dagster:
        celery = cold_starts(running, dagster, tries)
    return "\n\n".join(
        [
            f"One record to an idle stream without a run, {tries} times with Dagster's default launcher, and then"
            f" {tries} times\nwith two Celery workers and a Redis on the same machine. Seconds.",
            _table({"default: ": default, "Celery: ": celery}),
        ]
    )


@contextmanager
def on_celery(running: System) -> Iterator[DagsterDev]:
    """`dagster dev` with two Celery workers, for the block."""
    folder = running.fresh_folder("celery")
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(folder))
        settings = {**QUICK_END, "CELERY_BROKER_URL": redis.url}
        dagster = stack.enter_context(dagster_dev(running, settings, folder=folder, launcher=LAUNCHER))
        for name in ("first", "second"):
            worker = CeleryWorker(name, folder, "ingest_pipeline.definitions", dagster.environ)
            stack.callback(worker.stop)
            worker.wait_until_ready()
        yield dagster


def _table(starts: dict[str, Sequence[ColdStart]]) -> str:
    columns = {
        "until the row is there": lambda start: start.whole,
        "of these Dagster's, run created to op begun": lambda start: start.launch,
        "of these ours, op begun to first transaction": lambda start: start.own,
    }
    rows = [
        (launcher + name, spread(values, 2), f"{quantile(values, 0.95):.2f}")
        for launcher, of_launcher in starts.items()
        for name, read in columns.items()
        for values in [[read(start) for start in of_launcher]]
    ]
    return document.table(["", *SPREAD, "p95"], rows)


@dataclass(frozen=True)
class ColdStart:
    """Seconds from a record's Kafka timestamp until its row is there, when no run of the stream lives.

    Attributes:
        launch: of these, from the run's creation until its op begins: Dagster's own.
        own: from there until the first batch's transaction.
    """

    whole: float
    launch: float
    own: float


def cold_starts(running: System, dagster: DagsterDev, tries: int) -> list[ColdStart]:
    """Send one record at a time to one stream, after the run of the last one has ended."""
    starts: list[ColdStart] = []
    plan = Plan(topics=TOPICS[:1], rate=0, records=1, broken_every=0)
    count = f"SELECT count(*) FROM {TOPICS[0]}"
    times = f"SELECT extract(epoch FROM max(kafka_timestamp)), extract(epoch FROM max(ingested_at)) FROM {TOPICS[0]}"
    table = f"SELECT to_regclass('{TOPICS[0]}')"
    rows = 1 if running.query(table) == [(None,)] else int(str(running.query(count)[0][0])) + 1
    with progress("cold starts", tries) as show:
        send_all(running, plan)
        wait_for("the table", lambda: running.query(table) != [(None,)], 60)
        for number in range(tries):
            _wait_for_rows(running, count, rows + number)
            wait_for("the run's end", lambda: all(run.ended for run in dagster.runs()), 60)
            time.sleep(number % 5)  # not in step with the sensor's ticks
            send_all(running, plan)
            _wait_for_rows(running, count, rows + number + 1)
            seen = time.time()
            (run,) = dagster.ask(_NEWEST)["runsOrError"]["results"]
            began = run["stepStats"][0]["startTime"]
            sent, stored = (float(str(seconds)) for seconds in running.query(times)[0])
            starts.append(ColdStart(seen - sent, began - run["creationTime"], stored - began))
            show(number + 1)
    return starts


def import_seconds() -> float:
    """Seconds that a new process takes to import Dagster, the least of five. They are most of a run's start."""
    took = []
    for _ in range(5):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", "import dagster"], check=True)
        took.append(time.monotonic() - began)
    return min(took)


def _wait_for_rows(running: System, count: str, rows: int) -> None:
    wait_for("a row", lambda: running.query(count) == [(rows,)], 60, every=0.01)
