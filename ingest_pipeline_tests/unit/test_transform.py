"""A stream's own function between decoding and storing."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Annotated, Any

import msgspec
import pytest

from ingest_pipeline import Epoch, Stream
from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.errors import RecordRefused, RecordSkipped

AT = datetime(1970, 1, 1, tzinfo=UTC)


class Reading(msgspec.Struct):
    level: Annotated[float, msgspec.Meta(le=100)]
    unit: str = "C"
    tags: dict[str, Any] = {}
    at: Annotated[datetime, Epoch("s")] | None = None


def value(**fields: Any) -> bytes:
    return msgspec.json.encode(fields)


def decoder(transform: Callable[[Any], Any]) -> JsonDecoder:
    return JsonDecoder(Stream("reading", Reading, transform=transform))


def to_celsius(event: Reading) -> Reading | None:
    if event.unit == "?":
        return None
    if event.unit == "F":
        return Reading((event.level - 32) / 1.8, "C", event.tags | {"from": "F"}, event.at)
    return event


@pytest.mark.parametrize(
    ("fields", "row"),
    [
        ({"level": 212.0, "unit": "F"}, None),
        ({"level": 50.0, "unit": "F", "at": 0}, (10.0, "C", {"from": "F"}, AT)),
        ({"level": 1, "at": 0}, (1.0, "C", {}, AT)),
    ],
)
def test_the_row_is_made_of_the_functions_result(fields: dict[str, Any], row: tuple[Any, ...] | None) -> None:
    if row is None:  # the value itself is beyond the constraint, before the function is called
        with pytest.raises(RecordRefused, match=r"Expected `float` <= 100"):
            decoder(to_celsius).decode(value(**fields))
        return
    assert decoder(to_celsius).decode(value(**fields)) == row


def test_a_date_of_another_form_is_a_date() -> None:
    event = msgspec.defstruct(
        "Event", [("day", Annotated[date, Epoch("d")]), ("end", Annotated[date, Epoch("d")] | None)]
    )
    rows = JsonDecoder(Stream("event", event, transform=lambda event: event))
    assert rows.decode(b'{"day":20484,"end":null}') == (date(2026, 1, 31), None)


def test_none_stores_no_row() -> None:
    with pytest.raises(RecordSkipped):
        decoder(to_celsius).decode(value(level=1, unit="?"))


def test_the_function_gets_the_declared_types() -> None:
    seen: list[Any] = []

    def look(event: Reading) -> Reading:
        seen.append((type(event.level), event.tags, event.at))
        return event

    decoder(look).decode(value(level=1, tags={"a": [1]}, at=0))
    assert seen == [(float, {"a": [1]}, AT)]


def fails(event: Reading) -> Reading:
    raise ValueError(f"secret {event.level}")


@pytest.mark.parametrize(
    ("transform", "reason"),
    [
        (fails, "refused by the stream's transform (ValueError)"),
        (lambda event: Reading(101.0), "Expected `float` <= 100.0 - at `$.level`, after the transform"),
        (lambda event: Reading("x"), "Expected `float`, got `str` - at `$.level`, after the transform"),
        (lambda event: 5, "Expected `object`, got `int`, after the transform"),
        (lambda event: [event, event], "the transform returned a list, which needs many=True"),
        (lambda event: Reading(1.0, "a\0"), "NUL character, which PostgreSQL cannot store - at `$.unit`"),
    ],
)
def test_a_failure_and_a_wrong_result_refuse_the_record(transform: Any, reason: str) -> None:
    with pytest.raises(RecordRefused) as raised:
        decoder(transform).decode(value(level=1))
    assert raised.value.message == reason
    assert not isinstance(raised.value, RecordSkipped)


class Fix(msgspec.Struct):
    taken_at: datetime


class Place(msgspec.Struct):
    number: int
    fix: Fix


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda event: setattr(event, "number", 1.5), "Expected `int`, got `float` - at `$.number`"),
        (lambda event: setattr(event, "fix", None), "Expected `object`, got `null` - at `$.fix`"),
        (
            lambda event: setattr(event.fix, "taken_at", event.fix.taken_at.replace(tzinfo=None)),
            "Expected `datetime` with a timezone component - at `$.fix.taken_at`",
        ),
    ],
)
def test_an_event_that_the_function_changes_is_checked_as_well(change: Any, reason: str) -> None:
    def changed(event: Place) -> Place:
        change(event)
        return event

    rows = JsonDecoder(Stream("place", Place, transform=changed))
    good = value(number=1, fix={"taken_at": AT.isoformat()})
    assert rows.decode_many([good]) == ([], [0])
    with pytest.raises(RecordRefused) as raised:
        rows.decode(good)
    assert raised.value.message == f"{reason}, after the transform"


class Plain(msgspec.Struct):
    level: float


def test_a_batch_gives_the_same_rows_as_single_records() -> None:
    def doubled(event: Plain) -> Plain | None:
        return None if event.level < 0 else Plain(event.level * 2)

    rows = JsonDecoder(Stream("plain", Plain, transform=doubled))
    assert rows.decode_many([value(level=1), value(level=-1), value(level="x"), value(level=3)]) == (
        [(2.0,), (6.0,)],
        [1, 2],
    )


def test_another_function_is_another_definition() -> None:
    streams = [
        Stream("plain", Plain),
        Stream("plain", Plain, transform=lambda event: event),
        Stream("plain", Plain, transform=lambda event: Plain(event.level + 1)),
    ]
    assert len({stream.definition() for stream in streams}) == 3
    assert (
        Stream("plain", Plain, transform=to_celsius).definition()
        == Stream("plain", Plain, transform=to_celsius).definition()
    )
