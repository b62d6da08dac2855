"""CPU of a run a record, for one event of five fields in each format."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from statistics import median
from typing import Any

import click
import msgspec
from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from ingest_pipeline.core.formats import Avro, Csv, Json, JsonSchema, Protobuf
from ingest_pipeline.core.stream import Stream
from ingest_pipeline_tests.meter_message import METER
from ingest_pipeline_tests.servers.schema_registry import SchemaRegistryServer

from . import document
from .effort import Effort
from .shapes import drain
from .system import System

PARTITIONS = 4
AT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
FIELDS: dict[str, Any] = {"device_id": "dev-0042", "count": 12345, "level": 21.53, "serial": "A-17", "at": AT}
KINDS = {"device_id": "string", "count": "long", "level": "double", "serial": "string"}
TIME = {"type": "long", "logicalType": "timestamp-micros"}
SCHEMA = {
    "type": "record",
    "name": "Meter",
    "fields": [*({"name": name, "type": kind} for name, kind in KINDS.items()), {"name": "at", "type": TIME}],
}
FORMATS = {"JSON": Json(), "Avro": Avro(), "Protobuf": Protobuf(METER), "JSON Schema": JsonSchema(), "CSV": Csv()}


class Meter(msgspec.Struct):
    """One reading of one meter."""

    device_id: str
    count: int
    level: float
    serial: str
    event_time: datetime = msgspec.field(name="at")


def section(running: System, effort: Effort) -> str:
    records = effort.of(500_000)
    folder = running.fresh_folder("registry")
    with SchemaRegistryServer(folder) as server:
        for name in FORMATS:
            produce(running, topic_of(name), value_of(name, server.url), records)
        settings = {"SCHEMA_REGISTRY_URL": server.url}
        runs = [
            {name: drain(running, partial(stream_of, name), records, settings) for name in FORMATS}
            for _ in range(effort.repeats)
        ]
    cells = []
    for name in FORMATS:
        cpu = [run[name].cpu_us for run in runs]
        ratios = [run[name].cpu_us / run["JSON"].cpu_us for run in runs]
        rates = [run[name].rate for run in runs]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        cells.append((name, f"{median(cpu):.2f}", f"{median(ratios):.2f} ({spread})", f"{median(rates):,.0f}"))
        click.echo(f"  {' '.join(cells[-1])}")
    head = ["format", "CPU a record, µs", "ratio to JSON in the same round", "rows/s"]
    text = f"One stream with 5 fields, one run, {records:,} records, medians of {effort.repeats} rounds."
    return f"{text}\n\n{document.table(head, cells)}"


def topic_of(name: str) -> str:
    return f"format-{name.lower().replace(' ', '-')}"


def stream_of(name: str) -> Stream:
    return Stream("meter", Meter, topic=topic_of(name), format=FORMATS[name])


def value_of(name: str, registry_url: str) -> bytes:
    """The event as a usual producer of the format writes it."""
    text = json.dumps(FIELDS | {"at": AT.isoformat()}).encode()
    context = SerializationContext(topic_of(name), MessageField.VALUE)
    if name == "CSV":
        return ",".join(map(str, [*FIELDS.values()][:-1])).encode() + b"," + AT.isoformat().encode()
    if name == "JSON":
        return text
    if name == "JSON Schema":
        return b"\0\0\0\0\1" + text
    with SchemaRegistryClient({"url": registry_url}) as client:
        serialize: Callable[..., bytes]
        if name == "Avro":
            serialize = AvroSerializer(client, json.dumps(SCHEMA))
            return serialize(FIELDS, context)
        message = METER(**{key: value for key, value in FIELDS.items() if key != "at"})
        message.at.FromDatetime(AT)
        serialize = ProtobufSerializer(METER, client, {"use.deprecated.format": False})
        return serialize(message, context)


def produce(running: System, topic: str, value: bytes, records: int) -> None:
    running.kafka.create_topic(topic, PARTITIONS)
    producer = Producer({"bootstrap.servers": running.bootstrap_servers, "linger.ms": 20})
    for number in range(records):
        while True:
            try:
                producer.produce(topic, value, partition=number % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0, "the broker did not take every record"
