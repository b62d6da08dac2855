"""Record keys in a schema registry's format, which a deletion needs."""

from datetime import date
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest

from ingest_pipeline import Avro, Epoch, JsonSchema, Protobuf, Stream
from ingest_pipeline.core.choices import NaiveTimestamps
from ingest_pipeline.core.errors import NotPermitted, RecordRefused, SchemaRegistryUnavailable, SettingsError
from ingest_pipeline.core.formats import Format
from ingest_pipeline.core.record import Deletion, NextOffset, Position, RecordKeys
from ingest_pipeline.core.record_keys import record_keys
from ingest_pipeline.core.rows import RecordRules, decode_batch
from ingest_pipeline.operations.decoders import decoder_of, key_reader
from ingest_pipeline.testing.log import MemoryMessage
from ingest_pipeline_tests.meter_message import METER, OTHER
from ingest_pipeline_tests.unit.test_avro import Registry, record, value_of

AVRO = Avro()
UID = UUID("12345678-1234-5678-1234-567812345678")


class Item(msgspec.Struct):
    name: str
    number: int
    price: Decimal
    uid: UUID
    day: date
    born: Annotated[date, Epoch("d")]


DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
KEYS = {
    1: record("Key", number="int"),
    2: record("Key", uid={"type": "string", "logicalType": "uuid"}, day={"type": "int", "logicalType": "date"}),
    3: "string",
    4: "long",
    5: record("Key", price=DECIMAL, name=["null", "string"]),
    6: record("Key", born="int"),
    7: {"type": "enum", "name": "Name", "symbols": ["a", "b"]},
    8: NotPermitted("the login"),
    9: SchemaRegistryUnavailable("away"),
}


def keys_of(key: tuple[str, ...], record_format: Format = AVRO, registry: Registry | None = None) -> RecordKeys:
    stream = Stream("item", Item, key=key, deletes=True, format=record_format)
    keys = record_keys(stream, key_reader(stream, lambda: registry or Registry(KEYS)))
    assert keys is not None
    return keys


@pytest.mark.parametrize(
    ("key", "schema_id", "sent", "values"),
    [
        (("number",), 1, {"number": 17}, (17,)),
        (("uid", "day"), 2, {"uid": str(UID), "day": date(2026, 1, 2)}, (UID, date(2026, 1, 2))),
        (("name",), 3, "plain", ("plain",)),
        (("number",), 4, -1, (-1,)),
        (("name", "price"), 5, {"name": "a", "price": Decimal("1.50")}, ("a", Decimal("1.50"))),
        (("born",), 6, {"born": 1}, (date(1970, 1, 2),)),
        (("name",), 7, "b", ("b",)),
    ],
)
def test_an_avro_key(key: tuple[str, ...], schema_id: int, sent: Any, values: tuple[Any, ...]) -> None:
    registry = Registry(KEYS)
    keys, wire = keys_of(key, registry=registry), value_of(KEYS[schema_id], sent, schema_id)
    for _ in range(2):
        assert keys.values(wire) == values
        assert {value for value in keys.deleted_row(wire) if value is not None} == set(values)
    assert registry.questions == 1


@pytest.mark.parametrize(
    ("key", "wire", "reason"),
    [
        (("number",), b"\0\0\0\0\1", "in the record's key: the bytes do not follow schema id 1 of item-key"),
        (("number",), b"\0\0\0\0\1\2\2", "in the record's key: bytes are left behind a record of schema id 1"),
        (("number",), b"\0\0", "in the record's key: no schema id"),
        (("number",), b"\0\0\0\0\x63\2", "in the record's key: unknown"),
        (("number",), value_of("string", "secret", 3), "in the record's key: Expected `int`, got `str`"),
        (("name",), value_of("string", "secret\0", 3), "NUL character in the record's key"),
        (("name",), value_of(KEYS[5], {"name": None, "price": Decimal(1)}, 5), r"got `null` - at `\$.name`"),
        (("name", "price"), value_of("string", "secret", 3), "in the record's key: Expected `object`, got `str`"),
        (("uid",), value_of(KEYS[1], {"number": 1}, 1), "in the record's key: Object missing required field `uid`"),
    ],
)
def test_an_avro_key_that_does_not_name_the_row(key: tuple[str, ...], wire: bytes, reason: str) -> None:
    with pytest.raises(RecordRefused, match=reason) as refused:
        keys_of(key).deleted_row(wire)
    assert "secret" not in refused.value.message
    assert keys_of(key).values(wire) is None


@pytest.mark.parametrize(("schema_id", "error"), [(8, NotPermitted), (9, SchemaRegistryUnavailable)])
def test_a_registry_that_does_not_answer_is_no_fault_of_a_key(schema_id: int, error: type[Exception]) -> None:
    keys = keys_of(("number",))
    for read in (keys.deleted_row, keys.values):
        with pytest.raises(error):
            read(b"\0\0\0\0" + bytes([schema_id]) + b"\2")


def test_keys_without_a_schema_id_are_json_or_text() -> None:
    assert keys_of(("name",)).values(b"plain") == keys_of(("name",)).values(b'{"name":"plain"}') == ("plain",)


def test_a_key_of_a_json_schema_needs_no_registry() -> None:
    keys = keys_of(("number",), JsonSchema(), Registry({}))
    assert keys.values(b'\0\0\0\0\7{"number":3}') == keys.values(b"\0\0\0\0\10" + b"3") == (3,)
    with pytest.raises(RecordRefused, match="in the record's key: JSON is malformed"):
        keys.deleted_row(b"\0\0\0\0\7{{")


def test_a_protobuf_key_is_read_with_its_own_class() -> None:
    event = msgspec.defstruct("Event", [("device_id", str), ("name", str | None, None)])
    stream = Stream("event", event, key=("device_id",), deletes=True, format=Protobuf(METER, key=METER))
    keys = record_keys(stream, key_reader(stream, lambda: Registry({})))
    assert keys is not None
    payload = METER(device_id="a").SerializeToString()
    assert keys.values(b"\0\0\0\0\7\2\2" + payload) == ("a",)
    with pytest.raises(RecordRefused, match=r"in the record's key: message .* of its schema, and Meter is message"):
        keys.deleted_row(b"\0\0\0\0\7\0" + payload)


def test_a_changed_class_of_the_keys_changes_the_definition() -> None:
    event = msgspec.defstruct("Event", [("device_id", str)])
    formats = [Protobuf(METER), Protobuf(METER, key=METER), Protobuf(METER, key=OTHER)]
    assert len({Stream("event", event, format=item).definition() for item in formats}) == 3
    with pytest.raises(SettingsError, match="Protobuf: key is not a generated message class"):
        Protobuf(METER, key=Item)


ROW = record("Value", id="long", name="string")
ENVELOPE = record("Envelope", op="string", before=["null", ROW], after=["null", "Value"])
ID = record("Key", id="long")


class Row(msgspec.Struct):
    id: int
    name: str


def test_avro_change_events_and_tombstones_delete_rows() -> None:
    stream = Stream("row", Row, key=("id",), deletes=True, envelope="debezium", format=Avro())
    registry = Registry({7: ENVELOPE, 8: ID})
    created = value_of(ENVELOPE, {"op": "c", "before": None, "after": {"id": 1, "name": "n"}})
    deleted = value_of(ENVELOPE, {"op": "d", "before": None, "after": None})
    with_before = value_of(ENVELOPE, {"op": "d", "before": {"id": 1, "name": ""}, "after": None})
    key = value_of(ID, {"id": 1}, 8)
    bare_key, header = key[5:], [("__key_schema_id", key[:5])]
    messages = [
        *(MemoryMessage(0, i, 0, value, key=key) for i, value in enumerate((created, deleted, with_before, None))),
        MemoryMessage(0, 4, 0, None, key=bare_key, headers=header),
    ]
    decoder = decoder_of(stream, NaiveTimestamps.UTC, lambda: registry)
    batch = decode_batch(
        messages,
        {},
        {0: Position(0, 1, NextOffset(0))},
        decode=decoder.decode,
        decode_many=decoder.decode_many,
        rules=RecordRules(
            record_columns=stream.record_columns, record_keys=record_keys(stream, key_reader(stream, lambda: registry))
        ),
    )
    assert batch is not None
    assert [(type(row) is Deletion, *row[4:]) for row in batch.rows] == [(False, 1, "n"), *[(True, 1, None)] * 4]
    assert not batch.dead_letters
