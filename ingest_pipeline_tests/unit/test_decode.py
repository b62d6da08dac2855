"""Any value decodes to a tuple of the declared types or raises RecordRefused."""

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.errors import RecordRefused
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.samples import READING, STEADY, plain

CANARY = "c4n4ryq"


class Everything(msgspec.Struct):
    s: str
    i: int
    f: float
    b: bool
    event_time: datetime
    d: date
    n: Decimal
    u: UUID
    j: dict[str, Any]
    a: list[Any]
    raw: bytes
    maybe: datetime | None = None


EVERYTHING = Stream("everything", Everything)


def reading(**changes: Any) -> bytes:
    return json.dumps({"device_id": "a", "temperature": 1.5, "timestamp": "2026-01-01T00:00:00Z", **changes}).encode()


def refusal(value: bytes, stream: Stream = READING, naive_timestamps: str = "utc") -> RecordRefused:
    with pytest.raises(RecordRefused) as caught:
        JsonDecoder(stream, naive_timestamps).decode(value)
    return caught.value


@pytest.mark.parametrize("text", ["2026-01-01T00:00:00", "2026-01-01 00:00", "2026-01-01"])
def test_a_time_without_a_zone_can_be_refused(text: str) -> None:
    refused = refusal(reading(timestamp=text), naive_timestamps="reject")
    assert (refused.stage, refused.message) == ("timestamp", "timestamp without a time zone - at `$.timestamp`")


def test_all_field_types() -> None:
    value = json.dumps(
        {"s": "é", "i": -(2**63), "f": 21, "b": True, "event_time": "2026-01-01T00:00:00Z", "d": "2026-02-03",
         "n": "12345678901234567890.123", "u": "12345678-1234-5678-1234-567812345678", "j": {"k": [1, None]},
         "a": [{"x": 1.5}], "raw": "AAEC", "maybe": "2026-01-01 00:00+0100"}
    ).encode()  # fmt: skip
    assert plain(JsonDecoder(EVERYTHING).decode(value)) == (
        "é", -(2**63), 21.0, True, datetime(2026, 1, 1, tzinfo=UTC), date(2026, 2, 3),
        Decimal("12345678901234567890.123"), UUID("12345678-1234-5678-1234-567812345678"), {"k": [1, None]},
        [{"x": 1.5}], b"\x00\x01\x02", datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1))),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "stage"),
    [
        (b"", "decode"),
        (b"{", "decode"),
        (b"null", "decode"),
        (b"[]", "decode"),
        (b"\xff\xfe", "decode"),
        (b'\xef\xbb\xbf{"device_id": "a"}', "decode"),
        (reading(temperature="21"), "decode"),
        (reading(temperature=None), "decode"),
        (reading(temperature=True), "decode"),
        (reading(timestamp=1767225600), "decode"),
        (b'{"device_id": "a", "timestamp": "2026-01-01T00:00:00Z"}', "decode"),
        (reading(temperature=float("nan")), "decode"),
        (reading(temperature=float("inf")), "decode"),
        (b'{"device_id": "a", "temperature": 1e999, "timestamp": "2026-01-01T00:00:00Z"}', "decode"),
        (b'{"device_id": "\\ud800", "temperature": 1, "timestamp": "2026-01-01T00:00:00Z"}', "decode"),
        (b'{"device_id": "\xc3", "temperature": 1, "timestamp": "2026-01-01T00:00:00Z"}', "decode"),
        (b"[" * 200_000, "decode"),
        (b'{"device_id": ' + b"[" * 200_000, "decode"),
        (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "decode"),
        (reading(device_id="a\0b"), "value"),
        (reading(timestamp="0001-01-01T00:00:00+14:00"), "value"),
        (reading(timestamp="9999-12-31T23:59:59-14:00"), "value"),
        (reading(timestamp="10000-01-01T00:00:00Z"), "timestamp"),
        (reading(timestamp="0000-01-01T00:00:00Z"), "timestamp"),
    ],
)
def test_a_bad_value_is_refused_at_its_stage(value: bytes, stage: str) -> None:
    assert refusal(value).stage == stage


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("i", 2**63),
        ("i", -(2**63) - 1),
        ("i", 1.5),
        ("n", "NaN"),
        ("n", "Infinity"),
        ("j", {"k": "a\0b"}),
        ("j", {"a\0b": 1}),
        ("a", [["a\0b"]]),
        ("s", "\0"),
        ("raw", "not base64!"),
        ("u", "12"),
        ("d", "2026-02-30"),
        ("maybe", "soon"),
    ],
)
def test_bad_values_of_other_types_are_refused(field: str, value: Any) -> None:
    good = {
        "s": "", "i": 1, "f": 1, "b": False, "event_time": "2026-01-01T00:00:00Z", "d": "2026-02-03", "n": "1",
        "u": "12345678-1234-5678-1234-567812345678", "j": {}, "a": [], "raw": "",
    }  # fmt: skip
    assert JsonDecoder(EVERYTHING).decode(json.dumps(good).encode())
    refused = refusal(json.dumps({**good, field: value}).encode(), EVERYTHING)
    assert f"$.{field}" in refused.message


@pytest.mark.parametrize("number", ["1.0", "1e0", "-0.0", "1e400", str(2**63), '"1"', "true"])
@pytest.mark.parametrize("time", ["2026-01-01T00:00:00Z", "2026-01-01 00:00", "2026-01-01T00:00:00.1234567Z"])
def test_a_number_that_is_no_int_is_refused_with_its_place(number: str, time: str) -> None:
    stream = Stream("counted", msgspec.defstruct("Counted", [("event_time", datetime), ("whole", int)]))
    refused = refusal(f'{{"event_time": "{time}", "whole": {number}}}'.encode(), stream)
    assert refused.message.endswith(" - at `$.whole`")


@pytest.mark.parametrize(
    "number", ["1e131072", "1e-16384", '"1e999999999999"', "-1e9999999", "9" * 131073, '"0e-99999"']
)
def test_a_decimal_out_of_range_is_refused_with_its_place(number: str) -> None:
    stream = Stream("exact", msgspec.defstruct("Exact", [("event_time", datetime), ("amount", Decimal)]))
    message = refusal(f'{{"event_time": "2026-01-01T00:00:00Z", "amount": {number}}}'.encode(), stream).message
    assert message.startswith("more digits than PostgreSQL's numeric holds")
    assert message.endswith(" - at `$.amount`")


def test_the_first_and_the_last_time_are_kept() -> None:
    for text in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"):
        assert JsonDecoder(READING).decode(reading(timestamp=text))[2] == datetime.fromisoformat(text)


def test_a_backslash_is_accepted() -> None:
    assert JsonDecoder(READING).decode(reading(device_id='a\\b"\n'))[0] == 'a\\b"\n'


def test_the_last_of_duplicate_keys_wins() -> None:
    value = b'{"device_id": "a", "device_id": "b", "temperature": 1, "timestamp": "2026-01-01T00:00:00Z"}'
    assert JsonDecoder(READING).decode(value)[0] == "b"


def test_the_reason_names_the_declared_type() -> None:
    for number in (5, 1.5):
        message = refusal(reading(timestamp=number)).message
        assert message.startswith(f"Expected `datetime`, got `{type(number).__name__}` - at `$.timestamp`")
        assert 'Annotated[datetime, Epoch("ms")]' in message, "a number for a time is what people try first"


def test_an_unknown_field_is_not_quoted() -> None:
    class Strict(msgspec.Struct, forbid_unknown_fields=True):
        event_time: datetime

    value = json.dumps({"event_time": "2026-01-01T00:00:00Z", CANARY: 1}).encode()
    assert refusal(value, Stream("strict", Strict)).message == "Object contains unknown field"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(CANARY),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.fixed_dictionaries({}, optional={name: JSON for name in ("device_id", "temperature", "timestamp")})


@STEADY
@given(st.one_of(st.binary(max_size=60), OBJECTS.map(lambda document: json.dumps(document).encode())))
def test_any_bytes_give_a_row_or_a_reason_without_values(value: bytes) -> None:
    for stream in STREAMS:
        try:
            row = JsonDecoder(stream).decode(value)
        except RecordRefused as refused:
            assert CANARY not in refused.message
            assert refused.stage in ("decode", "timestamp", "value")
        else:
            assert row[-1].utcoffset() is not None
