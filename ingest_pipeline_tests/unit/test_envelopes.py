"""Events inside change events of Debezium and inside CloudEvents."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import pytest

from ingest_pipeline import Avro, Csv, Epoch, JsonSchema, Stream
from ingest_pipeline.core.choices import NaiveTimestamps
from ingest_pipeline.core.errors import RecordRefused, RecordSkipped, SettingsError
from ingest_pipeline.core.record import NextOffset, Position
from ingest_pipeline.core.rows import RecordRules, decode_batch
from ingest_pipeline.operations.decoders import Decoder, decoder_of
from ingest_pipeline.testing.log import MemoryMessage
from ingest_pipeline_tests.unit.test_avro import MILLIS, Registry, record, value_of

AT = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
MS = round(AT.timestamp() * 1000)

REGISTRY_BYTES = (
    "starts with a zero byte, as a schema registry's format does: format=Avro(), Protobuf() or JsonSchema()"
)


class Customer(msgspec.Struct):
    id: int
    name: str
    changed_at: Annotated[datetime, Epoch("ms")]
    operation: str = msgspec.field(name="__op")
    committed_at: Annotated[datetime, Epoch("ms")] = msgspec.field(name="__source_ts_ms")
    row_state: str | None = msgspec.field(name="__source_snapshot", default=None)


class Sensor(msgspec.Struct):
    level: float
    time: datetime = msgspec.field(name="ce_time")
    kind: str = msgspec.field(name="ce_type")


CUSTOMER = Stream("customer", Customer, envelope="debezium")
SENSOR = Stream("sensor", Sensor, envelope="cloudevents")
AFTER = {"id": 1, "name": "Ada", "changed_at": MS}
ROW = (1, "Ada", AT, "c", AT, None)


def change(operation: str = "c", **other: Any) -> dict[str, Any]:
    source = {"ts_ms": MS, "db": "shop", "table": "customer"}
    return {"before": None, "after": AFTER, "source": source, "op": operation, "ts_ms": MS} | other


def encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def decoder(stream: Stream = CUSTOMER) -> Decoder:
    return decoder_of(stream, NaiveTimestamps.UTC, pytest.fail)


def row(value: Any, stream: Stream = CUSTOMER) -> tuple[Any, ...]:
    """The row, which must be the same alone and in a batch."""
    text = value if isinstance(value, bytes) else encode(value)
    alone = decoder(stream).decode(text)
    assert decoder(stream).decode_many([text])[0] in ([alone], [])
    return alone


@pytest.mark.parametrize("operation", ["c", "u", "r"])
@pytest.mark.parametrize("with_schema", [False, True])
def test_a_change_event_gives_the_rows_new_version(operation: str, with_schema: bool) -> None:
    event: Any = change(operation)
    if with_schema:
        event = {"schema": {"type": "struct", "fields": []}, "payload": event}
    assert row(event) == (1, "Ada", AT, operation, AT, None)


def test_a_part_of_the_source_is_a_column() -> None:
    assert row(change(source={"ts_ms": MS, "snapshot": "last"}))[-1] == "last"


def test_the_envelope_behind_a_schema_id() -> None:
    stream = Stream("customer", Customer, envelope="debezium", format=JsonSchema())
    assert row(b"\0\0\0\0\7" + encode(change()), stream) == ROW


@pytest.mark.parametrize("event", [change("d", after=None), change("t"), change("m"), {"schema": {}, "payload": None}])
def test_a_change_without_a_new_version_is_skipped(event: Any) -> None:
    with pytest.raises(RecordSkipped):
        decoder().decode(encode(event))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (encode(AFTER), "no Debezium envelope: there is no `op`"),
        (encode(change(after=None)), "the change event has no `after`"),
        (encode(change(after=[1])), "the envelope's event is not a JSON object"),
        (encode(change(op=1)), "no Debezium envelope: there is no `op`"),
        (encode(change(source={})), "Object missing required field `__source_ts_ms`"),
        (encode(change(after={"id": "x"})), "Expected `int`, got `str` - at `$.id`"),
        (b'{"op": "c", "after": {}', "Input data was truncated"),
        (b"[]", "Expected `object | null`, got `array`: the value is a list, and an envelope holds one event"),
        (b"\0\0\0\0\7abc", REGISTRY_BYTES),
    ],
)
def test_another_value_is_refused(value: bytes, reason: str) -> None:
    with pytest.raises(RecordRefused) as raised:
        decoder().decode(value)
    assert raised.value.message == reason
    assert not isinstance(raised.value, RecordSkipped)
    assert decoder().decode_many([value]) == ([], [0])


def test_skipped_changes_are_counted_and_make_no_dead_letter() -> None:
    values = [change(), change("d"), change("u"), AFTER]
    messages = [MemoryMessage(0, offset, 0, encode(value)) for offset, value in enumerate(values)]
    rows = decoder()
    positions = {0: Position(0, 1, NextOffset(0))}
    batch = decode_batch(messages, {}, positions, decode=rows.decode, decode_many=rows.decode_many, rules=RecordRules())
    assert batch is not None
    assert [values[4:] for values in batch.rows] == [ROW, (*ROW[:3], "u", *ROW[4:])]
    assert (batch.advances[0].skipped, [letter.offset for letter in batch.dead_letters]) == (1, [3])


def avro_schema(**after: Any) -> Mapping[str, Any]:
    """As Debezium writes it: `after` names the record that `before` declares."""
    fields = after or {"id": "long", "name": "string", "changed_at": "long"}
    return record(
        "Envelope",
        before=["null", record("Value", **fields)],
        after=["null", "Value"],
        source=record("Source", ts_ms="long", db="string"),
        op="string",
    )


def test_the_envelope_in_avro() -> None:
    stream = Stream("customer", Customer, envelope="debezium", format=Avro())
    schema = avro_schema()
    rows = decoder_of(stream, NaiveTimestamps.UTC, lambda: Registry({7: schema}))
    event = {"before": None, "after": AFTER, "source": {"ts_ms": MS, "db": "shop"}, "op": "c"}
    value = value_of(schema, event)
    assert rows.decode(value) == ROW
    assert rows.decode_many([value, value])[0] == [ROW, ROW]
    with pytest.raises(RecordSkipped):
        rows.decode(value_of(schema, event | {"op": "d", "after": None}))


def test_a_field_that_after_lacks_is_named() -> None:
    stream = Stream("customer", Customer, envelope="debezium", format=Avro())
    schema = avro_schema(id="long", changed_at=MILLIS)
    rows = decoder_of(stream, NaiveTimestamps.UTC, lambda: Registry({7: schema}))
    event = {"before": None, "after": {"id": 1, "changed_at": AT}, "source": {"ts_ms": MS, "db": ""}, "op": "c"}
    with pytest.raises(RecordRefused, match="schema id 7 of customer-value has no field `name`"):
        rows.decode(value_of(schema, event))


CLOUD = {
    "specversion": "1.0",
    "id": "5",
    "source": "/floor/2",
    "type": "sensor.read",
    "time": "2026-01-02T03:04:05.678Z",
    "data": {"level": 1.5},
}


def test_a_cloud_event_gives_its_data_and_attributes() -> None:
    assert row(CLOUD, SENSOR) == (1.5, AT, "sensor.read")


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        ("eyJsZXZlbCI6IDEuNX0=", (1.5, AT, "sensor.read")),
        ("eyJsZXZlbCI6!", "the CloudEvent's `data_base64` is not base64"),
        ("WzFd", "the envelope's event is not a JSON object"),
        ("e30", "the CloudEvent's `data_base64` is not base64"),
        (7, "the CloudEvent has no `data`"),
    ],
)
def test_the_data_of_a_cloud_event_may_be_in_base64(encoded: Any, expected: Any) -> None:
    event = {key: value for key, value in CLOUD.items() if key != "data"} | {"data_base64": encoded}
    if isinstance(expected, tuple):
        assert row(event, SENSOR) == expected
        return
    with pytest.raises(RecordRefused) as raised:
        decoder(SENSOR).decode(encode(event))
    assert raised.value.message == expected


@pytest.mark.parametrize(
    ("lacking", "reason"),
    [("specversion", "no CloudEvent: there is no `specversion`"), ("data", "the CloudEvent has no `data`")],
)
def test_a_cloud_event_without_a_part_is_refused(lacking: str, reason: str) -> None:
    with pytest.raises(RecordRefused) as raised:
        decoder(SENSOR).decode(encode({key: value for key, value in CLOUD.items() if key != lacking}))
    assert raised.value.message == reason


@pytest.mark.parametrize("options", [{"envelope": "soap"}, {"envelope": "debezium", "format": Csv()}])
def test_an_envelope_that_cannot_be_used_is_named(options: Any) -> None:
    with pytest.raises(SettingsError, match="envelope"):
        Stream("customer", Customer, **options)
