"""A hundred streams in one job, and a thousand in four: first rows, latency, CPU, memory and sessions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread

import click
from confluent_kafka import Producer

from ingest_pipeline_tests.orchestration.bench import wait_for

from . import document
from .effort import Effort
from .idle import LOCATION, RECORD, SETTLE_SECONDS, Cost, make_topics, measured_cost
from .rates import quantile
from .system import System, dagster_dev

_STORED = 'SELECT count(*)::int FROM ingest.position WHERE "rows" > 0'


@dataclass(frozen=True)
class Load:
    """Figures of one load.

    Attributes:
        first_rows: seconds from the start of `dagster dev` until every stream has stored a row.
        latencies: seconds.
    """

    first_rows: float
    cost: Cost
    latencies: list[float]


def section(running: System, effort: Effort) -> str:
    seconds = 120.0 * effort.scale
    hundred, thousand = effort.of(100), effort.of(1000)
    make_topics(running, thousand, partitions=1)
    rows = []
    for streams, jobs, per_second in ((hundred, 1, 1.0), (hundred, 1, 0.0), (thousand, 4, 0.1)):
        load = measure(running, streams, jobs, per_second=per_second, seconds=seconds)
        name = f"{streams} streams, {jobs} job{'s' if jobs > 1 else ''}, {per_second:g} records/s each"
        p50, p99 = (quantile(load.latencies, share) if load.latencies else None for share in (0.5, 0.99))
        cost = load.cost
        figures = (load.first_rows, cost.cores, cost.largest_mib, cost.mib, cost.sessions)
        cells = [f"{value:.2f}" if value < 10 else f"{value:.0f}" for value in figures]
        cells += ["-" if value is None else f"{value:.2f}" for value in (p50, p99)]
        click.echo(f"  {name}: {', '.join(cells)}")
        rows.append((name, *cells))
    head = ["load", "seconds to all first rows", "cores", "largest process, MiB", "all processes, MiB"]
    head += ["PostgreSQL sessions", "latency p50", "latency p99"]
    return (
        "Streams of one partition, drained by sensor-launched runs at default settings. The seconds count from the\n"
        "start of `dagster dev`. Cores, memory and sessions are those of `dagster dev` and its runs, over\n"
        f"{seconds:.0f} s. The latency is the time from a record's Kafka timestamp to its transaction.\n\n"
    ) + document.table(head, rows)


def measure(running: System, streams: int, jobs: int, per_second: float, seconds: float) -> Load:
    """Send records to all streams in turn, and measure for `seconds` after every stream has stored a row."""
    running.execute("DROP SCHEMA IF EXISTS ingest CASCADE")
    settings = {"IDLE_STREAMS": str(streams), "IDLE_JOBS": str(jobs)}
    began = time.monotonic()
    with sending(running, streams, per_second or 0.2) as first, dagster_dev(running, settings, LOCATION) as dagster:
        wait_for("the ledger", lambda: running.query("SELECT to_regclass('ingest.position')") != [(None,)], 300)
        wait_for("rows of every stream", lambda: running.query(_STORED) == [(streams,)], 900, every=0.5)
        first_rows = time.monotonic() - began
        if not per_second:
            first.set()
        time.sleep(SETTLE_SECONDS)
        began_at = running.query("SELECT now()::text")[0][0]
        cost = measured_cost(running, dagster, seconds)
        return Load(first_rows, cost, list(_latencies(running, streams, str(began_at))) if per_second else [])


@contextmanager
def sending(running: System, streams: int, per_second: float) -> Iterator[Event]:
    """Send `per_second` records a second to each stream, until the event is set or the block ends."""
    stop, pause = Event(), 1 / (streams * per_second)
    producer = Producer({"bootstrap.servers": running.bootstrap_servers, "linger.ms": 5})

    def send() -> None:
        number, due = 0, time.monotonic()
        while not stop.is_set():
            producer.produce(f"idle_{number % streams}", RECORD, partition=0)
            producer.poll(0)
            number, due = number + 1, due + pause
            stop.wait(max(0.0, due - time.monotonic()))

    thread = Thread(target=send)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join()
        assert producer.flush(60) == 0, "the broker did not take every record"


def _latencies(running: System, streams: int, since: str) -> Iterator[float]:
    """Seconds from a record's Kafka timestamp to the beginning of its transaction."""
    for number in range(streams):
        statement = (
            "SELECT extract(epoch FROM ingested_at - kafka_timestamp)::float8"
            f" FROM idle_{number} WHERE ingested_at > '{since}'"
        )
        for (latency,) in running.query(statement):
            yield float(str(latency))
