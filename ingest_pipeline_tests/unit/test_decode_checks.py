"""Events with checks of their own, and values that are bad only deep inside: one dead letter each."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

import msgspec
import pytest

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.errors import RecordRefused
from ingest_pipeline.core.stream import Stream

CANARY = "c4n4ryq"


class Checked(msgspec.Struct):
    event_time: datetime
    name: str = ""
    seen: int = 0

    def __post_init__(self) -> None:
        self.seen = self.event_time.year
        if self.seen < 2000:
            raise ValueError(f"{self.name} is too old: {self.event_time}")


class Tagged(msgspec.Struct, tag_field="kind", tag="tagged"):
    event_time: datetime


class Deep(msgspec.Struct):
    event_time: datetime
    array: list[Any]


def decode(event: type[msgspec.Struct], value: bytes) -> tuple[Any, ...]:
    return JsonDecoder(Stream("checked", event)).decode(value)


def refusal(event: type[msgspec.Struct], **fields: Any) -> str:
    with pytest.raises(RecordRefused) as caught:
        decode(event, json.dumps(fields).encode())
    assert CANARY not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("time", ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00", "2026-01-01 00:00+0000"])
def test_an_events_own_check_sees_the_declared_types_in_every_form_of_time(time: str) -> None:
    value = json.dumps({"event_time": time, "name": "a"}).encode()
    assert decode(Checked, value) == (datetime(2026, 1, 1, tzinfo=UTC), "a", 2026)


@pytest.mark.parametrize("time", ["1999-01-01T00:00:00Z", "1999-01-01T00:00:00", "1999-01-01 00:00"])
def test_what_an_events_own_check_refuses_is_told_without_its_text(time: str) -> None:
    assert refusal(Checked, event_time=time, name=CANARY) == "refused by the event's own check (ValueError)"


def test_a_tag_of_another_type_is_not_quoted() -> None:
    assert refusal(Tagged, event_time="2026-01-01T00:00:00Z", kind=CANARY) == "Invalid value - at `$.kind`"
    assert refusal(Tagged, event_time="2026-01-01T00:00:00Z", kind=f"' - at {CANARY}") == "Invalid value - at `$.kind`"


class Careless(msgspec.Struct):
    event_time: datetime
    fare: Decimal = Decimal(1)
    rider: str | None = "a"

    def __post_init__(self) -> None:
        if self.fare < 0 or self.rider.strip() != {"a": "a"}[self.rider]:
            raise ValueError


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"fare": "NaN"}, "InvalidOperation"),
        ({"rider": CANARY}, "KeyError"),
        ({"rider": None}, "AttributeError"),
    ],
)
def test_a_check_that_fails_in_another_way_costs_that_record(fields: dict[str, Any], kind: str) -> None:
    found = refusal(Careless, event_time="2026-01-01T00:00:00Z", **fields)
    assert found == f"refused by the event's own check ({kind})"


class Zoned(msgspec.Struct):
    event_time: datetime
    zones: list[Literal["inner", "outer"]] = []
    levels: dict[str, Literal[1, 2]] = {}


@pytest.mark.parametrize("zone", [CANARY, f"'{CANARY}", f"'\"{CANARY}", f"' - at {CANARY}"])
def test_a_word_that_is_none_of_those_allowed_is_not_quoted(zone: str) -> None:
    found = refusal(Zoned, event_time="2026-01-01T00:00:00Z", zones=[zone])
    assert found == "Invalid enum value - at `$.zones[0]`"
    found = refusal(Zoned, event_time="2026-01-01T00:00:00Z", levels={CANARY: 4711})
    assert found == "Invalid enum value - at `$.levels[...]`"


def nested(depth: int, leaf: str) -> bytes:
    return b'{"event_time": "2026-01-01T00:00:00Z", "array": %s%s%s}' % (b"[" * depth, leaf.encode(), b"]" * depth)


@pytest.mark.parametrize("depth", [1, 100, 400, 800, 2_000, 100_000])
def test_depth_is_a_row_or_a_refusal(depth: int) -> None:
    """A backslash makes the decoder look for NUL all the way down."""
    try:
        row = decode(Deep, nested(depth, '"\\n"'))
    except RecordRefused as refused:
        assert refused.message == "nested too deeply"
    else:
        found = row[1]
        for _ in range(depth - 1):
            (found,) = found
        assert found == ["\n"]


def test_a_nul_is_found_however_deep() -> None:
    with pytest.raises(RecordRefused, match="NUL"):
        decode(Deep, nested(500, '{"a": [1, {"b\\u0000": 2}]}'))
