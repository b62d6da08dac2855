"""Nested Structs as columns `parent_child`, or as one jsonb column with AsJson."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.errors import RecordRefused, SettingsError
from ingest_pipeline.core.fields import AsJson
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.core.time_forms import EPOCH_HINT
from ingest_pipeline_tests.samples import STEADY, plain

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Fix(msgspec.Struct):
    taken: datetime = msgspec.field(name="takenAt")
    metres: int | None = None


class Site(msgspec.Struct):
    city: str
    fix: Fix
    fee: Decimal | None = None


class Leg(msgspec.Struct):
    name: str = msgspec.field(name="legName")
    grade: float = 0.0


class Walk(msgspec.Struct):
    device: str
    site: Site = msgspec.field(name="place")
    event_time: datetime
    former: Site | None = None
    best: Annotated[Leg, AsJson] | None = None
    legs: list[Leg] = msgspec.field(default_factory=list)


WALK = Stream("walk", Walk)
COLUMNS = [
    ("device", "text", False),
    ("site_city", "text", False),
    ("site_fix_taken", "timestamp with time zone", False),
    ("site_fix_metres", "bigint", True),
    ("site_fee", "numeric", True),
    ("event_time", "timestamp with time zone", False),
    ("former_city", "text", True),
    ("former_fix_taken", "timestamp with time zone", True),
    ("former_fix_metres", "bigint", True),
    ("former_fee", "numeric", True),
    ("best", "jsonb", True),
    ("legs", "jsonb", False),
]


def site(**changes: Any) -> dict[str, Any]:
    return {"city": "Rome", "fix": {"takenAt": "2026-01-01T12:00:00Z", "metres": 21}, **changes}


def walk(**changes: Any) -> bytes:
    return json.dumps({"device": "a", "place": site(), "event_time": "2026-01-01T12:00:00Z", **changes}).encode()


def row(value: bytes, stream: Stream = WALK) -> dict[str, Any]:
    return dict(zip((item.name for item in stream.fields), JsonDecoder(stream).decode(value), strict=True))


def refusal(value: bytes, stream: Stream = WALK, naive: str = "utc") -> tuple[str, str]:
    with pytest.raises(RecordRefused) as caught:
        JsonDecoder(stream, naive).decode(value)
    return caught.value.stage, caught.value.message


def test_the_columns_are_the_leaves() -> None:
    assert [(item.name, item.pg_type, item.nullable) for item in WALK.fields] == COLUMNS


def test_all_columns_of_an_absent_struct_are_null() -> None:
    for value in (walk(), walk(former=None)):
        assert row(value) == {
            "device": "a", "site_city": "Rome", "site_fix_taken": NOON, "site_fix_metres": 21, "site_fee": None,
            "event_time": NOON, "former_city": None, "former_fix_taken": None, "former_fix_metres": None,
            "former_fee": None, "best": None, "legs": [],
        }  # fmt: skip


def test_a_struct_as_json_keeps_its_json_names_and_loses_undeclared_keys() -> None:
    columns = row(walk(best={"legName": "é", "grade": 1, "other": 2}, legs=[{"legName": "x"}]))
    assert columns["best"] == {"legName": "é", "grade": 1.0}
    assert columns["legs"] == [{"legName": "x", "grade": 0.0}]


@pytest.mark.parametrize("text", ["2026-01-01 12:00", "2026-01-01T14:00:00+0200", "20260101T120000Z"])
def test_a_nested_struct_accepts_every_iso_form(text: str) -> None:
    columns = row(walk(place=site(fix={"takenAt": text}), former=site(fix={"takenAt": text}), event_time=text))
    assert columns["site_fix_taken"] == columns["former_fix_taken"] == columns["event_time"] == NOON
    assert columns["site_fix_metres"] is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"place": None}, ("decode", "Expected `object`, got `null` - at `$.place`")),
        ({"place": {}}, ("decode", "Object missing required field `city` - at `$.place`")),
        ({"former": 5}, ("decode", "Expected `object | null`, got `int` - at `$.former`")),
        (
            {"place": site(fix={"takenAt": 5})},
            ("decode", "Expected `datetime`, got `int` - at `$.place.fix.takenAt`" + EPOCH_HINT),
        ),
        (
            {"place": site(fix={"takenAt": "soon"})},
            ("timestamp", "not an ISO 8601 timestamp - at `$.place.fix.takenAt`"),
        ),
        (
            {"former": site(fix={"takenAt": "0001-01-01T00:00:00+14:00"})},
            ("value", "timestamp outside years 1 to 9999 - at `$.former.fix.takenAt`"),
        ),
        (
            {"place": site(fix={"takenAt": "2026-01-01T00:00:00Z", "metres": 2**63})},
            ("decode", "Expected `int` <= 9223372036854775807 - at `$.place.fix.metres`"),
        ),
        ({"former": site(fee="NaN")}, ("value", "not a finite number - at `$.former.fee`")),
        (
            {"place": site(city="a\0b")},
            ("value", "NUL character, which PostgreSQL cannot store - at `$.place.city`"),
        ),
        (
            {"best": {"legName": "a\0b"}},
            ("value", "NUL character, which PostgreSQL cannot store - at `$.best`"),
        ),
        (
            {"legs": [{"legName": "a\0b"}]},
            ("value", "NUL character, which PostgreSQL cannot store - at `$.legs`"),
        ),
    ],
)
def test_a_bad_nested_value_is_refused_with_its_path(changes: dict[str, Any], expected: tuple[str, str]) -> None:
    assert refusal(walk(**changes)) == expected


def test_a_nested_time_without_a_zone_can_be_refused() -> None:
    value = walk(former=site(fix={"takenAt": "2026-01-01T12:00:00"}))
    assert refusal(value, naive="reject") == ("timestamp", "timestamp without a time zone - at `$.former.fix.takenAt`")


class Range(msgspec.Struct):
    start: datetime
    stop: datetime

    def __post_init__(self) -> None:
        if self.stop.timestamp() < self.start.timestamp():
            raise ValueError("backwards")


class Shift(msgspec.Struct):
    event_time: datetime
    planned: Range
    real: Range | None = None


@pytest.mark.parametrize("form", ["2026-01-01T{}:00:00Z", "2026-01-01 {}:00"])
def test_a_nested_check_sees_the_declared_types_in_every_form_of_time(form: str) -> None:
    def shift(**ranges: tuple[str, str]) -> bytes:
        pairs = {name: {"start": form.format(a), "stop": form.format(b)} for name, (a, b) in ranges.items()}
        return json.dumps({"event_time": form.format("12"), **pairs}).encode()

    stream = Stream("shift", Shift)
    assert row(shift(planned=("12", "13")), stream)["real_start"] is None
    assert row(shift(planned=("12", "13"), real=("12", "12")), stream)["real_stop"] == NOON
    for bad in (shift(planned=("13", "12")), shift(planned=("12", "13"), real=("13", "12"))):
        assert refusal(bad, stream)[0] == "decode"


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    far_away: int


class Frozen(msgspec.Struct, frozen=True):
    event: Strict
    event_time: datetime
    near: Strict = Strict(far_away=7)


def test_a_nested_struct_keeps_its_configuration_and_its_default() -> None:
    stream = Stream("frozen", Frozen)
    value = json.dumps({"event": {"farAway": 1}, "event_time": "2026-01-01 12:00"}).encode()
    assert row(value, stream) == {"event_far_away": 1, "event_time": NOON, "near_far_away": 7}
    more = value.replace(b'"farAway"', b'"more": 1, "farAway"')
    assert refusal(more, stream) == ("decode", "Object contains unknown field")


class Loop(msgspec.Struct):
    inner: Loop | None = None


class Empty(msgspec.Struct):
    pass


class Timed(msgspec.Struct):
    at: datetime


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Loop, r"Loop\.inner: Loop contains itself .* Annotated\[Loop, AsJson\]"),
        (Empty, r"Event\.x: Empty has no fields"),
        (Annotated[Timed, AsJson], r"Event\.x: .* holds what jsonb cannot"),
        (list[Timed], r"Event\.x: .* holds what jsonb cannot"),
        (Annotated[str, AsJson], r"Event\.x: AsJson is for a Struct"),
        (Leg | Timed, r"Event\.x: .* has no column type"),
        (msgspec.defstruct("Odd", [("n" * 62, int)]), r"'x_n+' does not fit PostgreSQL's 63 bytes"),
        (msgspec.defstruct("Y", [("y", int)]), r"Event\.x_y and Event\.x\.y would both be column x_y"),
    ],
)
def test_a_field_without_possible_columns_is_refused_by_name(kind: Any, message: str) -> None:
    event = msgspec.defstruct("Event", [("event_time", datetime), ("x_y", int), ("x", kind)])
    with pytest.raises(SettingsError, match=message):
        Stream("readings", event)


def test_a_struct_as_json_may_contain_itself() -> None:
    event = msgspec.defstruct("Event", [("event_time", datetime), ("x", Annotated[Loop, AsJson])])
    value = b'{"event_time": "2026-01-01T00:00:00Z", "x": {"inner": {}}}'
    assert row(value, Stream("readings", event))["x"] == {"inner": {"inner": None}}


@pytest.mark.parametrize("time", ["2026-01-01T12:00:00Z", "2026-01-01 12:00"])
@pytest.mark.parametrize("inside", ["list", "struct"])
def test_depth_inside_a_struct_as_json_refuses_only_its_record(inside: str, time: str) -> None:
    holder = msgspec.defstruct("Holder", [("x", Loop if inside == "struct" else list)])
    event = msgspec.defstruct("Event", [("event_time", datetime), ("x", Annotated[holder, AsJson])])
    decoder = JsonDecoder(Stream("readings", event))
    opening, closing = ('{"inner":', "}") if inside == "struct" else ("[", "]")
    outcomes = set()
    for depth in (10, 500, *range(800, 1010), 9_000, 60_000):
        deep = opening * depth + ("{}" if inside == "struct" else "1") + closing * depth
        value = f'{{"event_time": "{time}", "x": {{"x": {deep}}}}}'.encode()
        try:
            decoder.decode(value)
            outcomes.add("row")
        except RecordRefused as refused:
            assert refused.message.startswith("nested too deeply")
            outcomes.add("letter")
        decoder.decode_many([value])  # raises nothing
    assert outcomes == {"row", "letter"}


def test_the_definition_changes_with_a_nested_struct() -> None:
    def stream(inner: Any) -> str:
        event = msgspec.defstruct("Event", [("event_time", datetime), ("x", inner)])
        return Stream("readings", event).definition()

    inside = [Leg, Leg | None, Annotated[Leg, AsJson], Site]
    assert len({stream(kind) for kind in inside}) == len(inside)


KINDS = st.sampled_from([str, int, float, bool, str | None, dict[str, int]])


def structs(depth: int) -> st.SearchStrategy[Any]:
    """Structs of up to three fields. A field may be a nested Struct, also an optional one."""
    kinds = KINDS if depth == 0 else st.one_of(KINDS, structs(depth - 1), structs(depth - 1).map(lambda s: s | None))
    names = st.sampled_from(["a", "b", "c"])
    return st.dictionaries(names, kinds, min_size=1).map(lambda fields: msgspec.defstruct("Inner", fields.items()))


def walked(kind: Any, value: Any) -> list[Any]:
    """The leaves, by recursion over the plain JSON."""
    inner = next((arg for arg in getattr(kind, "__args__", (kind,)) if hasattr(arg, "__struct_fields__")), None)
    if inner is None:
        return [value]
    fields = msgspec.structs.fields(inner)
    return [leaf for field in fields for leaf in walked(field.type, None if value is None else value[field.name])]


def examples(kind: Any) -> st.SearchStrategy[Any]:
    if hasattr(kind, "__struct_fields__"):
        return st.fixed_dictionaries({field.name: examples(field.type) for field in msgspec.structs.fields(kind)})
    simple: dict[Any, st.SearchStrategy[Any]] = {
        str: st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=3),
        int: st.integers(-(2**63), 2**63 - 1),
        float: st.floats(allow_nan=False, allow_infinity=False),
        bool: st.booleans(),
        dict[str, int]: st.just({"k": 1}),
    }
    if kind in simple:
        return simple[kind]
    return st.one_of(st.none(), *(examples(arg) for arg in kind.__args__ if arg is not type(None)))


@STEADY
@given(structs(3), st.data())
def test_any_tree_gives_its_leaves_alone_and_together(inner: Any, data: st.DataObject) -> None:
    stream = Stream("tree", msgspec.defstruct("Event", [("x", inner), ("event_time", datetime)]))
    sent = data.draw(st.lists(examples(inner), min_size=1, max_size=3))
    values = [json.dumps({"x": x, "event_time": "2026-01-01T12:00:00Z"}).encode() for x in sent]
    decoder, expected = JsonDecoder(stream), [(*walked(inner, x), NOON) for x in sent]
    assert [plain(decoder.decode(value)) for value in values] == expected
    rows, odd = decoder.decode_many(values)
    assert (list(map(plain, rows)), odd) in ((expected, []), ([], list(range(len(values)))))
    lenient: Sequence[bytes] = [value.replace(b"T12:00:00Z", b" 12:00") for value in values]
    assert [plain(decoder.decode(value)) for value in lenient] == expected
    assert len(stream.fields) == len(expected[0])


def test_streams_of_nested_structs_are_decoded_together() -> None:
    stream = Stream("shift", Frozen)
    value = b'{"event": {"farAway": 1}, "event_time": "2026-01-01T12:00:00Z"}'
    assert JsonDecoder(stream).decode_many([value] * 3) == ([(1, NOON, 7)] * 3, [])
