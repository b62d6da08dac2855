"""Generates malformed records with one seeded generator."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

from msgspec import Struct, field

from ingest_pipeline.core.fields import Field
from ingest_pipeline.core.nesting import Nested, Shape
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.faults.raw_producer import RawHeaders
from ingest_pipeline_tests.iso_times import TIMES

MAX_MS = 253_402_300_799_999


class Deep(Struct):
    depth: int
    seen: datetime | None = None


class Inner(Struct):
    word: str
    deep: Deep = field(name="below")
    amount: Decimal | None = None


class Everything(Struct):
    """All types of a field."""

    event_time: datetime = field(name="at")
    word: str
    whole: int
    real: float
    yes: bool
    day: date
    amount: Decimal
    number: UUID
    tree: dict
    levels: dict[str, float]
    path: list[int]
    picture: bytes
    note: str | None = None
    tip: Decimal | None = None
    inner: Inner | None = None


class Sample(Struct):
    """One of the events of a record, or the row of a change event."""

    event_time: datetime = field(name="at")
    word: str
    level: float
    amount: Decimal | None = None


FUZZED = (
    STREAMS[0],
    Stream(
        "everything", Everything, key_column="key", headers_column="headers", extra_column="extra", id_column="row_id"
    ),
    Stream("samples", Sample, many=True),
    Stream("changes", Sample, envelope="debezium"),
)


@dataclass(slots=True)
class Fuzzed:
    """One record.

    Attributes:
        kind: how the record was made.
        healthy: the record must become a row.
        raw_headers: written through the C library.
        timestamp_ms: None for the client's own time.
    """

    kind: str
    value: bytes | None
    key: bytes | None = None
    headers: list[tuple[str, bytes | None]] | None = None
    timestamp_ms: int | None = None
    partition: int = 0
    raw_headers: RawHeaders | None = None

    @property
    def healthy(self) -> bool:
        return self.kind == "healthy"


NUMBERS = [
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e-999", "1e308"),
    *("1e309", "5e-324", "-0", "-0.0", "01", "+1"),
    *(".5", "1.", "0x10", "1_000", "1e", "--1", "9" * 5000, "-" + "9" * 5000, "0." + "1" * 5000, "1" + "0" * 400),
    *(str(2**power + by) for power in (31, 53, 63, 64, 127) for by in (-1, 0, 1)),
    *(str(-(2**63) + by) for by in (-1, 0, 1)),
    *("1.5", "1e0", "100e-2", "1e131072", "1e200000", "1e-16384", "1e-20000", "0.1234567890123456789012345"),
    *("12345678901234567.89", "-1.10", "1e400", "-1e-400", "0e5", "18446744073709551617.5", "1e131071"),
]
TEXTS = [
    *('"\\u0000"', '"a\\u0000b"', '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"'),
    *('"\\x41"', '"\t"', '"\\/"', '"\x7f"'),
    *('"\ufeff"', '"\u202e"', '"\u2028"', '"\\\\N"', '"\\\\."'),
    *('"NULL"', '"\'; drop table x; --"', '"%s%%(a)s"', '"{}"'),
    *('"NaN"', '"sNaN"', '"Infinity"', '"1e200000"', '"1e-20000"', '"-0"'),
    *('"0x1"', '"1,5"', '"\uff11\uff12"', '""', '" "', '"="'),
    *(
        '"12345678-1234-5678-1234-56781234567"',
        '"{12345678-1234-5678-1234-567812345678}"',
        '"12345678123456781234567812345678"',
    ),
    *('"AAH/"', '"AAH"', '"A=H/"', '"AA_-"', '"AA H/"', '"AA=="', '"AB=="'),
]
OTHERS = [
    *("null", "true", "false", "tru", "[]", "{}", "[null]"),
    *('{"a":null}', '{"":""}', '{"a":1,"a":2}', "", "undefined", "//"),
]


DECIMALS = [
    json.dumps(text)
    for text in (
        *("NaN", "sNaN", "-NaN123", "Infinity", "-Infinity", "-0", "1e999999", "1e131071", "1e131072", "1e-16383"),
        *("1e-16384", "9" * 140_000, "0." + "1" * 20_000, "1_0", " 1 ", "+1", "1e1000000000000000000", "\uff11"),
    )
]
ODD: dict[type, list[str]] = {
    str: TEXTS,
    int: NUMBERS,
    float: NUMBERS,
    Decimal: [*DECIMALS, *NUMBERS],
    datetime: [json.dumps(text) for text in TIMES],
    date: [json.dumps(text[:10]) for text in TIMES],
    dict: ['{"a":' + text + "}" for text in (*NUMBERS, *TEXTS)],
    list: [f"[{text}]" for text in (*NUMBERS, *TEXTS)],
}
"""Text that resembles a value of a type without always being one."""


def odd_json(dice: random.Random, kind: type) -> str:
    return dice.choice(ODD[kind]) if kind in ODD and dice.random() < 0.5 else any_json(dice)


def any_json(dice: random.Random) -> str:
    """A value of any type, or often of no type."""
    if dice.random() < 0.02:
        depth = dice.choice((50, 400, 1_000, 2_000, 9_000, 60_000))
        opening, closing = dice.choice((("[", "]"), ('{"a":', "}")))
        return opening * depth + "1" + closing * depth
    if dice.random() < 0.02:
        length = dice.choice((2_000, 9_000, 100_000))
        return json.dumps("x" * length if dice.random() < 0.5 else dice.randbytes(length // 2).hex())
    if dice.random() < 0.25:
        return json.dumps(dice.choice(TIMES))
    return dice.choice(dice.choice((NUMBERS, TEXTS, OTHERS)))


def _word(dice: random.Random) -> str:
    return json.dumps("".join(dice.choice("abcZ°é€😀\t\\\"'\n ,{}") for _ in range(dice.randint(0, 12))))


def _time(dice: random.Random) -> str:
    zone = dice.choice(("Z", "+00:00", "-08:00", "+05:45", "+14:00", "-12:00"))
    day = f"{dice.randint(1, 9998):04}-{dice.randint(1, 12):02}-{dice.randint(2, 27):02}"
    fraction = dice.choice(("", f".{dice.randint(0, 999999):06}", ".5", f".{dice.randint(0, 999999999):09}"))
    return f'"{day}T{dice.randint(0, 23):02}:{dice.randint(0, 59):02}:{dice.randint(0, 59):02}{fraction}{zone}"'


def _numbers(dice: random.Random) -> str:
    pairs = (f'"k{number}":{dice.randint(-(10**17), 10**17)}.{dice.randint(0, 999):03}' for number in range(4))
    return "{" + ",".join(list(pairs)[: dice.randint(0, 4)]) + "}"


GOOD: dict[type, Callable[[random.Random], str]] = {
    str: _word,
    int: lambda dice: str(dice.choice((0, 1, -1, 2**63 - 1, -(2**63), dice.randint(-(2**40), 2**40)))),
    float: lambda dice: dice.choice(
        (repr(dice.uniform(-1e6, 1e6)), repr(10.0 ** dice.randint(-300, 300)), "3", "-0.0")
    ),
    bool: lambda dice: dice.choice(("true", "false")),
    datetime: _time,
    date: lambda dice: f'"{dice.randint(1, 9999):04}-{dice.randint(1, 12):02}-{dice.randint(1, 28):02}"',
    Decimal: lambda dice: f'"{dice.choice(("-", ""))}{dice.randint(0, 10**30)}.{dice.randint(0, 10**9)}"',
    UUID: lambda dice: json.dumps(str(UUID(bytes=dice.randbytes(16)))),
    dict: _numbers,
    list: lambda dice: json.dumps([dice.randint(-9, 9) for _ in range(dice.randint(0, 5))]),
    bytes: lambda dice: dice.choice(('""', '"AAH/"', '"/w=="')),
}


def good(dice: random.Random, shape: Shape) -> dict[str, str]:
    """JSON name → JSON text of a valid value."""
    return {
        item.json_name: "null" if _nullable(item) and dice.random() < 0.3 else _good(dice, item)
        for item in shape.members
        if not _nullable(item) or dice.random() < 0.7
    }


def _nullable(item: Field | Nested) -> bool:
    return item.default is None


def _good(dice: random.Random, item: Field | Nested) -> str:
    if isinstance(item, Nested):
        return as_object(list(good(dice, item.shape).items())).decode()
    return GOOD[item.python_type](dice)


def as_object(fields: list[tuple[str, str]]) -> bytes:
    text = ",".join(f"{json.dumps(name)}:{value}" for name, value in fields)
    return ("{" + text + "}").encode("utf-8", "surrogatepass")
