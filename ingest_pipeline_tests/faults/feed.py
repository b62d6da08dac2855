"""The records of a chaos run: valid ones, poison and tombstones, each with a number.

The number is the record's key, so that Kafka and PostgreSQL can be compared record by record.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Literal

Kind = Literal["row", "dead letter", "tombstone"]
_FIRST_TIME = datetime(2026, 1, 1, tzinfo=UTC)
_EVERY = 100
"""Every POISON-th record is poison, at even intervals, so that every stretch of the topic has the same share."""
_TOMBSTONE_EVERY = 250


@dataclass(frozen=True)
class Shape:
    """The records of one stream. `refused` is a value that violates the table's CHECK constraint."""

    stream: str
    name: str
    number: str
    refused: float
    check: str

    def json(self, record: int, number: object, name: str | None = None) -> bytes:
        timestamp = event_time(record).isoformat(timespec="milliseconds")
        told = name or self.text(record)
        return f'{{"{self.name}": "{told}", "{self.number}": {number}, "timestamp": "{timestamp}"}}'.encode()

    def text(self, record: int) -> str:
        return f"{self.stream}-{record:08d}"


SHAPES = {
    "temperature": Shape(
        "temperature", "device_id", number="temperature", refused=-300.0, check="temperature >= -273.15"
    ),
    "price": Shape("price", "symbol", number="price", refused=-1.0, check="price >= 0"),
}

FLOOD = 1_000_000_000
"""From this number on, every record is poison."""


def add_shapes(count: int) -> None:
    """Have `count` streams: copies of the first two, with the names that shared_streams.py gives them."""
    for number in range(2, count):
        shape = list(SHAPES.values())[number % 2]
        name = f"{shape.stream}_{number // 2 + 1}"
        SHAPES[name] = replace(shape, stream=name)


_Poison = Callable[[Shape, int], bytes]
_POISONS: dict[str, _Poison] = {
    "not JSON": lambda shape, record: b'{"broken-%d' % record,
    "NUL escape": lambda shape, record: shape.json(record, 1, f"\\u0000{record}"),
    "wrong type": lambda shape, record: shape.json(record, f'"{record}"'),
    "no timestamp": lambda shape, record: shape.json(record, 1).partition(b', "timestamp"')[0] + b"}",
    "refused by the table": lambda shape, record: shape.json(record, shape.refused),
    "not UTF-8": lambda shape, record: shape.json(record, 1).replace(b"-", b"\xff", 1),
    "not a time": lambda shape, record: shape.json(record, 1).replace(b"2026-", b"then-", 1),
}


def event_time(record: int) -> datetime:
    return _FIRST_TIME + timedelta(milliseconds=record)


def measured(record: int) -> float:
    return (record % 10_000) / 8


def kind(record: int) -> Kind:
    if record >= FLOOD or record % _EVERY == _EVERY // 2:
        return "dead letter"
    return "tombstone" if record % _TOMBSTONE_EVERY == 1 else "row"


def value(stream: str, record: int) -> bytes | None:
    shape = SHAPES[stream]
    match kind(record):
        case "row":
            return shape.json(record, measured(record))
        case "dead letter":
            return list(_POISONS.values())[record // _EVERY % len(_POISONS)](shape, record)
        case "tombstone":
            return None


def row(stream: str, record: int) -> tuple[str, float, datetime]:
    """The row of a valid record."""
    return SHAPES[stream].text(record), measured(record), event_time(record)


def digest(stream: str, record: int) -> bytes:
    """The expected contents of a dead letter."""
    return sha256(value(stream, record) or b"").digest()
