"""One grammar for timestamps, as docs/streams.md writes it down: in records on both paths, in settings, in commands."""

import itertools
import json
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from ingest_pipeline.cli import main
from ingest_pipeline.cli.recovery import StartOffset
from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.errors import RecordRefused, SettingsError
from ingest_pipeline.core.rows import DEFAULT_RULES, decode_one
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.operations.replays import ReplayRequest
from ingest_pipeline.settings.values import start_from
from ingest_pipeline_tests.iso_times import microseconds

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PAGE = (Path(__file__).parents[2] / "docs" / "streams.md").read_text()
SECTION = PAGE.split("## Timestamps")[1].split("\n## ")[0]
ROWS = [line.split("|")[1:-1] for line in SECTION.splitlines() if line.startswith("|") and "`" in line]
PARTS = {name.strip(): re.findall(r"`(.*?)`", accepted) for name, accepted, *_ in (r for r in ROWS if len(r) == 3)}
REFUSED = [text for cells in ROWS if len(cells) == 2 for text in re.findall(r"`(.*?)`", cells[0])]


class Stay(msgspec.Struct):
    begun: datetime
    left: datetime | None = None


class Visit(msgspec.Struct):
    event_time: datetime
    stay: Stay | None = None


class Checked(msgspec.Struct):
    event_time: datetime

    def __post_init__(self) -> None:
        assert self.event_time.utcoffset() is not None


VISIT, CHECKED = Stream("visit", Visit), Stream("checked", Checked)
DAY = Stream("day", msgspec.defstruct("Day", [("event_time", datetime), ("day", date)]))
DECODERS = {stream.name: JsonDecoder(stream) for stream in (VISIT, CHECKED, DAY)}


def accepted() -> list[str]:
    """Every combination of the parts in the table."""
    forms = [zone for zone in PARTS["zone"] if zone != "-"]
    forms += [zone.replace("+", "-") for zone in forms]
    zones = {"", *forms, *(f" {zone}" for zone in forms)}
    texts = []
    for day, separator, time, zone in itertools.product(PARTS["date"], ["T", "t", " "], PARTS["time"], sorted(zones)):
        decimals = ["", *PARTS["decimals"], ".123456", ".1234567", ".99999950", "," + "9" * 20]
        texts += [day + separator + time + more + zone for more in (decimals if len(time) in (6, 8) else [""])]
    return [*texts, *(day for day in PARTS["date"] if not day.isdecimal())]


def instant(text: str) -> datetime:
    since_epoch = microseconds(text)
    assert since_epoch is not None, f"the tests' own reader takes {text} for none"
    return EPOCH + timedelta(microseconds=since_epoch)


def records(text: str) -> list[tuple[Stream, bytes, int]]:
    """The text in every place of an event: (stream, value, index of the column)."""
    outer = {"event_time": "2026-01-01T00:00:00Z"}
    return [
        (VISIT, json.dumps({"event_time": text}).encode(), 0),
        (VISIT, json.dumps({**outer, "stay": {"begun": text}}).encode(), 1),
        (VISIT, json.dumps({**outer, "stay": {"begun": outer["event_time"], "left": text}}).encode(), 2),
        (CHECKED, json.dumps({"event_time": text}).encode(), 0),
        (CHECKED, escaped(text), 0),
    ]


def escaped(text: str) -> bytes:
    inside = "".join(f"\\u{ord(letter):04x}" for letter in text)
    return f'{{"event_time": "{inside}"}}'.encode()


def row(stream: Stream, value: bytes) -> tuple[Any, ...]:
    """By way of many at once, and one by one where those leave the value."""
    decoder = DECODERS[stream.name]
    rows, odd = decoder.decode_many([value])
    if rows:
        assert (rows, odd) == ([decoder.decode(value)], [])
        return rows[0]
    return decode_one(value, decoder.decode, DEFAULT_RULES.max_record_bytes)


def test_the_table_has_all_parts() -> None:
    assert list(PARTS) == ["date", "separator", "time", "decimals", "zone"]
    assert len(REFUSED) > 15 and len(accepted()) > 2000


def test_each_combination_of_the_parts_is_its_instant_in_every_place() -> None:
    for text in accepted():
        for stream, value, column in records(text):
            assert row(stream, value)[column] == instant(text), text


def test_settings_and_commands_read_the_same() -> None:
    for text in accepted():
        assert start_from(text) == instant(text), text
        assert main.Instant().convert(text, None, None) == instant(text), text
        assert StartOffset().convert(text, None, None) == instant(text), text


OTHERS = [
    *(
        "2026-01-31T06:00:00Z\n",
        "\uff12\uff10\uff12\uff16-01-31",
        "2026-01-31T06:00:00\u221202:00",
        "+2026-01-31T06:00:00Z",
        "2026-1-31",
    ),
    *("2026-01-31T6:00", "2026-01-31T060000:00", "2026-W05-0", "2026-W54-1", "2026-w05-6", "12026-01-31", "2026-01"),
    *("2026-01-31T06:00:00 UTC", "2026-01-31T06:00:00ZZ", "2026-01-31T06:00:00Z+01:00", "2026-01-31T06:00:00 + 01:00"),
    *("2026-01-31T06:00:00+24:00", "2026-01-31T06:00:00+1", "2026-01-31T", "20260131 ", "T06:00", "infinity", ""),
]


@pytest.mark.parametrize("text", [*REFUSED, *OTHERS])
def test_what_is_none_is_refused_everywhere(text: str) -> None:
    assert microseconds(text) is None
    for stream, value, _ in records(text):
        with pytest.raises(RecordRefused, match="not an ISO 8601 timestamp - at") as refused:
            row(stream, value)
        assert refused.value.stage == "timestamp"
    with pytest.raises(ValueError, match=r"^$"):
        start_from(text)
    with pytest.raises(click.BadParameter):
        main.Instant().convert(text, None, None)
    if not re.fullmatch("[0-9]+", text):  # an offset
        with pytest.raises(click.BadParameter):
            StartOffset().convert(text, None, None)


def test_cut_zone_or_not_the_instant_is_one() -> None:
    last = datetime(2026, 12, 31, 23, 59, 59, 999_999, UTC)
    for zone in ("Z", "z", "+00", "+00:00", "+0000", "-00:00", " Z", ""):
        for nines in ("9999995", "9999999", "9999994", "9" * 30):
            text = f"2026-12-31T23:59:59.{nines}{zone}"
            assert {row(*record[:2])[record[2]] for record in records(text)} == {last}


def test_one_value_of_many_with_nanoseconds_is_cut_and_the_others_stay_together() -> None:
    plain = b'{"event_time": "2026-01-01T00:00:00.123456Z"}'
    values = [plain] * 1000
    values[700] = b'{"event_time": "2026-01-01T00:00:00.1234569Z"}'
    rows, odd = JsonDecoder(CHECKED).decode_many(values)
    assert (len(rows), odd) == (999, [700])
    assert JsonDecoder(CHECKED).decode(values[700]) == rows[0]


def test_a_number_with_many_decimals_is_no_reason_to_look_closer() -> None:
    stream = Stream("price", msgspec.defstruct("Price", [("event_time", datetime), ("price", float)]))
    value = b'{"price":21.12345678901, "event_time": "2026-01-01T00:00:00.123456Z"}'
    assert JsonDecoder(stream).decode_many([value] * 3)[1] == []


@pytest.mark.parametrize("text", ["1969-12-31T23:59:59.999Z", "1969-12-31", "0001-01-01T00:00:00+14:00"])
def test_kafka_is_never_asked_for_a_time_before_1970(text: str) -> None:
    with pytest.raises(ValueError, match=r"^$|before 1970"):
        start_from(text)
    with pytest.raises(click.BadParameter):
        StartOffset().convert(text, None, None)
    if text[0] == "1":
        with pytest.raises(SettingsError, match="before 1970"):
            ReplayRequest(from_time=main.Instant().convert(text, None, None), to_time=datetime.now(UTC))


@pytest.mark.parametrize("text", ["2026-01-31T06:00:00Z", "20260131", "2026-W05-6", "2026-01-31 ", 20260131, None])
def test_a_date_is_a_date_alone(text: Any) -> None:
    for time in ("2026-01-01T00:00:00Z", "2026-01-01"):
        good = json.dumps({"event_time": time, "day": "2026-01-31"}).encode()
        assert row(DAY, good)[1] == date(2026, 1, 31)
        with pytest.raises(RecordRefused, match=r"\$\.day"):
            row(DAY, json.dumps({"event_time": time, "day": text}).encode())
