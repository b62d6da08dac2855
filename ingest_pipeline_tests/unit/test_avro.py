"""Avro records to rows. The records come from Apache's Avro library, the product reads with another one."""

import io
import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import avro.io
import avro.schema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_pipeline import Avro, Epoch, Stream, TimeFormat
from ingest_pipeline.core.choices import NaiveTimestamps
from ingest_pipeline.core.codecs import ObjectCodec
from ingest_pipeline.core.decode import RecordDecoder
from ingest_pipeline.core.errors import RecordRefused, RefusalStage, SchemaRegistryUnavailable, SettingsError
from ingest_pipeline.core.time_forms import EPOCH_HINT
from ingest_pipeline.schema_registry.avro import AvroEventReader
from ingest_pipeline.schema_registry.avro_batch import batch_of
from ingest_pipeline.schema_registry.registry import SchemaRegistry, WriterSchema
from ingest_pipeline_tests.samples import STEADY

AT = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
Fields = Mapping[str, Any]


class Registry(SchemaRegistry):
    """Schemas by id. Counts the questions."""

    def __init__(self, schemas: Mapping[int, Any], kind: str = "AVRO") -> None:
        super().__init__({})
        self.schemas, self.kind, self.questions = dict(schemas), kind, 0

    def writer_schema(self, schema_id: int, likely_subject: str) -> WriterSchema:
        self.questions += 1
        schema = self.schemas.get(schema_id)
        if schema is None:
            raise RecordRefused("unknown", stage=RefusalStage.DECODE)
        if isinstance(schema, Exception):
            raise schema
        return WriterSchema(schema_id, self.kind, json.dumps(schema), likely_subject, ())


def record(name: str, /, **fields: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": key, "type": kind} for key, kind in fields.items()]}


MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
POINT = record("Point", x="double", at=MILLIS)


class Point(msgspec.Struct):
    x: float
    event_time: datetime = msgspec.field(name="at")


def value_of(schema: Any, fields: Fields, schema_id: int = 7) -> bytes:
    """The record in the wire format."""
    buffer = io.BytesIO()
    avro.io.DatumWriter(avro.schema.parse(json.dumps(schema))).write(fields, avro.io.BinaryEncoder(buffer))
    return b"\0" + schema_id.to_bytes(4, "big") + buffer.getvalue()


def decoder(
    event: type[msgspec.Struct],
    schema: Any,
    naive: NaiveTimestamps = NaiveTimestamps.UTC,
    registry: Registry | None = None,
) -> RecordDecoder:
    stream = Stream("points", event, format=Avro())
    reader = AvroEventReader(registry or Registry({7: schema}), stream)
    return RecordDecoder(stream, ObjectCodec(reader.read, reader.origin), naive)


def both_ways(rows: RecordDecoder, value: bytes) -> tuple[Any, ...]:
    """The row, which must be the same alone and in a batch."""
    row = rows.decode(value)
    assert rows.decode_many([value, value])[0] in ([row, row], [])
    return row


def refused(rows: RecordDecoder, value: bytes) -> RecordRefused:
    with pytest.raises(RecordRefused) as raised:
        rows.decode(value)
    assert rows.decode_many([value]) == ([], [0])
    return raised.value


LOGICAL = [
    (MILLIS, AT, AT),
    (
        {"type": "long", "logicalType": "timestamp-micros"},
        AT.replace(microsecond=678901),
        AT.replace(microsecond=678901),
    ),
    ("string", "2026-01-02T04:04:05.678+01:00", AT),
    ("string", "2026-01-02T03:04:05.6780009Z", AT),
]


@pytest.mark.parametrize(("kind", "sent", "stored"), LOGICAL)
def test_times(kind: Any, sent: Any, stored: datetime) -> None:
    schema = record("Point", x="double", at=kind)
    x, at = both_ways(decoder(Point, schema), value_of(schema, {"x": 1.5, "at": sent}))
    assert (x, at) == (1.5, stored)
    assert at.tzinfo is not None


@pytest.mark.parametrize(("naive", "outcome"), [(NaiveTimestamps.UTC, AT), (NaiveTimestamps.REJECT, None)])
def test_a_local_timestamp_follows_the_setting_for_naive_timestamps(
    naive: NaiveTimestamps, outcome: datetime | None
) -> None:
    plain = record("Point", x="double", at="long")
    local = record("Point", x="double", at={"type": "long", "logicalType": "local-timestamp-millis"})
    value = value_of(plain, {"x": 1.0, "at": round(AT.timestamp() * 1000)})
    rows = decoder(Point, local, naive)
    if outcome is None:
        assert refused(rows, value).stage == RefusalStage.TIMESTAMP
    else:
        assert both_ways(rows, value) == (1.0, outcome)


def test_nanoseconds_are_cut_to_microseconds() -> None:
    plain = record("Point", x="double", at="long")
    nanos = record("Point", x="double", at={"type": "long", "logicalType": "timestamp-nanos"})
    value = value_of(plain, {"x": 1.0, "at": 1_767_323_045_678_901_999})
    assert both_ways(decoder(Point, nanos), value) == (1.0, AT.replace(microsecond=678901))


MICROS = {"type": "long", "logicalType": "local-timestamp-micros"}
US = round(AT.timestamp() * 1_000_000)


@pytest.mark.parametrize(
    ("declared", "kind", "sent", "stored"),
    [
        (Annotated[datetime, TimeFormat(zone="Asia/Tokyo")], MICROS, US, AT - timedelta(hours=9)),
        (Annotated[datetime, TimeFormat(zone="Asia/Tokyo")], MILLIS, US // 1000, AT),
        (Annotated[datetime, Epoch("s")], MILLIS, US // 1000, AT),
        (Annotated[datetime, Epoch("ms")], "string", str(US // 1000), AT),
        (Annotated[date, Epoch("d")], {"type": "int", "logicalType": "date"}, 20484, date(2026, 1, 31)),
        (Annotated[date, Epoch("d")], "int", 20484, date(2026, 1, 31)),
        (str, {"type": "int", "logicalType": "time-millis"}, 3_723_004, "01:02:03.004000"),
        (str | None, ["null", {"type": "long", "logicalType": "time-micros"}], 3_723_000_000, "01:02:03"),
    ],
)
def test_a_time_of_avro_fits_every_declaration_of_a_time(declared: Any, kind: Any, sent: Any, stored: Any) -> None:
    """The plain type of the logical one has the same bytes."""
    plain = ["null", kind[1]["type"]] if isinstance(kind, list) else kind["type"] if isinstance(kind, dict) else kind
    value = value_of(record("Event", x=plain), {"x": sent})
    assert both_ways(decoder(msgspec.defstruct("Event", [("x", declared)]), record("Event", x=kind)), value) == (
        stored,
    )


@pytest.mark.parametrize(
    ("declared", "kind", "sent", "reason"),
    [
        (datetime, ["null", MILLIS], None, "Expected `datetime`, got `null` - at `$.x`"),
        (Annotated[datetime, Epoch("s")], ["null", "int"], None, "Expected `datetime`, got `null` - at `$.x`"),
        (Annotated[datetime, Epoch("s")], "boolean", True, "not a number of seconds since 1970 - at `$.x`"),
        (Annotated[datetime, TimeFormat("%Y")], "int", 2026, "not of the form %Y - at `$.x`"),
    ],
)
def test_another_value_for_a_time_is_refused(declared: Any, kind: Any, sent: Any, reason: str) -> None:
    schema = record("Event", x=kind)
    rows = decoder(msgspec.defstruct("Event", [("x", declared)]), schema)
    assert refused(rows, value_of(schema, {"x": sent})).message == reason


@pytest.mark.parametrize("kind", [MILLIS, {"type": "int", "logicalType": "date"}], ids=["timestamp", "date"])
def test_a_time_that_python_cannot_hold_has_a_reason_of_its_own(kind: Any) -> None:
    value = value_of(record("Event", x=kind["type"]), {"x": 10**15 if kind["type"] == "long" else 10**7})
    reason = "a time is outside the years 1 to 9999, or the bytes do not follow schema id 7 of points-value"
    event = msgspec.defstruct("Event", [("x", datetime if kind is MILLIS else date)])
    assert refused(decoder(event, record("Event", x=kind)), value).message == reason


class Everything(msgspec.Struct):
    whole: int
    text: str | None
    flag: bool
    money: Decimal
    day: date
    serial: UUID
    raw: bytes
    tags: dict[str, int]
    series: list[float]
    colour: str
    event_time: datetime


def test_every_type_of_a_column() -> None:
    serial = UUID("12345678-1234-5678-1234-567812345678")
    schema = record(
        "Everything",
        whole="int",
        text=["null", "string"],
        flag="boolean",
        money={"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 3},
        day={"type": "int", "logicalType": "date"},
        serial={"type": "string", "logicalType": "uuid"},
        raw="bytes",
        tags={"type": "map", "values": "long"},
        series={"type": "array", "items": "double"},
        colour={"type": "enum", "name": "Colour", "symbols": ["RED", "BLUE"]},
        event_time=MILLIS,
    )
    fields = {
        "whole": -5,
        "text": None,
        "flag": True,
        "money": Decimal("-1.250"),
        "day": date(2026, 1, 2),
        "serial": str(serial),
        "raw": b"\0\xff",
        "tags": {"a": 1},
        "series": [0.5, 2.0],
        "colour": "BLUE",
        "event_time": AT,
    }
    row = both_ways(decoder(Everything, schema), value_of(schema, fields))
    assert row == (
        -5, None, True, Decimal("-1.250"), date(2026, 1, 2), serial, b"\0\xff", {"a": 1}, [0.5, 2.0], "BLUE", AT,
    )  # fmt: skip


class Place(msgspec.Struct):
    lat: float
    lon: float


class Visit(msgspec.Struct):
    where: Place | None
    detail: list[Any]
    event_time: datetime
    note: str = "none"


def test_nested_records_become_columns_and_defaults_fill_missing_fields() -> None:
    place = record("Place", lat="double", lon="double")
    schema = record(
        "Visit",
        where=["null", place],
        detail={"type": "array", "items": "Place"},
        event_time=MILLIS,
    )
    fields = {"where": {"lat": 1.0, "lon": 2.0}, "detail": [{"lat": 3.0, "lon": 4.0}], "event_time": AT}
    rows = decoder(Visit, schema)
    assert both_ways(rows, value_of(schema, fields)) == (1.0, 2.0, [{"lat": 3.0, "lon": 4.0}], AT, "none")
    assert both_ways(rows, value_of(schema, fields | {"where": None}))[:2] == (None, None)


def test_a_schema_without_a_required_field_names_id_subject_and_field() -> None:
    schema = record("Point", y="double", at=MILLIS)
    error = refused(decoder(Point, schema), value_of(schema, {"y": 1.0, "at": AT}))
    assert error.message == "schema id 7 of points-value has no field `x`"


def test_a_field_of_another_type_names_schema_and_path() -> None:
    schema = record("Point", x="string", at=MILLIS)
    error = refused(decoder(Point, schema), value_of(schema, {"x": "secret", "at": AT}))
    assert error.message == "Expected `float`, got `str` - at `$.x` (schema id 7 of points-value)"


def test_a_number_is_no_time() -> None:
    schema = record("Point", x="double", at="long")
    error = refused(decoder(Point, schema), value_of(schema, {"x": 1.0, "at": 5}))
    assert error.message == "Expected `datetime`, got `int` - at `$.at`" + EPOCH_HINT


class Checked(msgspec.Struct):
    x: float
    event_time: datetime = msgspec.field(name="at")

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError(f"secret {self.x}")


def test_the_events_own_check_runs_and_its_words_stay_out() -> None:
    rows = decoder(Checked, POINT)
    assert both_ways(rows, value_of(POINT, {"x": 1.0, "at": AT})) == (1.0, AT)
    error = refused(rows, value_of(POINT, {"x": -1.0, "at": AT}))
    assert error.message.startswith("refused by the event's own check (ValueError)")


@pytest.mark.parametrize("cut", [0, 4, 5, 6, 12])
def test_a_cut_value_is_refused(cut: int) -> None:
    assert refused(decoder(Point, POINT), value_of(POINT, {"x": 1.0, "at": AT})[:cut]).stage == RefusalStage.DECODE


def test_one_bad_record_of_a_batch_leaves_the_others() -> None:
    good, bad = value_of(POINT, {"x": 1.0, "at": AT}), b"{}"
    assert decoder(Point, POINT).decode_many([good, bad, None, good]) == ([(1.0, AT)] * 2, [1, 2])


def test_the_registry_is_asked_once_for_a_schema_and_once_for_an_unknown_one() -> None:
    registry = Registry({7: POINT})
    rows = decoder(Point, POINT, registry=registry)
    values = [value_of(POINT, {"x": 1.0, "at": AT}), value_of(POINT, {"x": 1.0, "at": AT}, 8)] * 3
    assert rows.decode_many(values)[1] == [1, 3, 5]
    assert registry.questions == 2


def test_a_registry_that_is_away_refuses_no_record() -> None:
    rows = decoder(Point, POINT, registry=Registry({7: SchemaRegistryUnavailable("away")}))
    with pytest.raises(SchemaRegistryUnavailable):
        rows.decode(value_of(POINT, {"x": 1.0, "at": AT}))


def test_a_schema_of_another_kind_is_named() -> None:
    rows = decoder(Point, POINT, registry=Registry({7: POINT}, kind="PROTOBUF"))
    error = refused(rows, value_of(POINT, {"x": 1.0, "at": AT}))
    assert error.message == "schema id 7 of points-value is PROTOBUF, and the stream's format is Avro"


def test_an_extra_column_needs_json() -> None:
    with pytest.raises(SettingsError, match="extra_column is for JSON"):
        Stream("points", Point, format=Avro(), extra_column="rest")


def test_the_format_belongs_to_the_stream_s_definition() -> None:
    assert Stream("points", Point).definition() != Stream("points", Point, format=Avro()).definition()


MICROS = {"type": "long", "logicalType": "timestamp-micros"}
LOCAL = {"type": "long", "logicalType": "local-timestamp-millis"}
MANY_KINDS = record(
    "com.shop.Everything",
    time=MILLIS,
    later=["null", MICROS],
    local=LOCAL,
    texts={"type": "array", "items": "string"},
    inner=record("Inner", time=MILLIS),
    again="com.shop.Inner",
    choice=["null", "string", "long"],
)
RECURSIVE = record("Node", x="double", next=["null", "Node"])


class Nothing(msgspec.Struct):
    unused: int | None = None


@pytest.mark.parametrize(
    ("schema", "fields"),
    [
        (POINT, {"x": 1.5, "at": AT}),
        (
            MANY_KINDS,
            {
                "time": AT,
                "later": None,
                "local": 1500,
                "texts": ["a", ""],
                "inner": {"time": AT},
                "again": {"time": AT},
                "choice": 5,
            },
        ),
        (RECURSIVE, {"x": 1.5, "next": {"x": 2.5, "next": None}}),
    ],
)
@STEADY
@given(data=st.data())
def test_values_read_together_are_those_read_alone(schema: Any, fields: Fields, data: Any) -> None:
    written = json.loads(json.dumps(schema).replace(json.dumps(LOCAL), '"long"'))  # Apache's library has no local time
    good = value_of(written, fields)
    reader = AvroEventReader(Registry({7: schema}), Stream("any", Nothing, format=Avro()))
    values: list[bytes | None] = []
    for _ in range(data.draw(st.integers(1, 5))):
        start = data.draw(st.integers(0, len(good)))
        damaged = good[:start] + data.draw(st.binary(max_size=6)) + good[start + data.draw(st.integers(0, 8)) :]
        values += data.draw(st.sampled_from([[good], [good, good], [None], [damaged]]))
    expected: list[Any] = []
    refused = []
    for i, value in enumerate(values):
        try:
            expected.append(reader.read(value or b""))
        except RecordRefused:
            refused.append(i)
    assert reader.read(good)
    assert repr(reader.read_many(values)) == repr((expected, refused))


@pytest.mark.parametrize(("schema", "together"), [(POINT, True), (MANY_KINDS, True), (RECURSIVE, False)])
def test_which_schemas_are_read_together(schema: Any, together: bool) -> None:
    assert (batch_of(WriterSchema(7, "AVRO", json.dumps(schema), "", ())) is not None) == together


def test_a_record_cannot_take_bytes_of_the_next() -> None:
    """One record has a byte too many, and the next one lacks it."""
    batch = batch_of(WriterSchema(7, "AVRO", json.dumps(record("Flags", flag="boolean")), "", ()))
    assert batch is not None
    assert batch.read([b"\1", b"\0"]) == [{"flag": True}, {"flag": False}]
    for payloads in ([b"\1\1", b""], [b"", b"\1\1"]):
        with pytest.raises(ValueError, match="does not end where its value ends"):
            batch.read(payloads)
