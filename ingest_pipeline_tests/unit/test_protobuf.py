"""Protobuf records to rows. test_schema_registry.py uses confluent-kafka's serializer as well."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest

from ingest_pipeline import Protobuf, Stream
from ingest_pipeline.core.choices import NaiveTimestamps
from ingest_pipeline.core.errors import RecordRefused, SettingsError
from ingest_pipeline.operations.decoders import decoder_of
from ingest_pipeline_tests.meter_message import METER, OTHER, PLACE

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
SERIAL = UUID("12345678-1234-5678-1234-567812345678")
HEADER = b"\0\0\0\0\7"
METER_PATH = b"\x02\x02"  # one index, 1, both in zigzag


class Place(msgspec.Struct):
    lat: float
    lon: float


class Meter(msgspec.Struct):
    device_id: str
    count: int
    level: float | None
    raw: bytes
    colour: str
    event_time: datetime = msgspec.field(name="at")
    place: Place | None = None
    series: list[int] = []
    labels: dict[str, int] = {}
    note: str | None = None
    serial: UUID | None = None
    unit: str = "kWh"


METERS = Stream("meter", Meter, format=Protobuf(METER))


def full() -> Any:
    message = METER(device_id="dev", count=-5, level=0.5, raw=b"\0\xff", colour=1, series=[1, 2], labels={"a": 1})
    message.at.FromDatetime(AT)
    message.at.nanos += 999
    message.place.lat, message.place.lon = 1.0, 2.0
    message.note.value = "x"
    message.serial = str(SERIAL)
    return message


def value_of(message: Any, path: bytes = METER_PATH) -> bytes:
    return HEADER + path + bytes(message.SerializeToString())


def row(value: bytes, stream: Stream = METERS) -> tuple[Any, ...]:
    """The row, which must be the same alone and in a batch."""
    rows = decoder_of(stream, NaiveTimestamps.UTC, pytest.fail)
    alone = rows.decode(value)
    assert rows.decode_many([value])[0] in ([alone], [])
    return alone


def test_every_kind_of_field() -> None:
    expected = ("dev", -5, 0.5, b"\0\xff", "BLUE", AT, 1.0, 2.0, [1, 2], {"a": 1}, "x", SERIAL, "kWh")
    assert row(value_of(full())) == expected


def test_a_field_without_a_value_is_null_or_protobuf_s_default() -> None:
    message = METER(serial=str(SERIAL))
    message.at.FromDatetime(AT)
    assert row(value_of(message)) == ("", 0, None, b"", "RED", AT, None, None, [], {}, None, SERIAL, "kWh")


def test_the_first_message_of_a_file_has_a_short_path() -> None:
    stream = Stream("other", msgspec.defstruct("Other", [("name", str)]), format=Protobuf(OTHER))
    value = OTHER(name="x").SerializeToString()
    assert row(HEADER + b"\0" + value, stream) == ("x",)
    assert row(HEADER + b"\x02\0" + value, stream) == ("x",)


def test_a_nested_message_has_a_path_of_two() -> None:
    stream = Stream("place", Place, format=Protobuf(PLACE))
    assert row(HEADER + b"\x04\x02\0" + PLACE(lat=1.0, lon=2.0).SerializeToString(), stream) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"{}", "no schema id: the value does not start with a zero byte and four bytes of id"),
        (HEADER, "the path of the message is cut off"),
        (HEADER + b"\x02", "the path of the message is cut off"),
        (HEADER + b"\x80" * 11, "the path of the message is cut off"),
        (value_of(full(), b"\0"), "message [0] of its schema, and Meter is message [1]"),
        (value_of(full())[:-1], "the bytes are no Meter"),
        (value_of(METER(serial=str(SERIAL))), "Object missing required field `at`"),
    ],
)
def test_another_value_is_refused(value: bytes, reason: str) -> None:
    with pytest.raises(RecordRefused) as raised:
        row(value)
    assert raised.value.message == reason


@pytest.mark.parametrize(("seconds", "nanos"), [(400_000_000_000, 0), (0, -1), (0, 1_000_000_000)])
def test_a_damaged_time_is_refused(seconds: int, nanos: int) -> None:
    """One outside Python's years, too."""
    message = full()
    message.at.seconds, message.at.nanos = seconds, nanos
    with pytest.raises(RecordRefused, match="the bytes are no Meter"):
        row(value_of(message))


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        (lambda: Protobuf(Meter), "not a generated message class"),
        (lambda: Stream("other", Meter, format=Protobuf(OTHER)), "the message tests.Other has no field 'device_id'"),
        (
            lambda: Stream("meter", Meter, format=Protobuf(METER), envelope="debezium"),
            r"the format Protobuf\(tests.Meter \w+\) has no envelope",
        ),
    ],
)
def test_a_declaration_that_cannot_work_is_named(declare: Any, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        declare()


def test_another_message_is_another_definition() -> None:
    event = msgspec.defstruct("Event", [("name", str), ("device_id", str, "")])
    other = Stream("event", event, format=Protobuf(OTHER)).definition()
    assert other == Stream("event", event, format=Protobuf(OTHER)).definition()
    assert other != Stream("event", event).definition()


def test_a_message_of_another_path_is_refused_behind_a_good_one() -> None:
    rows = decoder_of(METERS, NaiveTimestamps.UTC, pytest.fail)
    good = rows.decode(value_of(full()))
    for path in (b"\0", b"\x02\x04", b"\x02", b""):
        with pytest.raises(RecordRefused):
            rows.decode(value_of(METER() if path else full(), path))
    assert rows.decode(b"\1" + b"g" * 16 + value_of(full())[5:]) == rows.decode(value_of(full())) == good
