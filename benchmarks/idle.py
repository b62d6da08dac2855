"""What streams cost on which nothing comes, beside sensors that only skip, and what those cost on which little does."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import Producer

from ingest_pipeline.cli.progress import progress
from ingest_pipeline_tests.orchestration.bench import wait_for
from ingest_pipeline_tests.orchestration.dagster_dev import DagsterDev

from .processes import cpu_seconds, rss_mib, session
from .system import System, dagster_dev

LOCATION = ("-m", "benchmarks.idle_location")
RECORD = b'{"value": 21.5, "timestamp": "2026-01-02T03:04:05.678901+00:00"}'
_SETTLE_SECONDS = 30.0
_SESSIONS = "SELECT count(*)::int FROM pg_stat_activity WHERE application_name LIKE 'ingest%'"


@dataclass(frozen=True)
class Cost:
    """Cores used by all of `dagster dev` and its runs; on the average our sessions in PostgreSQL, and resident MiB."""

    cores: float
    sessions: float
    mib: float


def make_topics(running: System, streams: int) -> None:
    for number in range(streams):
        running.kafka.create_topic(f"idle_{number}", 4)


def idle(running: System, streams: int, poll_seconds: int, seconds: float, *, skip: bool = False) -> Cost:
    """So many streams of 4 partitions, each with its sensor on and its first run behind it; or, to `skip`, sensors that
    do nothing."""
    settings = {"IDLE_STREAMS": str(streams), "POLL_SECONDS": str(poll_seconds), "RUN_IDLE_SECONDS": "0"}
    if skip:
        settings["IDLE_SKIP_SECONDS"] = str(poll_seconds)
    with dagster_dev(running, settings, LOCATION) as dagster:
        if not skip:
            begun = f"SELECT count(DISTINCT stream) = {streams} FROM ingest.position"
            wait_for("the ledger", lambda: running.query("SELECT to_regclass('ingest.position')") != [(None,)], 300)
            wait_for("every stream's first run", lambda: running.query(begun) == [(True,)], 900, every=1.0)
            wait_for("their ends", lambda: all(run.ended for run in dagster.runs()), 300, every=1.0)
        time.sleep(_SETTLE_SECONDS + 2 * poll_seconds)  # the ticks behind those runs look at what became of them
        return _cost(running, dagster, seconds)


def trickle(running: System, streams: int, every_seconds: float, run_idle_seconds: int, seconds: float) -> Cost:
    """So many streams to each of which a record comes so often, one stream after the other."""
    settings = {"IDLE_STREAMS": str(streams), "RUN_IDLE_SECONDS": str(run_idle_seconds)}
    producer = Producer({"bootstrap.servers": running.bootstrap_servers, "linger.ms": 0})
    count = 0

    def send() -> None:
        nonlocal count
        producer.produce(f"idle_{count % streams}", RECORD, partition=count // streams % 4)
        producer.poll(0)
        count += 1

    with dagster_dev(running, settings, LOCATION) as dagster:
        pause, deadline = every_seconds / streams, time.monotonic() + every_seconds + _SETTLE_SECONDS
        while time.monotonic() < deadline:
            send()
            time.sleep(pause)
        cost = _cost(running, dagster, seconds, send, pause)
    assert producer.flush(60) == 0, "the broker did not take every record"
    return cost


def _cost(
    running: System, dagster: DagsterDev, seconds: float, act: Callable[[], None] = lambda: None, pause: float = 1.0
) -> Cost:
    """From now on; `act` is called after every pause."""
    before, since = _cpu(dagster), time.monotonic()
    mib, sessions = [], []
    with progress("seconds", round(seconds)) as show:
        while (passed := time.monotonic() - since) < seconds:
            show(round(passed))
            time.sleep(min(pause, seconds - passed))
            act()
            mib.append(sum(map(rss_mib, session(dagster.session))))
            sessions.append(int(str(running.query(_SESSIONS)[0][0])))
    used = _cpu(dagster) - before
    return Cost(used / (time.monotonic() - since), statistics.mean(sessions), statistics.mean(mib))


def _cpu(dagster: DagsterDev) -> float:
    return sum(cpu_seconds(pid) or 0.0 for pid in session(dagster.session))
