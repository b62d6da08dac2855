"""Loads of many streams: producers, `dagster dev`, and the latency of the rows."""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread
from types import MappingProxyType
from typing import NamedTuple

import psycopg
from confluent_kafka import Producer

from ingest_pipeline_tests.orchestration.bench import wait_for
from ingest_pipeline_tests.orchestration.dagster_dev import DagsterDev

from .idle import LOCATION, RECORD
from .system import System, dagster_dev

_STORED = 'SELECT count(*)::int FROM ingest.position WHERE "rows" > 0'


class Draining(NamedTuple):
    """Attributes:
    numbers: of the streams that get records.
    first_rows: seconds from the start of `dagster dev` until every stream has stored a row.
    """

    dagster: DagsterDev
    numbers: set[int]
    first_rows: float


@contextmanager
def draining(
    running: System, streams: int, jobs: int, per_second: float, more: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Draining]:
    """`dagster dev`, in a block that begins when every stream has stored a row. With 0 records a second, the block
    begins when every run has ended.

    Args:
        more: settings.
    """
    names = ("SCHEMA IF EXISTS ingest", *(f"TABLE IF EXISTS idle_{number}" for number in range(streams)))
    with psycopg.connect(running.database_url, autocommit=True) as connection:
        for name in names:
            connection.execute(f"DROP {name} CASCADE")
    settings = {"IDLE_STREAMS": str(streams), "IDLE_JOBS": str(jobs), **more}
    settings["KAFKA_GROUP_PREFIX"] = f"load-{time.time_ns()}-"  # the groups of an earlier load name its ledger
    numbers = set(range(streams))
    began = time.monotonic()
    with sending(running, numbers, per_second or 0.2) as stop, dagster_dev(running, settings, LOCATION) as dagster:
        wait_for("the ledger", lambda: running.query("SELECT to_regclass('ingest.position')") != [(None,)], 300)
        wait_for("rows of every stream", lambda: running.query(_STORED) == [(streams,)], 900, every=0.5)
        first_rows = time.monotonic() - began
        if not per_second:
            stop.set()
            wait_for("the ends of all runs", lambda: all(run.ended for run in dagster.runs()), 900, every=1.0)
        yield Draining(dagster, numbers, first_rows)


@contextmanager
def sending(running: System, numbers: Collection[int], per_second: float) -> Iterator[Event]:
    """Send `per_second` records a second to each of these streams, until the event is set or the block ends."""
    stop, pause, count = Event(), 1 / (len(numbers) * per_second), len(numbers)
    producer = Producer({"bootstrap.servers": running.bootstrap_servers, "linger.ms": 5})

    def send() -> None:
        number, due = 0, time.monotonic()
        while not stop.is_set():
            if number % count in numbers:
                producer.produce(f"idle_{number % count}", RECORD, partition=0)
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


def latencies(running: System, numbers: Iterable[int], since: str) -> Iterator[float]:
    """Seconds from a record's Kafka timestamp to the beginning of its transaction."""
    for number in numbers:
        statement = (
            "SELECT extract(epoch FROM ingested_at - kafka_timestamp)::float8"
            f" FROM idle_{number} WHERE ingested_at > '{since}'"
        )
        for (latency,) in running.query(statement):
            yield float(str(latency))


def now(running: System) -> str:
    """PostgreSQL's time."""
    return str(running.query("SELECT now()::text")[0][0])
