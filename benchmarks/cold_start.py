"""How long the first record of an idle stream takes from Kafka to a committed row."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass

from ingest_pipeline.cli.progress import progress
from ingest_pipeline.demo.simulate import Plan
from ingest_pipeline_tests.orchestration.bench import wait_for

from . import document
from .effort import Effort
from .rates import SPREAD, quantile, spread
from .system import TOPICS, System, dagster_dev, send_all

_NEWEST = "{runsOrError(limit: 1) {... on Runs {results {creationTime stepStats {startTime}}}}}"


def section(running: System, effort: Effort) -> str:
    starts = cold_starts(running, effort.of(20))
    columns = {
        "until the row is there": [start.whole for start in starts],
        "of these Dagster's, run created to op begun": [start.launch for start in starts],
        "of these ours, op begun to first transaction": [start.own for start in starts],
    }
    return "\n\n".join(
        [
            f"One record to an idle stream without a run, {len(starts)} times, default POLL_SECONDS and BATCH_TIMEOUT."
            f" Seconds. `import dagster` alone took a new process {import_seconds():.2f} s at the end of it.",
            document.table(
                ["", *SPREAD, "p95"],
                [(name, spread(values, 2), f"{quantile(values, 0.95):.2f}") for name, values in columns.items()],
            ),
        ]
    )


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


def cold_starts(running: System, tries: int) -> list[ColdStart]:
    """Send one record at a time to one stream, after the run of the last one has ended."""
    starts: list[ColdStart] = []
    plan = Plan(topics=TOPICS[:1], rate=0, records=1, broken_every=0)
    count = f"SELECT count(*) FROM {TOPICS[0]}"
    times = f"SELECT extract(epoch FROM max(kafka_timestamp)), extract(epoch FROM max(ingested_at)) FROM {TOPICS[0]}"
    with dagster_dev(running, {"RUN_IDLE_SECONDS": "1"}) as dagster, progress("cold starts", tries) as show:
        send_all(running, plan)
        wait_for("the table", lambda: running.query(f"SELECT to_regclass('{TOPICS[0]}')") != [(None,)], 60)
        for number in range(1, tries + 1):
            _wait_for_rows(running, count, number)
            wait_for("the run's end", lambda: all(run.ended for run in dagster.runs()), 60)
            time.sleep(number % 5)  # not in step with the sensor's ticks
            send_all(running, plan)
            _wait_for_rows(running, count, number + 1)
            seen = time.time()
            (run,) = dagster.ask(_NEWEST)["runsOrError"]["results"]
            began = run["stepStats"][0]["startTime"]
            sent, stored = (float(str(seconds)) for seconds in running.query(times)[0])
            starts.append(ColdStart(seen - sent, began - run["creationTime"], stored - began))
            show(number)
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
