"""The events of simulated devices and exchanges, broken events included.

Seed, topic and n determine the n-th event of a topic, except for its time. The caller gives the time.
"""

import math
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from ..core.timestamps import EPOCH

_DAY_SECONDS = 86_400.0
_NUMBER = rb'": -?[\d.]+'


class Event(NamedTuple):
    """A record to send. `value` is None for a tombstone. `broken` names the way of being broken, from BROKEN."""

    key: bytes
    value: bytes | None
    broken: str | None = None


class Shape(NamedTuple):
    """The JSON keys of a topic's event, and how its time zone is written."""

    source: str
    number: str
    zone: str


SHAPES = {"temperature": Shape("device_id", "temperature", "+00:00"), "price": Shape("symbol", "price", "Z")}
"""The topics with simulated devices."""

BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "not JSON": lambda event: b"no " + event,
    "cut off": lambda event: event[: len(event) // 2],
    "not UTF-8": lambda event: event.replace(b'": "', b'": "\xff\xfe', 1),
    "wrong type": lambda event: re.sub(_NUMBER, b'": "high"', event, count=1),
    "missing field": lambda event: re.sub(rb'"\w+' + _NUMBER + b", ", b"", event, count=1),
    "bad timestamp": lambda event: re.sub(rb'"timestamp": "[^"]*', b'"timestamp": "yesterday', event),
    "no such date": lambda event: re.sub(rb'"timestamp": "[^T]*', b'"timestamp": "2026-02-30', event),
    "NaN": lambda event: re.sub(_NUMBER, b'": NaN', event, count=1),
    "NUL": lambda event: event.replace(b'", ', rb'\u0000", ', 1),
}
"""Way of being broken → the change to a good event. Every changed event must become a dead letter."""


def source_names(topic: str, devices: int, symbols: int) -> list[str]:
    """``dev-0000`` … for temperature. For price different names of three letters, at most 17,576."""
    if topic == "temperature":
        return [f"dev-{number:04d}" for number in range(devices)]
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return [letters[n % 26] + letters[(n // 26 + 7 * n + 1) % 26] + letters[n // 676 % 26] for n in range(symbols)]


class Fleet(ABC):
    """All sources of one topic.

    Args:
        ways: of being broken, used in turns.
        broken_every: block size. Every block has a broken event at a random place. 0: no broken events.
        tombstone_every: block size for records without a value. Tombstones are no mistake.
    """

    def __init__(
        self, topic: str, ways: Sequence[str], *, broken_every: int = 1000, tombstone_every: int = 0, seed: int = 0
    ) -> None:
        self.topic = topic
        self._random = random.Random(f"{seed}/{topic}")
        # Each sequence has its own random numbers, so that one setting does not shift another's places.
        self._broken = _one_in(broken_every, random.Random(f"{seed}/{topic}/broken"))
        self._tombstones = _one_in(tombstone_every, random.Random(f"{seed}/{topic}/tombstones"))
        self._ways = _turns(ways, random.Random(f"{seed}/{topic}/ways"))
        self._last_us = 0

    def event(self, time_us: int) -> Event:
        """The next event, at `time_us` (microseconds since 1970) or a microsecond after the last event.

        No two events of a topic have the same time.
        """
        self._last_us = max(time_us, self._last_us + 1)
        key, value = self._good(EPOCH + timedelta(microseconds=self._last_us))
        is_broken, is_tombstone = next(self._broken), next(self._tombstones)
        if is_broken:
            way = next(self._ways)
            return Event(key, BROKEN[way](value), way)
        return Event(key, None if is_tombstone else value)

    @abstractmethod
    def _good(self, time: datetime) -> tuple[bytes, bytes]:
        """(key, value) of a good event."""


class Devices(Fleet):
    """The sources of a topic in SHAPES."""

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
        super().__init__(topic, list(BROKEN), broken_every=broken_every, tombstone_every=tombstone_every, seed=seed)
        self._shape = SHAPES[topic]
        self._sources = source_names(topic, devices, symbols)
        low, high = (12, 28) if topic == "temperature" else (5, 400)
        self._levels = [self._random.uniform(low, high) for _ in self._sources]

    def _good(self, time: datetime) -> tuple[bytes, bytes]:
        index = self._random.randrange(len(self._sources))
        source, shape = self._sources[index], self._shape
        timestamp = time.isoformat(timespec="microseconds").removesuffix("+00:00") + shape.zone
        number = self._number(index, time.timestamp())
        text = f'{{"{shape.source}": "{source}", "{shape.number}": {number}, "timestamp": "{timestamp}"}}'
        return source.encode(), text.encode()

    def _number(self, index: int, seconds: float) -> float:
        """A day's wave around a device's own level, or a random walk of a price."""
        noise = self._random.gauss(0, 1)
        if self.topic == "temperature":
            wave = 4 * math.sin(2 * math.pi * (seconds % _DAY_SECONDS) / _DAY_SECONDS)
            return round(self._levels[index] + wave + 0.2 * noise, 2)
        self._levels[index] = max(0.05, self._levels[index] * (1 + 0.0005 * noise))
        return round(self._levels[index], 2)


def _one_in(count: int, draw: random.Random) -> Iterator[bool]:
    """True once in every block of `count`, at a random place. Never when count is 0."""
    while count == 0:
        yield False
    while True:
        place = draw.randrange(count)
        yield from (index == place for index in range(count))


def _turns(ways: Sequence[str], draw: random.Random) -> Iterator[str]:
    """Each way once, in a random order, then again in another."""
    while True:
        yield from draw.sample(ways, len(ways))
