"""What streams cost on which nothing comes, beside sensors that only skip."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ingest_pipeline.progress_bar import progress
from ingest_pipeline_tests.orchestration.bench import wait_for
from ingest_pipeline_tests.orchestration.dagster_dev import DagsterDev

from .processes import cpu_seconds, session
from .system import System, dagster_dev

LOCATION = ("-m", "benchmarks.idle_location")
_SETTLE_SECONDS = 30.0
_SESSIONS = "SELECT count(*)::int FROM pg_stat_activity WHERE application_name LIKE 'ingest%'"


@dataclass(frozen=True)
class Idle:
    """Cores used by all of `dagster dev`, and our sessions in PostgreSQL at the end."""

    cores: float
    sessions: int


def make_topics(running: System, streams: int) -> None:
    for number in range(streams):
        running.kafka.create_topic(f"idle_{number}", 4)


def idle(running: System, streams: int, poll_seconds: int, seconds: float, *, skip: bool = False) -> Idle:
    """So many streams of 4 partitions, each with its sensor on; or, to `skip`, sensors that do nothing."""
    settings = {"IDLE_STREAMS": str(streams), "POLL_SECONDS": str(poll_seconds)}
    if skip:
        settings["IDLE_SKIP_SECONDS"] = str(poll_seconds)
    with dagster_dev(running, settings, LOCATION) as dagster:
        if not skip:
            wait_for("a tick", lambda: dagster.skip_reason(f"idle_{streams - 1}"), 300, every=1.0)
        time.sleep(_SETTLE_SECONDS)
        before, since = _cpu(dagster), time.monotonic()
        with progress("idle seconds", round(seconds)) as show:
            while (passed := time.monotonic() - since) < seconds:
                show(round(passed))
                time.sleep(min(1.0, seconds - passed))
        used = _cpu(dagster) - before
        return Idle(used / (time.monotonic() - since), int(str(running.query(_SESSIONS)[0][0])))


def _cpu(dagster: DagsterDev) -> float:
    return sum(cpu_seconds(pid) or 0.0 for pid in session(dagster.session))
