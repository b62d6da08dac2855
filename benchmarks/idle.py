"""The cost of idle streams, beside sensors that only skip, and of streams with little traffic."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import click
from confluent_kafka import Producer

from ingest_pipeline.cli.progress import progress
from ingest_pipeline_tests.orchestration.bench import wait_for
from ingest_pipeline_tests.orchestration.dagster_dev import DagsterDev

from . import document
from .effort import Effort
from .processes import cpu_seconds, rss_mib, session
from .system import System, dagster_dev

LOCATION = ("-m", "benchmarks.idle_location")
RECORD = b'{"value": 21.5, "timestamp": "2026-01-02T03:04:05.678901+00:00"}'
SETTLE_SECONDS = 30.0
_SESSIONS = "SELECT count(*)::int FROM pg_stat_activity WHERE application_name LIKE 'ingest%'"


@dataclass(frozen=True)
class Cost:
    """Cores that `dagster dev` and its runs used, and on average their PostgreSQL sessions and resident MiB.

    Attributes:
        largest_mib: of the largest process, which is a run while runs drain.
    """

    cores: float
    sessions: float
    mib: float
    largest_mib: float


def idle_section(running: System, effort: Effort) -> str:
    streams, seconds = effort.of(100), 120.0 * effort.scale
    make_topics(running, streams)
    rows = []
    for poll_seconds in (1, 60):
        for skip in (True, False):
            cost = idle(running, streams, poll_seconds, seconds, skip=skip)
            name = f"{streams} {'sensors that only skip' if skip else 'streams of 4 partitions'}"
            click.echo(f"  {name}, POLL_SECONDS={poll_seconds}: {cost}")
            rows.append((name, str(poll_seconds), f"{cost.cores:.2f}", f"{cost.sessions:.0f}"))
    return f"CPU of all of `dagster dev` over {seconds:.0f} s without a record.\n\n" + document.table(
        ["location", "POLL_SECONDS", "cores", "PostgreSQL sessions"], rows
    )


def trickle_section(running: System, effort: Effort) -> str:
    streams, seconds = effort.of(10), 120.0 * effort.scale
    make_topics(running, streams)
    rows = []
    for every_seconds in (120, 30):
        for run_idle_seconds in (0, 60):
            cost = trickle(running, streams, every_seconds, run_idle_seconds=run_idle_seconds, seconds=seconds)
            name = f"a record every {every_seconds} s"
            click.echo(f"  {name}, RUN_IDLE_SECONDS={run_idle_seconds}: {cost}")
            figures = (1000 * cost.cores / streams, cost.mib / streams, cost.sessions / streams)
            rows.append((name, str(run_idle_seconds), f"{figures[0]:.0f}", f"{figures[1]:.0f}", f"{figures[2]:.1f}"))
    head = ["traffic", "RUN_IDLE_SECONDS", "thousandths of a core", "MiB", "PostgreSQL sessions"]
    return (
        f"{streams} streams of 4 partitions with little traffic. The figures are one stream's share of\n"
        f"`dagster dev` and its runs, over {seconds:.0f} s.\n\n"
    ) + document.table(head, rows)


def make_topics(running: System, streams: int, partitions: int = 4) -> None:
    for number in range(streams):
        running.kafka.create_topic(f"idle_{number}", partitions)


def idle(running: System, streams: int, poll_seconds: int, seconds: float, *, skip: bool = False) -> Cost:
    """Streams of 4 partitions with their sensors on and their first runs ended. With `skip` sensors that only skip."""
    settings = {"IDLE_STREAMS": str(streams), "POLL_SECONDS": str(poll_seconds), "RUN_IDLE_SECONDS": "0"}
    if skip:
        settings["IDLE_SKIP_SECONDS"] = str(poll_seconds)
    with dagster_dev(running, settings, LOCATION) as dagster:
        if not skip:
            begun = f"SELECT count(DISTINCT stream) = {streams} FROM ingest.position"
            wait_for("the ledger", lambda: running.query("SELECT to_regclass('ingest.position')") != [(None,)], 300)
            wait_for("every stream's first run", lambda: running.query(begun) == [(True,)], 900, every=1.0)
            wait_for("their ends", lambda: all(run.ended for run in dagster.runs()), 300, every=1.0)
        time.sleep(SETTLE_SECONDS + 2 * poll_seconds)  # the ticks behind those runs look at what became of them
        return measured_cost(running, dagster, seconds)


def trickle(running: System, streams: int, every_seconds: float, run_idle_seconds: int, seconds: float) -> Cost:
    """Send each stream a record every `every_seconds`, one stream after the other."""
    settings = {"IDLE_STREAMS": str(streams), "RUN_IDLE_SECONDS": str(run_idle_seconds)}
    producer = Producer({"bootstrap.servers": running.bootstrap_servers, "linger.ms": 0})
    count = 0

    def send() -> None:
        nonlocal count
        producer.produce(f"idle_{count % streams}", RECORD, partition=count // streams % 4)
        producer.poll(0)
        count += 1

    with dagster_dev(running, settings, LOCATION) as dagster:
        pause, deadline = every_seconds / streams, time.monotonic() + every_seconds + SETTLE_SECONDS
        while time.monotonic() < deadline:
            send()
            time.sleep(pause)
        cost = measured_cost(running, dagster, seconds, act=send, pause=pause)
    assert producer.flush(60) == 0, "the broker did not take every record"
    return cost


def measured_cost(
    running: System, dagster: DagsterDev, seconds: float, act: Callable[[], None] = lambda: None, pause: float = 1.0
) -> Cost:
    """Measure for `seconds`, and call `act` after every pause."""
    before, since = _cpu(dagster), time.monotonic()
    mib, largest, sessions = [], [], []
    with progress("seconds", round(seconds)) as show:
        while (passed := time.monotonic() - since) < seconds:
            show(round(passed))
            time.sleep(min(pause, seconds - passed))
            act()
            resident = [rss_mib(pid) for pid in session(dagster.session)]
            mib.append(sum(resident))
            largest.append(max(resident))
            sessions.append(int(str(running.query(_SESSIONS)[0][0])))
    used = _cpu(dagster) - before
    cores = used / (time.monotonic() - since)
    return Cost(cores, statistics.mean(sessions), statistics.mean(mib), statistics.mean(largest))


def _cpu(dagster: DagsterDev) -> float:
    return sum(cpu_seconds(pid) or 0.0 for pid in session(dagster.session))
