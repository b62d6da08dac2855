"""Damaged records in every format, through real Kafka, a real registry and real PostgreSQL.

Every offset is one row, one dead letter with the bytes that were sent, or one skipped record. A healthy record is the
row that was sent. The expected rows are the values before the serializer, so that no decoder judges itself.
"""

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, NamedTuple

import msgspec
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from ingest_pipeline import Avro, Csv, Epoch, JsonSchema, Protobuf, Stream
from ingest_pipeline_tests.meter_message import METER
from ingest_pipeline_tests.orchestration.bench import Bench
from ingest_pipeline_tests.orchestration.records import Record
from ingest_pipeline_tests.servers.schema_registry import SchemaRegistryServer

pytestmark = pytest.mark.kafka
Make = Callable[..., Bench]
RECORDS, SEED = 2_000, 1
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
AVRO_SCHEMA = {
    "type": "record",
    "name": "Reading",
    "fields": [
        {"name": "device_id", "type": "string"},
        {"name": "count", "type": "long"},
        {"name": "level", "type": ["null", "double"]},
        {"name": "at", "type": MILLIS},
    ],
}
JSON_SCHEMA = {"title": "Reading", "type": "object", "properties": {"device_id": {"type": "string"}}}


class Reading(msgspec.Struct):
    device_id: str
    count: int
    level: float | None
    event_time: datetime = msgspec.field(name="at")


class Line(msgspec.Struct):
    device_id: str
    count: int
    level: float | None
    event_time: Annotated[datetime, Epoch("ms")] = msgspec.field(name="at")


class Sent(NamedTuple):
    """A row, before it is serialized."""

    device_id: str
    count: int
    level: float | None
    at: datetime


Serialize = Callable[[SchemaRegistryClient, SerializationContext, Sent], bytes]


def avro(client: SchemaRegistryClient, context: SerializationContext, sent: Sent) -> bytes:
    return bytes(AvroSerializer(client, json.dumps(AVRO_SCHEMA))(sent._asdict(), context) or b"")


def json_schema(client: SchemaRegistryClient, context: SerializationContext, sent: Sent) -> bytes:
    event = sent._asdict() | {"at": sent.at.isoformat()}
    return bytes(JSONSerializer(json.dumps(JSON_SCHEMA), client)(event, context) or b"")


def protobuf(client: SchemaRegistryClient, context: SerializationContext, sent: Sent) -> bytes:
    message = METER(device_id=sent.device_id, count=sent.count, level=sent.level)
    message.at.FromDatetime(sent.at)
    return bytes(ProtobufSerializer(METER, client, {"use.deprecated.format": False})(message, context) or b"")


def millis(sent: Sent) -> int:
    return (sent.at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def csv(client: SchemaRegistryClient, context: SerializationContext, sent: Sent) -> bytes:
    quoted = sent.device_id.replace('"', '""')
    return f'"{quoted}",{sent.count},{"" if sent.level is None else sent.level},{millis(sent)}'.encode()


def cloud_event(client: SchemaRegistryClient, context: SerializationContext, sent: Sent) -> bytes:
    event = {
        "specversion": "1.0",
        "id": "1",
        "source": "/s",
        "type": "t",
        "data": sent._asdict() | {"at": millis(sent)},
    }
    return json.dumps(event).encode()


FORMATS: dict[str, tuple[Stream, Serialize]] = {
    "avro": (Stream("avro_readings", Reading, format=Avro()), avro),
    "json-schema": (Stream("schema_readings", Reading, format=JsonSchema()), json_schema),
    "protobuf": (Stream("proto_readings", Reading, format=Protobuf(METER)), protobuf),
    "csv": (Stream("csv_lines", Line, format=Csv()), csv),
    "cloudevents": (Stream("cloud_lines", Line, envelope="cloudevents"), cloud_event),
}


def readings(dice: random.Random) -> list[Sent]:
    """Values at the edges of their types, as text of many scripts, beside usual ones."""
    texts = ("dev-1", "", 'a "b", c', "Zürich", "\U0001f321", "x" * 500, "\ttab", "line\u2028")
    counts = (0, 1, -1, 2**63 - 1, -(2**63), 42)
    levels = (None, 0.0, -1.5, 1e300, 5e-324)
    return [
        Sent(
            dice.choice(texts),
            dice.choice(counts),
            dice.choice(levels),
            BEGIN + timedelta(milliseconds=dice.randrange(10**9)),
        )
        for _ in range(20)
    ]


def damaged(dice: random.Random, value: bytes) -> bytes | None:
    """The value with a bit, some bytes or an end changed, or no value."""
    place = dice.randrange(len(value))
    kind = dice.randrange(7)
    if kind == 0:
        return None
    if kind == 1:
        return value[:place]
    if kind == 2:
        return value + dice.randbytes(dice.randrange(1, 5))
    if kind == 3:
        return value[:place] + dice.randbytes(dice.randrange(1, 5)) + value[place:]
    if kind == 4:
        return dice.randbytes(dice.randrange(40))
    if kind == 5:
        return value[:place] + b"\0" + value[place + 1 :]
    return value[:place] + bytes([value[place] ^ 1 << dice.randrange(8)]) + value[place + 1 :]


@pytest.mark.parametrize("method", ["copy", "executemany"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_offset_is_a_row_a_letter_or_skipped(
    make_bench: Make, schema_registry: SchemaRegistryServer, name: str, method: str
) -> None:
    stream, serialize = FORMATS[name]
    dice = random.Random(f"{SEED} {name}")
    bench = make_bench(
        [stream], partitions=1, SCHEMA_REGISTRY_URL=schema_registry.url, DEAD_LETTER_LIMIT="off", WRITE_METHOD=method
    )
    with SchemaRegistryClient({"url": schema_registry.url}) as client:
        context = SerializationContext(bench.stream.topic, MessageField.VALUE)
        pairs = [(sent, serialize(client, context, sent)) for sent in readings(dice)]
    sent: list[tuple[Sent | None, bytes | None]] = []
    for _ in range(RECORDS):
        row, value = dice.choice(pairs)
        sent.append((row, value) if dice.random() < 0.3 else (None, damaged(dice, value)))
    bench.produce([Record(value, 0) for _, value in sent])
    bench.drain()

    columns = "kafka_offset, device_id, count, level, event_time"
    rows = {row[0]: row[1:] for row in bench.query(f'SELECT {columns} FROM "{stream.table}"')}
    letters = dict(bench.query("SELECT kafka_offset, value FROM ingest.dead_letter"))
    assert not rows.keys() & letters.keys()
    for offset, (row, value) in enumerate(sent):
        if row is not None:
            assert rows.get(offset) == tuple(row), offset
        elif offset in letters:
            assert letters[offset] == value, offset
        else:
            assert offset in rows or value is None, f"offset {offset} is gone"
    ((next_offset, stored, refused, skipped, absent),) = bench.query(
        'SELECT next_offset, "rows", dead_letters, skipped, absent FROM ingest.position'
    )
    assert (next_offset, stored, refused, absent) == (RECORDS, len(rows), len(letters), 0)
    assert skipped == RECORDS - len(rows) - len(letters)
    assert len(letters) > RECORDS / 4
