"""CSV lines to rows."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from ingest_pipeline import Csv, Stream
from ingest_pipeline.core.choices import NaiveTimestamps
from ingest_pipeline.core.errors import RecordRefused, RecordSkipped, SettingsError
from ingest_pipeline.operations.decoders import decoder_of

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Line(msgspec.Struct):
    device: str
    count: int
    level: float | None
    ok: bool
    price: Decimal
    day: date
    event_time: datetime


def decode(value: bytes, **options: Any) -> tuple[Any, ...]:
    """The row, which must be the same alone and in a batch."""
    decoder = decoder_of(Stream("line", Line, format=Csv(**options)), NaiveTimestamps.UTC, lambda: pytest.fail())
    row = decoder.decode(value)
    assert decoder.decode_many([value])[0] in ([row], [])
    return row


NUL = "NUL character, which PostgreSQL cannot store - at `$.device`"
ROW = ("a", 5, 0.5, True, Decimal("1.20"), date(2026, 1, 2), AT)


@pytest.mark.parametrize(
    ("value", "options", "row"),
    [
        (b"a,5,0.5,true,1.20,2026-01-02,2026-01-02T03:04:05Z", {}, ROW),
        (b"a,5,0.5,true,1.20,2026-01-02,2026-01-02T03:04:05Z\r\n", {}, ROW),
        (b"\xef\xbb\xbfa,5,0.5,true,1.20,2026-01-02,2026-01-02T03:04:05Z", {}, ROW),
        (b"a;5;0.5;1;1.20;2026-01-02;2026-01-02 03:04:05", {"delimiter": ";"}, ROW),
        (b"a,5,,true,1.20,2026-01-02,2026-01-02T03:04:05Z", {}, (*ROW[:2], None, *ROW[3:])),
        (b'"a,""b""\n",5,0.5,true,1.20,2026-01-02,2026-01-02T03:04:05Z', {}, ('a,"b"\n', *ROW[1:])),
        (
            b",5,0.5,true,1.20,2026-01-02,2026-01-02T03:04:05.1234567Z",
            {},
            ("", *ROW[1:6], AT.replace(microsecond=123456)),
        ),
    ],
)
def test_a_line_is_a_row(value: bytes, options: dict[str, str], row: tuple[Any, ...]) -> None:
    assert decode(value, **options) == row


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "0 values, 7 are declared"),
        (b"a,5", "2 values, 7 are declared"),
        (b"a,5,0.5,true,1.20,2026-01-02,2026-01-02T03:04:05Z,x", "8 values, 7 are declared"),
        (b'"a,5,0.5,true,1.20,2026-01-02,2026-01-02T03:04:05Z', "not one line of CSV"),
        (b"a,5,0.5,true,1.20,2026-01-02,2026-01-02T03:04:05Z\nb,5", "not one line of CSV"),
        (b"\xff,5,0.5,true,1.20,2026-01-02,2026-01-02T03:04:05Z", "not valid UTF-8"),
        (b"a,x,0.5,true,1.20,2026-01-02,2026-01-02T03:04:05Z", "Expected `int`, got `str` - at `$.count`"),
        (b"a,,0.5,true,1.20,2026-01-02,2026-01-02T03:04:05Z", "Expected `int`, got `str` - at `$.count`"),
        (b"a,5,0.5,true,NaN,2026-01-02,2026-01-02T03:04:05Z", "not a finite number - at `$.price`"),
        (b"a,5,0.5,true,1.20,2026-01-02,soon", "not an ISO 8601 timestamp - at `$.event_time`"),
        (b"a\0,5,0.5,true,1.20,2026-01-02,2026-01-02T03:04:05Z", NUL),
    ],
)  # fmt: skip
def test_a_bad_line_is_refused(value: bytes, reason: str) -> None:
    with pytest.raises(RecordRefused) as raised:
        decode(value)
    assert raised.value.message == reason


def test_a_header_stores_no_row() -> None:
    header = b"device,count,level,ok,price,day,event_time"
    for line in (header, b"\xef\xbb\xbf" + header + b"\r\n"):
        with pytest.raises(RecordSkipped):
            decode(line)
    with pytest.raises(RecordRefused, match="Expected `int`"):
        decode(header.replace(b"day", b"date"))
    single = Stream("name", msgspec.defstruct("Name", [("name", str)]), format=Csv())
    assert decoder_of(single, NaiveTimestamps.UTC, pytest.fail).decode(b"name") == ("name",)


def test_a_csv_value_holds_no_list() -> None:
    class Bad(msgspec.Struct):
        values: list[int]
        event_time: datetime

    with pytest.raises(SettingsError, match="Bad has a field that a CSV value cannot hold"):
        Stream("bad", Bad, format=Csv())


@pytest.mark.parametrize("delimiter", ["", ",,", '"', "\n"])
def test_a_delimiter_is_one_character(delimiter: str) -> None:
    with pytest.raises(SettingsError, match="delimiter"):
        Csv(delimiter)
