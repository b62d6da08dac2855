"""Events with their own checks, bad values deep inside, and reasons that name a value's format."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
import pytest

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.errors import RecordRefused
from ingest_pipeline.core.fields import AsJson
from ingest_pipeline.core.stream import Stream
from ingest_pipeline_tests.samples import plain

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
def test_the_reason_of_an_events_own_check_omits_its_text(time: str) -> None:
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
def test_any_exception_of_a_check_refuses_only_its_record(fields: dict[str, Any], kind: str) -> None:
    reason = refusal(Careless, event_time="2026-01-01T00:00:00Z", **fields)
    assert reason == f"refused by the event's own check ({kind})"


RAISED = {
    error.__name__: error
    for error in (ValueError, TypeError, KeyError, AssertionError, RuntimeError, RecursionError, StopIteration, OSError)
}


class Picky(msgspec.Struct):
    raises: str = ""

    def __post_init__(self) -> None:
        if self.raises == "ValidationError":
            raise msgspec.ValidationError(CANARY)
        if self.raises:
            raise RAISED[self.raises](CANARY)


class AroundPicky(Picky, kw_only=True):
    event_time: datetime
    columns: Picky = msgspec.field(default_factory=Picky)
    document: Annotated[Picky, AsJson] = msgspec.field(default_factory=Picky)
    listed: list[Picky] = []


@pytest.mark.parametrize("kind", [*RAISED, "ValidationError"])
@pytest.mark.parametrize("time", ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00"])
def test_no_reason_holds_the_words_of_a_check(kind: str, time: str) -> None:
    told = f"refused by the event's own check ({kind})"
    picky = {"raises": kind}
    for fields in (picky, {"columns": picky}, {"document": picky}, {"listed": [{}, picky]}):
        assert refusal(AroundPicky, event_time=time, **fields) == told


class Silent(msgspec.Struct):
    event_time: datetime
    number: int

    def __post_init__(self) -> None:
        if self.number == 3:
            raise StopIteration
        if self.number == 5:
            raise MemoryError


def numbered(number: int) -> bytes:
    return b'{"event_time": "2026-01-01T00:00:00Z", "number": %d}' % number


@pytest.mark.parametrize("stops", [[2, 3], [0, 3], [3, 4], [0, 1, 2, 3, 4], [3]])
def test_a_check_that_raises_stop_iteration_refuses_only_its_record(stops: list[int]) -> None:
    rows, odd = JsonDecoder(Stream("silent", Silent)).decode_many([numbered(3 if i in stops else i) for i in range(5)])
    assert ([row[1] for row in rows], odd) == ([i for i in range(5) if i not in stops], stops)
    assert refusal(Silent, **json.loads(numbered(3))) == "refused by the event's own check (StopIteration)"


def test_a_memory_error_refuses_no_record() -> None:
    decoder = JsonDecoder(Stream("silent", Silent))
    with pytest.raises(MemoryError):
        decoder.decode(numbered(5))
    with pytest.raises(MemoryError):
        decoder.decode_many([numbered(1), numbered(5)])


class Zoned(msgspec.Struct):
    event_time: datetime
    zones: list[Literal["inner", "outer"]] = []
    levels: dict[str, Literal[1, 2]] = {}


@pytest.mark.parametrize("zone", [CANARY, f"'{CANARY}", f"'\"{CANARY}", f"' - at {CANARY}"])
def test_a_word_outside_a_literal_is_not_quoted(zone: str) -> None:
    reason = refusal(Zoned, event_time="2026-01-01T00:00:00Z", zones=[zone])
    assert reason == "Invalid enum value - at `$.zones[0]`"
    reason = refusal(Zoned, event_time="2026-01-01T00:00:00Z", levels={CANARY: 4711})
    assert reason == "Invalid enum value - at `$.levels[...]`"


def nested(depth: int, leaf: str) -> bytes:
    return b'{"event_time": "2026-01-01T00:00:00Z", "array": %s%s%s}' % (b"[" * depth, leaf.encode(), b"]" * depth)


@pytest.mark.parametrize("depth", [1, 100, 400, 800, 2_000, 100_000])
def test_a_deep_value_gives_a_row_or_a_refusal(depth: int) -> None:
    """A backslash makes the decoder search for NUL at every depth."""
    try:
        row = plain(decode(Deep, nested(depth, '"\\n"')))
    except RecordRefused as refused:
        assert refused.message == "nested too deeply"
    else:
        value = row[1]
        for _ in range(depth - 1):
            (value,) = value
        assert value == ["\n"]


def test_a_nul_is_refused_at_any_depth() -> None:
    with pytest.raises(RecordRefused, match="NUL"):
        decode(Deep, nested(500, '{"a": [1, {"b\\u0000": 2}]}'))


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
    ("value", "binary"),
    [(b"\x08\x96s3cr3t", True), (b"\x12\x03a,b", True), (b"\n\x05s3cr3t", True), (b"\ntext", False)],
)
def test_binary_bytes_without_an_id_are_named(value: bytes, binary: bool) -> None:
    hint = ": the value is binary. format=Avro() or Protobuf() reads it behind a schema registry's id"
    assert reason(value).endswith(hint) == binary
    assert "s3cr3t" not in reason(value)


@pytest.mark.parametrize("value", [b"", b"text", b"17", b'"a, b"', b"{a, b}", b"\xff,\xff", b'{"x": 1, "y"}', b"null"])
def test_other_values_keep_their_reason(value: bytes) -> None:
    assert "CSV" not in reason(value)
    assert "format=" not in reason(value)
