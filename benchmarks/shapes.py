"""One stream, one process: rows a second against what its records and its batches look like."""

import json
import multiprocessing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

import click
import dagster as dg
import msgspec
from confluent_kafka import Producer

from ingest_pipeline.cli.progress import progress
from ingest_pipeline.core.stream import Stream
from ingest_pipeline_tests.orchestration import killed_run
from ingest_pipeline_tests.orchestration.bench import wait_for

from . import document
from .effort import Effort
from .processes import cpu_seconds, rss_mib
from .rates import rate, window
from .system import System

PAYLOAD = "2026-01-02T03:04:05.678901+00:00"
DEFAULT_SIZE, DEFAULT_COLUMNS, DEFAULT_PARTITIONS = 100, 3, 4


@dataclass(frozen=True)
class Shape:
    """Records of about `size` bytes with `columns` fields over `partitions`. The decoder refuses `refused` of 1,000."""

    size: int = DEFAULT_SIZE
    columns: int = DEFAULT_COLUMNS
    partitions: int = DEFAULT_PARTITIONS
    refused: int = 0

    @property
    def topic(self) -> str:
        return f"shape-{self.size}-{self.columns}-{self.partitions}-{self.refused}"


def section(running: System, effort: Effort) -> str:
    base, records, produced = Shape(), effort.of(1_000_000), set[str]()
    tables, plots = [], {}
    for name, cases in (
        ("BATCH_SIZE", [(str(size), base, {"BATCH_SIZE": str(size)}) for size in (100, 1000, 5000, 20_000)]),
        ("bytes a record", _cases(base, "size", (100, 1000, 10_000, 100_000))),
        ("columns", _cases(base, "columns", (3, 10, 50))),
        ("partitions", _cases(base, "partitions", (1, 4, 16, 64))),
        ("refused by the decoder, per 1,000", _cases(base, "refused", (0, 1, 10, 100))),
    ):
        rates = {}
        for label, shape, settings in cases:
            count = min(records, 1_000_000_000 // max(shape.size, 1000))
            if shape.topic not in produced:
                produced.add(shape.topic)
                produce(running, shape, count)
            rates[label] = drain(running, partial(stream_of, shape), count, settings).rate
            click.echo(f"  {name} {label}: {rates[label]:,.0f} rows/s")
        tables.append(document.table([name, "rows/s"], [(label, f"{rate:,.0f}") for label, rate in rates.items()]))
        plots[name] = rates
    image = document.DOCUMENT.parent / "images" / "shape.svg"
    if effort.write:
        image.write_text(document.bars(plots))
    return "\n\n".join(
        [
            "One stream, one run in its own process. Default settings, 3 columns, 4 partitions and 100 bytes, unless"
            " the table says otherwise.",
            f"![rows a second](images/{image.name})",
            *tables,
        ]
    )


def _cases(base: Shape, name: str, values: tuple[int, ...]) -> list[tuple[str, Shape, dict[str, str]]]:
    return [(f"{value:,}", replace(base, **{name: value}), {}) for value in values]


def stream_of(shape: Shape) -> Stream:
    """A text field, numbers, and the time of the event."""
    numbers = [(f"value_{i}", float) for i in range(shape.columns - 2)]
    fields = [("name", str), *numbers, ("event_time", datetime, msgspec.field(name="timestamp"))]
    return Stream(name="shape", event=msgspec.defstruct("Shaped", fields), topic=shape.topic)


def produce(running: System, shape: Shape, records: int) -> None:
    running.kafka.create_topic(shape.topic, shape.partitions)
    config = {"bootstrap.servers": running.bootstrap_servers, "linger.ms": 20, "message.max.bytes": 2_000_000}
    producer = Producer(config)
    event: dict[str, object] = {f"value_{i}": 21.5 for i in range(shape.columns - 2)}
    event |= {"timestamp": PAYLOAD, "name": ""}
    event["name"] = "x" * max(1, shape.size - len(json.dumps(event)))
    good, bad = json.dumps(event).encode(), b'{"name": 1' + b" " * max(1, shape.size - 10)
    with progress("producing", records) as show:
        for number in range(records):
            _produce(producer, shape, number, bad if number % 1000 < shape.refused else good)
            if number % 1000 == 999:
                show(number)
    assert producer.flush(60) == 0, "the broker did not take every record"


def _produce(producer: Producer, shape: Shape, number: int, value: bytes) -> None:
    """Send one record, after a wait for room in the producer's queue where needed."""
    while True:
        try:
            producer.produce(shape.topic, value, partition=number % shape.partitions)
            break
        except BufferError:
            producer.poll(0.1)
    producer.poll(0)


@dataclass(frozen=True)
class Drained:
    """One run. Rate and CPU are measured between 10 % and 90 % of the records.

    Attributes:
        rate: rows and dead letters a second.
        cpu_us: microseconds of the run's CPU a record.
        rss_mib: most resident MiB.
    """

    rate: float
    cpu_us: float
    rss_mib: float


def drain(running: System, make: Callable[[], Stream], records: int, settings: Mapping[str, str]) -> Drained:
    """Drain the topic of the stream that `make` returns, by a run in its own process."""
    folder = running.fresh_folder("shape")
    dg.DagsterInstance.local_temp(str(folder)).dispose()
    environ = {
        "KAFKA_BOOTSTRAP_SERVERS": running.bootstrap_servers,
        "DATABASE_URL": running.database_url,
        "RUN_IDLE_SECONDS": "0",
        "DEAD_LETTER_LIMIT": "off",
        "DATABASE_SCHEMA": "shape",
        "LEDGER_SCHEMA": "shape_ledger",
        "KAFKA_GROUP_PREFIX": f"{folder.name}-",  # a ledger refuses the group of another one
        **settings,
    }
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=killed_run.drain_stream, args=(make, environ, folder))
    process.start()
    samples: list[tuple[float, int]] = []
    cpu: list[tuple[int, float]] = []
    memory = 0.0
    wait_for("the ledger", lambda: running.query("SELECT to_regclass('shape_ledger.position')") != [(None,)], 60)
    statement = "SELECT extract(epoch FROM clock_timestamp())::float8, coalesce(sum(next_offset), 0)::bigint"
    with progress("draining", records) as show:
        while not samples or samples[-1][1] < records:
            seconds, count = running.query(f"{statement} FROM shape_ledger.position")[0]
            samples.append((float(str(seconds)), int(str(count))))
            cpu.append((samples[-1][1], cpu_seconds(process.pid or 0) or 0.0))
            memory = max(memory, rss_mib(process.pid or 0))
            assert process.is_alive() or count == records, (folder / "run.log").read_text()[-2000:]
            show(samples[-1][1])
    process.join()
    for schema in ("shape", "shape_ledger"):
        running.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
    middle = [sample for sample in cpu if 0.1 * records <= sample[0] <= 0.9 * records]
    (first, before), (last, after) = middle[0], middle[-1]
    by_topic = {"shape": samples}
    cpu_us = (after - before) / (last - first) * 1e6
    return Drained(rate(by_topic, *window(by_topic)), cpu_us, memory)
