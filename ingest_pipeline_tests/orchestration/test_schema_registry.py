"""Records in a schema registry's wire format, with a real registry, real Kafka and real PostgreSQL."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from ingest_pipeline import Avro, JsonSchema, Protobuf, Stream
from ingest_pipeline.core.ledger import LetterFilter
from ingest_pipeline.core.roles import Role
from ingest_pipeline.operations.check import findings
from ingest_pipeline.orchestration import tags
from ingest_pipeline.postgres.dead_letters import DeadLetters
from ingest_pipeline_tests.meter_message import METER as METER_MESSAGE
from ingest_pipeline_tests.orchestration.bench import Bench, failure, wait_for
from ingest_pipeline_tests.orchestration.records import Record
from ingest_pipeline_tests.servers.schema_registry import SchemaRegistryServer

pytestmark = pytest.mark.kafka
Make = Callable[..., Bench]
SCHEMA = {
    "type": "record",
    "name": "Meter",
    "fields": [
        {"name": "device_id", "type": "string"},
        {"name": "count", "type": "long"},
        {"name": "level", "type": ["null", "double"]},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "serial", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "labels", "type": {"type": "map", "values": "string"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "not_declared", "type": "int", "default": 3},
    ],
}
OTHER = {"type": "record", "name": "Other", "fields": [{"name": "device_id", "type": "string"}]}
AT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
SERIAL = UUID("12345678-1234-5678-1234-567812345678")


class Meter(msgspec.Struct):
    """A meter."""

    device_id: str
    count: Annotated[int, msgspec.Meta(ge=0)]
    level: float | None
    price: Decimal
    serial: UUID
    day: date
    labels: dict[str, str]
    event_time: datetime = msgspec.field(name="at")
    unit: str = "kWh"


METER = Stream("meter", Meter, format=Avro())


@pytest.fixture
def registry(schema_registry: SchemaRegistryServer) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": schema_registry.url}) as client:
        yield client


@pytest.fixture
def meters(make_bench: Make, schema_registry: SchemaRegistryServer) -> Bench:
    return make_bench([METER], partitions=1, SCHEMA_REGISTRY_URL=schema_registry.url)


def meter(count: int) -> dict[str, Any]:
    return {
        "device_id": f"dev-{count}",
        "count": count,
        "level": None if count % 2 else 0.5,
        "price": Decimal("12.50"),
        "serial": SERIAL,
        "day": date(2026, 1, 2),
        "labels": {"floor": "2"},
        "at": AT,
    }


def serialized(client: SchemaRegistryClient, topic: str, values: list[Any], schema: Any = SCHEMA) -> list[Record]:
    """The values as confluent-kafka's own serializer writes them."""
    serializer = AvroSerializer(client, json.dumps(schema))
    context = SerializationContext(topic, MessageField.VALUE)
    return [Record(serializer(value, context), 0) for value in values]


def test_avro_records_become_rows(meters: Bench, registry: SchemaRegistryClient) -> None:
    meters.produce(serialized(registry, meters.stream.topic, [meter(number) for number in range(3)]))
    meters.drain()
    rows = meters.query(
        "SELECT device_id, count, level, price, serial, day, labels, event_time, unit FROM meter ORDER BY kafka_offset"
    )
    common = (Decimal("12.50"), SERIAL, date(2026, 1, 2), {"floor": "2"}, AT, "kWh")
    assert rows == [("dev-0", 0, 0.5, *common), ("dev-1", 1, None, *common), ("dev-2", 2, 0.5, *common)]


def test_each_bad_record_is_one_dead_letter_with_its_reason(meters: Bench, registry: SchemaRegistryClient) -> None:
    topic = meters.stream.topic
    (good,) = serialized(registry, topic, [meter(1)])
    (negative,) = serialized(registry, topic, [meter(2) | {"count": -1}])
    (nul,) = serialized(registry, topic, [meter(2) | {"device_id": "a\0b"}])
    (other,) = serialized(registry, f"{topic}-other", [{"device_id": "x"}], OTHER)
    assert good.value is not None
    broken = [
        Record(b'{"device_id": "x"}', 0),
        Record(b"\0\0\0\xff\xff" + good.value[5:], 0),
        Record(good.value[:-3], 0),
        Record(good.value + b"\0", 0),
    ]
    meters.produce([good, *broken, negative, nul, other, good])
    meters.drain()
    letters = meters.query("SELECT reason FROM ingest.dead_letter ORDER BY kafka_offset")
    origin = f"schema id {int.from_bytes(good.value[1:5], 'big')} of {topic}-value"
    other_origin = f"schema id {int.from_bytes((other.value or b'')[1:5], 'big')} of {topic}-other-value"
    assert letters == [
        "no schema id: the value does not start with a zero byte and four bytes of id",
        "the schema registry does not know schema id 65535",
        f"the bytes do not follow {origin}",
        f"bytes are left behind a record of {origin}",
        f"Expected `int` >= 0 - at `$.count` ({origin})",
        "NUL character, which PostgreSQL cannot store - at `$.device_id`",
        f"{other_origin} has no field `count`",
    ]
    assert meters.rows() == 2


@pytest.mark.role(Role.OPERATOR)
def test_a_record_of_an_unknown_schema_is_redriven_once_the_registry_knows_it(
    meters: Bench, registry: SchemaRegistryClient
) -> None:
    (good,) = serialized(registry, meters.stream.topic, [meter(1)])
    assert good.value is not None
    unused = Schema(json.dumps(SCHEMA | {"name": "Unused"}), "AVRO")
    next_id = registry.register_schema(f"{meters.stream.topic}-unused", unused) + 1
    meters.produce([Record(b"\0" + next_id.to_bytes(4, "big") + good.value[5:], 0)])
    meters.drain()
    assert meters.rows() == 0
    renamed = json.dumps(SCHEMA | {"name": "Renamed"})
    assert registry.register_schema(f"{meters.stream.topic}-later", Schema(renamed, "AVRO")) == next_id
    letters = DeadLetters(meters.clients.database(), meters.stream)
    assert letters.redrive(LetterFilter(), meters.clients.decoder(meters.stream).decode).stored == 1
    assert meters.query("SELECT device_id FROM meter") == ["dev-1"]


def test_a_silent_registry_delays_the_records_and_refuses_none(
    meters: Bench, registry: SchemaRegistryClient, schema_registry: SchemaRegistryServer
) -> None:
    meters.produce(serialized(registry, meters.stream.topic, [meter(1)]))
    meters.drain()
    meters.query("TRUNCATE meter")
    meters.produce(serialized(registry, meters.stream.topic, [meter(2)], SCHEMA | {"name": "Later"}))
    finished: list[Any] = []
    run = threading.Thread(target=lambda: finished.append(meters.by_sensor()))
    schema_registry.freeze()
    try:
        run.start()
        owner = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        wait_for("a run that owns the partition", lambda: meters.query(owner) != [0])
        run.join(7)  # longer than one request to the registry
        assert finished == []
    finally:
        schema_registry.thaw()
    run.join(60)
    assert finished[0].success, failure(finished[0])
    assert meters.query("SELECT device_id FROM meter") == ["dev-2"]
    assert meters.query("SELECT count(*) FROM ingest.dead_letter") == [0]


def test_a_registry_that_stays_away_fails_the_run_and_names_the_setting(make_bench: Make) -> None:
    meters = make_bench([METER], partitions=1, SCHEMA_REGISTRY_URL="http://127.0.0.1:9", RETRY_SECONDS="1")
    meters.produce([Record(b"\0\0\0\0\1abc", 0)])
    result = meters.by_sensor()
    assert not result.success
    assert "the schema registry does not answer" in failure(result)
    assert "SCHEMA_REGISTRY_URL" in failure(result)
    assert meters.run_tags(result.run_id)[tags.ENDED] == "failed:SchemaRegistryUnavailable"
    assert meters.query("SELECT count(*) FROM ingest.dead_letter") == [0]


@pytest.mark.parametrize("answers", [True, False])
def test_check_asks_the_registry(make_bench: Make, schema_registry: SchemaRegistryServer, answers: bool) -> None:
    meters = make_bench([METER], SCHEMA_REGISTRY_URL=schema_registry.url if answers else "http://127.0.0.1:9/wrong")
    (finding,) = [item for item in findings(meters.clients, meters.streams) if item.what == "schema registry"]
    assert finding.ok == answers
    assert ("subjects" if answers else "check that it runs") in finding.message


def test_protobuf_records_become_rows(make_bench: Make, registry: SchemaRegistryClient) -> None:
    class Reading(msgspec.Struct):
        device_id: str
        level: float | None
        event_time: datetime = msgspec.field(name="at")

    readings = make_bench([Stream("reading", Reading, format=Protobuf(METER_MESSAGE))], partitions=1)
    message = METER_MESSAGE(device_id="dev-1")
    message.at.FromDatetime(AT)
    serializer = ProtobufSerializer(METER_MESSAGE, registry, {"use.deprecated.format": False})
    value = serializer(message, SerializationContext(readings.stream.topic, MessageField.VALUE))
    readings.produce([Record(value, 0), Record(value[:-1], 0)])
    readings.drain()
    assert readings.query("SELECT device_id, level, event_time FROM reading") == [("dev-1", None, AT)]
    assert readings.query("SELECT reason FROM ingest.dead_letter") == ["the bytes are no Meter"]


class Customer(msgspec.Struct):
    id: int
    name: str


CUSTOMER_FIELDS = {
    "type": "record",
    "name": "Value",
    "fields": [{"name": "id", "type": "long"}, {"name": "name", "type": "string"}],
}
CUSTOMER_CHANGE = {
    "type": "record",
    "name": "Envelope",
    "fields": [
        {"name": "before", "type": ["null", CUSTOMER_FIELDS], "default": None},
        {"name": "after", "type": ["null", "Value"], "default": None},
        {"name": "op", "type": "string"},
    ],
}
CUSTOMER_ID = {"type": "record", "name": "Key", "fields": [{"name": "id", "type": "long"}]}


@pytest.mark.parametrize("method", ["copy", "executemany"])
@pytest.mark.parametrize("key_schema", [CUSTOMER_ID, "long"], ids=["record", "long"])
def test_avro_keys_delete_the_rows_of_change_events(
    make_bench: Make,
    registry: SchemaRegistryClient,
    schema_registry: SchemaRegistryServer,
    key_schema: Any,
    method: str,
) -> None:
    stream = Stream("customer", Customer, key=("id",), deletes=True, envelope="debezium", format=Avro())
    options = {"WRITE_METHOD": method, "SCHEMA_REGISTRY_URL": schema_registry.url}
    customers = make_bench([stream], partitions=1, **options)
    topic = customers.stream.topic
    write_key = AvroSerializer(registry, json.dumps(key_schema))
    write_change = AvroSerializer(registry, json.dumps(CUSTOMER_CHANGE))

    def change(op: str, number: int, *, before: Any = None, name: str = "n") -> Record:
        after = None if op == "d" else {"id": number, "name": name}
        value = write_change(
            {"op": op, "before": before, "after": after}, SerializationContext(topic, MessageField.VALUE)
        )
        key = {"id": number} if isinstance(key_schema, dict) else number
        return Record(value, 0, write_key(key, SerializationContext(topic, MessageField.KEY)))

    old = {"id": 2, "name": ""}
    created = [change("c", number) for number in range(5)]
    tombstone, unknown = created[3]._replace(value=None), Record(None, 0, b"\0\0\0\xff\xff\2")
    damaged = Record(None, 0, (created[0].key or b"") + b"\2")
    refused = change("u", 4, name="\0")
    customers.produce([*created, change("d", 1), change("d", 2, before=old), tombstone, unknown, damaged, refused])
    customers.produce([change("d", 4)])
    customers.drain()
    assert customers.query("SELECT id FROM customer") == [0]
    key_id = int.from_bytes((created[0].key or b"")[1:5], "big")
    assert customers.query("SELECT reason FROM ingest.dead_letter WHERE status = 'open' ORDER BY kafka_offset") == [
        "in the record's key: the schema registry does not know schema id 65535",
        f"in the record's key: bytes are left behind a record of schema id {key_id} of {topic}-key",
    ]
    discarded = "SELECT kafka_offset FROM ingest.dead_letter WHERE status = 'discarded'"
    assert customers.query(discarded) == [10]
    assert customers.query("SELECT accounted FROM ingest.accounting") == [True]


def test_a_silent_registry_delays_a_deletion(make_bench: Make, registry: SchemaRegistryClient) -> None:
    stream = Stream("customer", Customer, key=("id",), deletes=True, format=Avro())
    customers = make_bench([stream], partitions=1, SCHEMA_REGISTRY_URL="http://127.0.0.1:9", RETRY_SECONDS="1")
    write_key = AvroSerializer(registry, json.dumps(CUSTOMER_ID | {"name": "Late"}))
    key = write_key({"id": 1}, SerializationContext(customers.stream.topic, MessageField.KEY))
    customers.produce([Record(None, 0, key)])
    assert "the schema registry does not answer" in failure(customers.by_sensor())
    assert customers.query("SELECT count(*) FROM ingest.dead_letter") == [0]


def test_json_behind_a_schema_id_needs_no_registry(make_bench: Make) -> None:
    class Event(msgspec.Struct):
        device_id: str
        event_time: datetime

    events = make_bench([Stream("event", Event, format=JsonSchema())], partitions=1)
    text = b'{"device_id": "x", "event_time": "2026-01-01T00:00:00Z"}'
    events.produce([Record(b"\0\0\0\0\7" + text, 0), Record(text, 0)])
    events.drain()
    assert events.query("SELECT device_id FROM event") == ["x"]
    assert events.query("SELECT reason FROM ingest.dead_letter") == [
        "no schema id: the value does not start with a zero byte and four bytes of id"
    ]
