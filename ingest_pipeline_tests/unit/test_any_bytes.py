"""Any bytes in any format give a row or a refusal, alone and in a batch, and a refusal quotes nothing."""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_pipeline import Avro, Csv, Epoch, Json, JsonSchema, Protobuf, Stream
from ingest_pipeline.core.choices import NaiveTimestamps
from ingest_pipeline.core.errors import RecordRefused
from ingest_pipeline.core.formats import Format
from ingest_pipeline.core.record_keys import record_keys
from ingest_pipeline.operations.decoders import decoder_of, key_reader
from ingest_pipeline_tests.meter_message import METER
from ingest_pipeline_tests.unit.test_avro import MILLIS, Registry, record, value_of

AT = datetime(2026, 1, 1, tzinfo=UTC)
SCHEMA = record(
    "Meter",
    device_id="string",
    count="long",
    level=["null", "double"],
    series={"type": "array", "items": "int"},
    labels={"type": "map", "values": "long"},
    at=MILLIS,
)
FIELDS = {"device_id": "canary", "count": 5, "level": 1.5, "series": [1, 2], "labels": {"canary": 1}, "at": AT}


class Meter(msgspec.Struct):
    device_id: str
    count: int
    level: float | None
    series: list[int]
    labels: dict[str, int]
    event_time: datetime = msgspec.field(name="at")


class Line(msgspec.Struct):
    device_id: str
    count: int
    at: Annotated[datetime, Epoch("ms")]


def message() -> bytes:
    meter = METER(device_id="canary", count=5, level=1.5, series=[1, 2], labels={"canary": 1})
    meter.at.FromDatetime(AT)
    return b"\0\0\0\0\7\2\2" + bytes(meter.SerializeToString())


JSON = b'{"device_id":"canary","count":5,"level":1.5,"series":[1,2],"labels":{"canary":1},"at":"2026-01-01T00:00:00Z"}'
LINE = b'{"device_id":"canary","count":5,"at":1500}'
CASES: dict[str, tuple[Stream, bytes]] = {
    "json": (Stream("meter", Meter, format=Json()), JSON),
    "json-schema": (Stream("meter", Meter, format=JsonSchema()), b"\0\0\0\0\7" + JSON),
    "avro": (Stream("meter", Meter, format=Avro()), value_of(SCHEMA, FIELDS)),
    "array": (Stream("meter", Meter, many=True), b"[" + JSON + b", " + JSON + b"]"),
    "avro-list": (
        Stream("meter", Meter, format=Avro(), many=True, transform=lambda event: [event, event]),
        value_of(SCHEMA, FIELDS),
    ),
    "protobuf": (Stream("meter", Meter, format=Protobuf(METER)), message()),
    "csv": (Stream("line", Line, format=Csv()), b'"can""ary",5,1500'),
    "debezium": (Stream("line", Line, envelope="debezium"), b'{"op":"c","source":{},"after":' + LINE + b"}"),
    "cloudevents": (Stream("line", Line, envelope="cloudevents"), b'{"specversion":"1.0","data":' + LINE + b"}"),
}


def text_of(row: Any) -> str:
    """NaN is not equal to itself, and JSON text has no equality at all."""
    if isinstance(row, tuple | list):
        return f"[{', '.join(map(text_of, row))}]"
    return repr(bytes(row) if isinstance(row, msgspec.Raw) else row)


def changed(data: Any, good: bytes) -> bytes:
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 8)))
    return good[:start] + data.draw(st.binary(max_size=6)) + good[end:]


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_bytes(name: str, data: Any) -> None:
    stream, good = CASES[name]
    rows = decoder_of(stream, NaiveTimestamps.UTC, lambda: Registry({7: SCHEMA}))
    value = changed(data, good)
    row: Any = None
    try:
        row = rows.decode(value)
    except RecordRefused as refused:
        assert "canary" not in refused.message
    batch, odd = rows.decode_many([value, good])
    assert odd in ([], [0], [0, 1])
    if odd == []:
        assert text_of(batch[0]) == text_of(row)
    if odd == [0]:
        assert text_of(batch[0]) == text_of(rows.decode(good))


@pytest.mark.parametrize("record_format", [Json(), JsonSchema(), Avro(), Protobuf(METER, key=METER)], ids=str)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_key(record_format: Format, data: Any) -> None:
    stream = Stream("meter", Meter, format=record_format, key=("device_id",), deletes=True)
    keys = record_keys(stream, key_reader(stream, lambda: Registry({7: SCHEMA})))
    assert keys is not None
    key = changed(data, data.draw(st.sampled_from([good for _, good in CASES.values()])))
    values = keys.values(key)
    try:
        assert keys.deleted_row(key)[0] == (values or ())[0]
    except RecordRefused as refused:
        assert values is None
        assert "canary" not in refused.message
        assert "\n" not in refused.message
