"""The latency of many streams while three of them are in trouble."""

import time

import click
import psycopg
from confluent_kafka import Producer

from . import document
from .idle import SETTLE_SECONDS
from .many_load import draining, latencies, now
from .rates import quantile
from .system import System

_LOCKED, _POISONED, _DELETED = 0, 1, 2
_BROKEN_RECORDS = 500


def section(running: System, streams: int, seconds: float) -> str:
    rows = []
    with draining(running, streams, 1, 1.0) as (_, numbers, _):
        time.sleep(SETTLE_SECONDS)
        others = range(_DELETED + 1, streams)

        def measure(name: str) -> None:
            began_at = now(running)
            time.sleep(seconds)
            values = list(latencies(running, others, began_at))
            figures = [f"{value:.2f}" for value in (quantile(values, 0.5), quantile(values, 0.99), max(values))]
            click.echo(f"  {name}: {', '.join(figures)}")
            rows.append((name, *figures))

        measure("all streams are well")
        numbers -= {_POISONED, _DELETED}
        with psycopg.connect(running.database_url) as locking:
            locking.execute(f"LOCK TABLE idle_{_LOCKED}")
            running.kafka.delete_topic(f"idle_{_DELETED}")
            producer = Producer({"bootstrap.servers": running.bootstrap_servers})
            for _ in range(_BROKEN_RECORDS):
                producer.produce(f"idle_{_POISONED}", b"{", partition=0)
            assert producer.flush(60) == 0, "the broker did not take every record"
            measure("a locked table, a stream beyond its dead-letter limit, a deleted topic")
    return (
        f"Latency of the other streams of a job of {streams} streams at 1 record/s each, for {seconds:.0f} s.\n\n"
    ) + document.table(["state of three streams", "p50, s", "p99, s", "longest, s"], rows)
