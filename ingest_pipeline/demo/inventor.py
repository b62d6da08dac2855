"""Events of any stream, made up from its Struct: a stream that was just declared has something to show."""

import base64
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import Any
from uuid import UUID

import msgspec
from msgspec import inspect

from ..core.decode import JsonDecoder
from ..core.errors import RecordRefused
from ..core.stream import Stream
from .devices import Event, one_in

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SAMPLES = 100
_LOW, _HIGH = 0, 100
BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "not JSON": lambda event: b"no " + event,
    "cut off": lambda event: event[: len(event) // 2],
}


class Inventor:
    """Sources of one topic, whose fields say whatever their types and bounds allow; all times are that of the event.

    Args:
        broken_every, tombstone_every: as in devices.Fleet.
    """

    def __init__(
        self, stream: Stream, *, sources: int = 20, broken_every: int = 1000, tombstone_every: int = 0, seed: int = 0
    ) -> None:
        self._name, self._sources = stream.name, sources
        self._type = inspect.type_info(stream.event)
        self._random = random.Random(f"{seed}/{stream.topic}")
        self._broken = one_in(broken_every, random.Random(f"{seed}/{stream.topic}/broken"))
        self._tombstones = one_in(tombstone_every, random.Random(f"{seed}/{stream.topic}/tombstones"))
        self._ways = cycle(BROKEN)
        self._last_us = 0

    def event(self, time_us: int) -> Event:
        """The next event, of `time_us` (microseconds since 1970) or one microsecond after the one before."""
        self._last_us = max(time_us, self._last_us + 1)
        source = self._random.randrange(self._sources)
        time = (_EPOCH + timedelta(microseconds=self._last_us)).isoformat()
        value = msgspec.json.encode(self._make("", self._type, source, time))
        key = f"{self._name}-{source:03d}".encode()
        broken, tombstone = next(self._broken), next(self._tombstones)
        if broken:
            way = next(self._ways)
            return Event(key, BROKEN[way](value), way)
        return Event(key, None if tombstone else value)

    def _make(self, name: str, kind: inspect.Type, source: int, time: str) -> Any:
        """What msgspec decodes as this kind; `name` is that of the field."""
        draw = self._random
        match kind:
            case inspect.Metadata():
                return self._make(name, kind.type, source, time)
            case inspect.UnionType():
                return self._make(name, draw.choice(kind.types), source, time)
            case inspect.NoneType():
                return None
            case inspect.StructType():
                return {f.encode_name: self._make(f.name, f.type, source, time) for f in kind.fields}
            case inspect.StrType():
                return f"{name}-{source:03d}".ljust(kind.min_length or 0, "x")[: kind.max_length]
            case inspect.BoolType():
                return draw.random() < 0.5
            case inspect.IntType():
                return draw.randint(*map(round, _bounds(kind)))
            case inspect.FloatType():
                return round(draw.uniform(*_bounds(kind)), 2)
            case inspect.DecimalType():
                return f"{draw.uniform(_LOW, _HIGH):.2f}"
            case inspect.DateTimeType():
                return time
            case inspect.DateType():
                return time[:10]
            case inspect.UUIDType():
                return str(UUID(int=draw.getrandbits(128), version=4))
            case inspect.BytesType():
                return base64.b64encode(draw.randbytes(8)).decode()
            case inspect.ListType():
                return [self._make(name, kind.item_type, source, time) for _ in range(2)]
            case inspect.DictType():
                return {name: self._make(name, kind.value_type, source, time)}
            case _:  # typing.Any
                return draw.randint(_LOW, _HIGH)


def why_not(stream: Stream) -> str | None:
    """Why no event of the stream can be made up: a pattern, or a `__post_init__`, that chance does not meet."""
    inventor, decode = Inventor(stream, broken_every=0), JsonDecoder(stream).decode
    for number in range(_SAMPLES):
        try:
            decode(inventor.event(number).value or b"")
        except RecordRefused as refused:
            return refused.message
    return None


def _bounds(kind: inspect.IntType | inspect.FloatType) -> tuple[float, float]:
    """Both inclusive; an open bound is one away from its number."""
    low = kind.ge if kind.ge is not None else None if kind.gt is None else kind.gt + 1
    high = kind.le if kind.le is not None else None if kind.lt is None else kind.lt - 1
    if low is None:
        low = _LOW if high is None else min(_LOW, high)
    return low, max(_HIGH, low) if high is None else max(low, high)
