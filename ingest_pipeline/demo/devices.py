"""What simulated devices and exchanges say, and in which ways a broken one among them goes wrong.

The n-th event of a topic depends on the seed, the topic and n alone, but for its time, which the caller gives.
"""

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Event:
    """One record to send. `value` is None for a tombstone; `broken` names the way in which it is no event."""

    key: bytes
    value: bytes | None
    broken: str | None = None


@dataclass(frozen=True)
class Shape:
    """The JSON keys of a topic's event, and how its time zone is written."""

    source: str
    number: str
    zone: str

    def event(self, source: str, number: object, time: str) -> dict[str, object]:
        return {self.source: source, self.number: number, "timestamp": time}


SHAPES = {
    "temperature": Shape("device_id", "temperature", "+00:00"),
    "price": Shape("symbol", "price", "Z"),
}
"""The topics that have devices of their own."""

Break = Callable[[Shape, str, float, str], bytes]


def _text(event: dict[str, object]) -> bytes:
    return json.dumps(event).encode()


def _without(shape: Shape, source: str, time: str) -> bytes:
    return _text({shape.source: source, "timestamp": time})


BROKEN: dict[str, Break] = {
    "not JSON": lambda shape, source, number, time: f"{source}={number} at {time}".encode(),
    "cut off": lambda shape, source, number, time: _text(shape.event(source, number, time))[:-20],
    "not UTF-8": lambda shape, source, number, time: _text(shape.event(source, number, time)).replace(
        source.encode(), b"\xff\xfe" + source.encode()
    ),
    "wrong type": lambda shape, source, number, time: _text(shape.event(source, "high", time)),
    "missing field": lambda shape, source, number, time: _without(shape, source, time),
    "bad timestamp": lambda shape, source, number, time: _text(shape.event(source, number, "yesterday")),
    "no such date": lambda shape, source, number, time: _text(
        shape.event(source, number, "2026-02-30T12:00:00" + shape.zone)
    ),
    "NaN": lambda shape, source, number, time: _text(shape.event(source, math.nan, time)),
    "NUL": lambda shape, source, number, time: _text(shape.event(source + "\0", number, time)),
}
"""Way of being broken → the bytes. Every one of them must become a dead letter."""


def source_names(topic: str, devices: int, symbols: int) -> list[str]:
    """``dev-0000`` … for temperature; three letters each for price, different ones, at most 17,576."""
    if topic == "temperature":
        return [f"dev-{number:04d}" for number in range(devices)]
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return [letters[n % 26] + letters[(n // 26 + 7 * n + 1) % 26] + letters[n // 676 % 26] for n in range(symbols)]


class Fleet:
    """All sources of one topic.

    In every `broken_every` events one is broken, at a place of its own in each such block, in ways that take
    turns; 0 is none. `tombstone_every` likewise: a record without a value, which is nobody's mistake.
    """

    def __init__(
        self,
        topic: str,
        *,
        devices: int = 100,
        symbols: int = 20,
        broken_every: int = 1000,
        tombstone_every: int = 0,
        seed: int = 0,
    ) -> None:
        self.topic = topic
        self._shape = SHAPES[topic]
        self._sources = source_names(topic, devices, symbols)
        self._random = random.Random(f"{seed}/{topic}")
        self._levels = [self._first_level() for _ in self._sources]
        self._broken = one_in(broken_every, random.Random(f"{seed}/{topic}/broken"))
        self._tombstones = one_in(tombstone_every, random.Random(f"{seed}/{topic}/tombstones"))
        self._ways = _turns(list(BROKEN), random.Random(f"{seed}/{topic}/ways"))
        self._last_us = 0

    def event(self, time_us: int) -> Event:
        """The next event, of `time_us` (microseconds since 1970) or one microsecond after the one before:
        every event of a topic has a time of its own, by which it can be told from all others."""
        self._last_us = max(time_us, self._last_us + 1)
        at = self._random.randrange(len(self._sources))
        source, number = self._sources[at], self._reading(at, self._last_us / 1e6)
        key = source.encode()
        # All three sequences advance with every event, so that one setting does not shift another's places.
        broken, tombstone = next(self._broken), next(self._tombstones)
        if broken:
            way = next(self._ways)
            return Event(key, BROKEN[way](self._shape, source, number, self._time()), way)
        if tombstone:
            return Event(key, None)
        shape = self._shape
        text = f'{{"{shape.source}": "{source}", "{shape.number}": {number}, "timestamp": "{self._time()}"}}'
        return Event(key, text.encode())

    def _time(self) -> str:
        time = _EPOCH + timedelta(microseconds=self._last_us)
        return time.isoformat(timespec="microseconds").removesuffix("+00:00") + self._shape.zone

    def _first_level(self) -> float:
        return self._random.uniform(12, 28) if self.topic == "temperature" else self._random.uniform(5, 400)

    def _reading(self, at: int, seconds: float) -> float:
        """A day's wave around a device's own level; a random walk of a price."""
        noise = self._random.gauss(0, 1)
        if self.topic == "temperature":
            wave = 4 * math.sin(2 * math.pi * (seconds % _DAY_SECONDS) / _DAY_SECONDS)
            return round(self._levels[at] + wave + 0.2 * noise, 2)
        self._levels[at] = max(0.05, self._levels[at] * (1 + 0.0005 * noise))
        return round(self._levels[at], 2)


def one_in(count: int, draw: random.Random) -> Iterator[bool]:
    """True once in every block of `count`, at a random place; never when count is 0."""
    while count == 0:
        yield False
    while True:
        place = draw.randrange(count)
        yield from (at == place for at in range(count))


def _turns(ways: Sequence[str], draw: random.Random) -> Iterator[str]:
    """Each way once, in a random order, then again in another."""
    while True:
        yield from draw.sample(ways, len(ways))
