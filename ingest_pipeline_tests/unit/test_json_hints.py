"""The reason of a refused value says which format the value seems to have."""

from __future__ import annotations

from datetime import datetime

import msgspec
import pytest

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.errors import RecordRefused
from ingest_pipeline.core.stream import Stream

POINT = Stream("point", msgspec.defstruct("Point", [("at", datetime), ("name", str), ("x", float)]))
COMMA, SEMICOLON, TAB = "format=Csv() ", 'format=Csv(delimiter=";") ', 'format=Csv(delimiter="\\t") '


def reason(value: bytes) -> str:
    with pytest.raises(RecordRefused) as refused:
        JsonDecoder(POINT).decode(value)
    assert JsonDecoder(POINT).decode_many([value]) == ([], [0])
    return refused.value.message


@pytest.mark.parametrize("value", [b"\0", b"\0\0\0\0\x07\x02a", b"\0\0\0\0\x07{}"])
def test_a_zero_byte_names_the_formats_of_a_registry(value: bytes) -> None:
    assert reason(value) == (
        "starts with a zero byte, as a schema registry's format does: format=Avro(), Protobuf() or JsonSchema()"
    )


@pytest.mark.parametrize("value", [b"[]", b'[{"x": 1}]', b" [1, 2]"])
def test_a_list_of_events_is_named(value: bytes) -> None:
    hint = "the value is a list, whose elements many=True stores as rows"
    assert reason(value) == f"Expected `object`, got `array`: {hint}"


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (b"2026-01-01T00:00:00Z,s3cr3t,1.5", COMMA),
        (b"s3cr3t,a,1\r\n", COMMA),
        (b'"s3cr3t","a, b","1"', COMMA),
        (b"s3cr3t;a;1,5", SEMICOLON),
        (b"s3cr3t\ta\t1.5", TAB),
        ("s3cr3t,\u00fc,1".encode(), COMMA),
    ],
)
def test_a_line_of_csv_is_named_without_its_text(value: bytes, hint: str) -> None:
    assert f": the value looks like a line of CSV, which {hint}reads" in reason(value)
    assert "s3cr3t" not in reason(value)


@pytest.mark.parametrize(
    "value", [b"", b"text", b"17", b'"a, b"', b"{a, b}", b"\xff,\xff", b"\x08\x96,\x01", b'{"x": 1, "y"}', b"null"]
)
def test_other_values_keep_their_reason(value: bytes) -> None:
    assert "CSV" not in reason(value)
    assert "format=" not in reason(value)
