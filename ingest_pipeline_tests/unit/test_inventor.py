"""Events that are made up for a declared stream: the decoder takes each, and refuses each that is broken on purpose."""

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest
from msgspec import Meta, Struct, field

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.errors import RecordRefused
from ingest_pipeline.core.nesting import AsJson
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.demo.devices import Event
from ingest_pipeline.demo.inventor import WAYS, Inventor, why_not
from ingest_pipeline.demo.simulate import Plan
from ingest_pipeline_tests.declared import declare

START_US = 1_767_225_600_123_456


class Place(Struct):
    city: str
    floor: int | None = None


class Everything(Struct):
    """All that a stream may declare."""

    device: Annotated[str, Meta(min_length=12, max_length=14)]
    percent: Annotated[float, Meta(ge=0, le=100)]
    cold: Annotated[int, Meta(lt=-10)]
    many: Annotated[int, Meta(ge=1000)]
    on: bool
    event_time: datetime = field(name="timestamp")
    day: date
    amount: Decimal
    number: UUID
    labels: dict[str, float]
    path: list[int]
    raw: bytes
    place: Place
    shelf: Annotated[Place, AsJson]
    anything: dict | None
    readings: list
    note: str | None = None


class Picky(Struct):
    code: Annotated[str, Meta(pattern="^[0-9]{6}$")]
    event_time: datetime


EVERYTHING = Stream("everything", Everything, topic="all.of.it")


def events(count: int, **options: int) -> list[Event]:
    inventor = Inventor(EVERYTHING, **options)
    return [inventor.event(START_US) for _ in range(count)]


def test_the_decoder_takes_all_that_are_not_broken_and_refuses_the_rest() -> None:
    decode, refused = JsonDecoder(EVERYTHING).decode, set[str | None]()
    for event in events(1000, broken_every=10):
        try:
            decode(event.value or b"")
            assert event.broken is None
        except RecordRefused:
            refused.add(event.broken)
    assert refused == set(WAYS)


def test_times_are_those_of_the_events_and_differ() -> None:
    decoded = [msgspec.json.decode(event.value or b"", type=Everything) for event in events(50, broken_every=0)]
    times = [event.event_time for event in decoded]
    assert times[0] == datetime.fromisoformat("2026-01-01T00:00:00.123456+00:00")
    assert times == sorted(set(times))
    assert {len(event.device) for event in decoded} <= {12, 13, 14}


def test_a_seed_is_a_seed_and_a_tombstone_has_no_value() -> None:
    assert events(100, seed=1) == events(100, seed=1) != events(100, seed=2)
    assert [event.value for event in events(100, broken_every=0, tombstone_every=10)].count(None) == 10


def test_faults_that_did_not_strike_are_reported() -> None:
    assert why_not(EVERYTHING) is None
    assert "matching regex" in (why_not(Stream("picky", Picky)) or "")


def test_a_plan_may_name_the_topic_of_a_declared_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, [EVERYTHING])
    plan: Any = Plan(topics=("temperature", "all.of.it"))
    assert plan.topics == ("temperature", "all.of.it")
