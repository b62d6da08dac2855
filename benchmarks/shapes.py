"""One stream, one process: rows a second against what its records and its batches look like."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

import dagster as dg
import msgspec
from confluent_kafka import Producer

from ingest_pipeline.cli.progress import progress
from ingest_pipeline.core.stream import Stream
from ingest_pipeline_tests.orchestration import killed_run
from ingest_pipeline_tests.orchestration.bench import wait_for

from .processes import rss_mib
from .rates import rate, window
from .system import System

PAYLOAD = "2026-01-02T03:04:05.678901+00:00"
DEFAULT_SIZE, DEFAULT_COLUMNS, DEFAULT_PARTITIONS = 100, 3, 4


@dataclass(frozen=True)
class Shape:
    """Records of about `size` bytes with `columns` fields over `partitions`, `refused` of each 1,000 by the decoder."""

    size: int = DEFAULT_SIZE
    columns: int = DEFAULT_COLUMNS
    partitions: int = DEFAULT_PARTITIONS
    refused: int = 0

    @property
    def topic(self) -> str:
        return f"shape-{self.size}-{self.columns}-{self.partitions}-{self.refused}"


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
    """Wait for room in the producer's queue where there is none."""
    while True:
        try:
            producer.produce(shape.topic, value, partition=number % shape.partitions)
            break
        except BufferError:
            producer.poll(0.1)
    producer.poll(0)


def drain(running: System, shape: Shape, records: int, settings: Mapping[str, str]) -> tuple[float, float]:
    """(rows and dead letters a second between 10 % and 90 % of the records, most resident MiB)."""
    folder = running.fresh_folder("shape")
    dg.DagsterInstance.local_temp(str(folder)).dispose()
    environ = {
        "KAFKA_BOOTSTRAP_SERVERS": running.bootstrap_servers,
        "DATABASE_URL": running.database_url,
        "RUN_IDLE_SECONDS": "0",
        "DEAD_LETTER_LIMIT": "off",
        "DATABASE_SCHEMA": "shape",
        "LEDGER_SCHEMA": "shape_ledger",
        "KAFKA_GROUP_PREFIX": f"{folder.name}-",  # a group bears the mark of its ledger
        **settings,
    }
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=killed_run.drain_stream, args=(partial(stream_of, shape), environ, folder))
    process.start()
    samples: list[tuple[float, int]] = []
    memory = 0.0
    wait_for("the ledger", lambda: running.query("SELECT to_regclass('shape_ledger.position')") != [(None,)], 60)
    statement = "SELECT extract(epoch FROM clock_timestamp())::float8, coalesce(sum(next_offset), 0)::bigint"
    with progress("draining", records) as show:
        while not samples or samples[-1][1] < records:
            at, count = running.query(f"{statement} FROM shape_ledger.position")[0]
            samples.append((float(str(at)), int(str(count))))
            memory = max(memory, rss_mib(process.pid or 0))
            assert process.is_alive() or count == records, (folder / "run.log").read_text()[-2000:]
            show(samples[-1][1])
    process.join()
    for schema in ("shape", "shape_ledger"):
        running.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
    return rate({"shape": samples}, *window({"shape": samples})), memory


def each(base: Shape, name: str, values: Iterable[int]) -> list[Shape]:
    """The base with these values of one attribute."""
    return [replace(base, **{name: value}) for value in values]
