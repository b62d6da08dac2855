"""What `ingest stream-from-topic` prints drains its topic without a dead letter, on real servers."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import yaml
from click.testing import CliRunner
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from ingest_pipeline import Avro, JsonSchema, Stream
from ingest_pipeline.cli import main
from ingest_pipeline.operations.sample import unknown_stream
from ingest_pipeline.orchestration.components.attributes import attributes_model, stream_of
from ingest_pipeline_tests.orchestration.bench import Bench
from ingest_pipeline_tests.orchestration.records import Record
from ingest_pipeline_tests.servers.schema_registry import SchemaRegistryServer

pytestmark = [pytest.mark.kafka, pytest.mark.empty_database]
Make = Callable[..., Bench]
READINGS = [
    {
        "deviceId": f"d{number}",
        "level": number if number % 2 else number / 2,
        "class": None if number % 3 else "a",
        "createdAt": 1767225600000 + number,
        "timestamp": "2026-01-31T06:00:00Z",
        "site": {"city": "Oslo", "geo": {"lat": 59.9}},
        "tags": ["a", "b"],
        "mixed": number if number % 2 else str(number),
        **({} if number % 5 else {"note": "seldom"}),
    }
    for number in range(100)
]
JSON = '{"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}'
METER = {
    "type": "record",
    "name": "Meter",
    "namespace": "org.example",
    "fields": [
        {"name": "device_id", "type": "string"},
        {"name": "level", "type": ["null", "double"], "default": None},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "serial", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "timestamp", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "noon", "type": {"type": "int", "logicalType": "time-millis"}},
        {
            "name": "site",
            "type": {"type": "record", "name": "Site", "fields": [{"name": "city", "type": "string"}]},
        },
        {"name": "former", "type": ["null", "Site"]},
        {"name": "labels", "type": {"type": "map", "values": "string"}},
    ],
}


@pytest.fixture
def topic(request: pytest.FixtureRequest, make_bench: Make, topic: Callable[..., str]) -> Bench:
    """A topic that no stream of the code location has declared."""
    servers = request.getfixturevalue("kafka_server").bootstrap_servers
    registry = request.getfixturevalue("schema_registry").url if "registry" in request.fixturenames else ""
    stream = replace(unknown_stream(topic("some.readings", 2)), name="unknown")
    return make_bench([stream], KAFKA_BOOTSTRAP_SERVERS=servers, SCHEMA_REGISTRY_URL=registry)


@pytest.fixture
def registry(schema_registry: SchemaRegistryServer) -> SchemaRegistryServer:
    return schema_registry


def printed(bench: Bench, *words: str, code: int = 0) -> str:
    environ = {**bench.environ, "INGEST_STREAMS": "no_such_project:STREAMS"}
    result = CliRunner().invoke(main.main, ["stream-from-topic", bench.stream.topic, *words], env=environ)
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.output


def declared(bench: Bench) -> list[Stream]:
    """The streams of both texts."""
    namespace: dict[str, Any] = {"__name__": "printed"}
    exec(compile(printed(bench, "--name", "in_python"), "printed", "exec", dont_inherit=True), namespace)
    attributes = yaml.safe_load(printed(bench, "--yaml", "--name", "in_yaml"))["attributes"]
    return [namespace["STREAMS"][0], stream_of(attributes_model().model_validate(attributes))]


def drained(make_bench: Make, bench: Bench) -> list[Bench]:
    """The code locations of both streams, after a run."""
    locations = []
    for stream in declared(bench):
        location = make_bench([stream], **bench.environ)
        assert location.by_hand().success
        assert location.query("select count(*) from ingest.dead_letter") == [0]
        locations.append(location)
    return locations


def test_the_printed_streams_drain_the_topic(make_bench: Make, topic: Bench) -> None:
    topic.produce([Record(json.dumps(reading).encode(), number % 2) for number, reading in enumerate(READINGS)])
    topic.produce([Record(None, 0)])
    for location in drained(make_bench, topic):
        assert location.rows() == 100
        row = location.query(
            f"select level, class_value, created_at, event_time, site_geo_lat, tags, extra, note from"
            f" {location.stream.table} where device_id = 'd7'"
        )
        created = datetime(2026, 1, 1, 0, 0, 0, 7000, UTC)
        time = datetime(2026, 1, 31, 6, 0, tzinfo=UTC)
        assert row == [(7.0, None, created, time, 59.9, ["a", "b"], {"mixed": 7}, None)]


def test_no_group_notices_the_look(topic: Bench) -> None:
    topic.produce([Record(b'{"a": 1}', 0)])
    printed(topic)
    group = f"{topic.environ['KAFKA_GROUP_PREFIX']}stream_from_topic"
    assert topic.clients.topic(topic.stream).group_offsets(group) == {}
    assert topic.query("select to_regclass('ingest.position')") == [None]


def test_avro_follows_the_registry(make_bench: Make, topic: Bench, registry: SchemaRegistryServer) -> None:
    site = {"city": "Oslo"}
    meter = {"device_id": "a", "level": None, "price": Decimal("1.50"), "serial": UUID(int=7), "noon": time(12)}
    meter |= {"day": date(2026, 1, 31), "timestamp": datetime(2026, 1, 31, tzinfo=UTC)}
    meter |= {"site": site, "former": None, "labels": {"a": "b"}}
    context = SerializationContext(topic.stream.topic, MessageField.VALUE)
    with SchemaRegistryClient({"url": registry.url}) as client:
        value = AvroSerializer(client, json.dumps(METER))(meter, context)
    topic.produce([Record(value, number % 2) for number in range(4)])
    for location in drained(make_bench, topic):
        assert location.stream.format == Avro()
        assert location.rows() == 4
        table = location.stream.table
        assert location.query(
            f"select event_time, price, noon, site_city, former_city, labels from {table} limit 1"
        ) == [(datetime(2026, 1, 31, tzinfo=UTC), Decimal("1.50"), "12:00:00", "Oslo", None, {"a": "b"})]


def test_json_with_schema_ids_is_read_behind_the_id(
    make_bench: Make, topic: Bench, registry: SchemaRegistryServer
) -> None:
    with SchemaRegistryClient({"url": registry.url}) as client:
        schema_id = client.register_schema(f"{topic.stream.topic}-value", Schema(JSON, "JSON"))
    topic.produce([Record(b"\0" + schema_id.to_bytes(4) + b'{"a": 1, "timestamp": "2026-01-31T06:00Z"}', 0)])
    for location in drained(make_bench, topic):
        assert location.stream.format == JsonSchema()
        assert location.rows() == 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([], "has no record with a value yet"),
        ([b"a;b;1"], 'format=Csv(delimiter=";") reads'),
        ([b"\0\0\0\0\1xyz"], "SCHEMA_REGISTRY_URL is not set"),
    ],
)
def test_a_topic_without_fields_is_refused_with_the_reason(topic: Bench, values: list[bytes], words: str) -> None:
    topic.produce([Record(value, 0) for value in values])
    assert words in printed(topic, code=1)


def test_protobuf_needs_its_class(topic: Bench, registry: SchemaRegistryServer) -> None:
    proto = 'syntax = "proto3"; message Meter { string a = 1; }'
    with SchemaRegistryClient({"url": registry.url}) as client:
        schema_id = client.register_schema(f"{topic.stream.topic}-value", Schema(proto, "PROTOBUF"))
    topic.produce([Record(b"\0" + schema_id.to_bytes(4) + b"\0\x0a\x01a", 0)])
    assert "declare a Struct with the names of the .proto file" in printed(topic, code=1)


def test_a_topic_that_does_not_exist_is_named(topic: Bench) -> None:
    result = CliRunner().invoke(main.main, ["stream-from-topic", "no.such.topic"], env=dict(topic.environ))
    assert result.exit_code == 1
    assert "no.such.topic" in result.output
