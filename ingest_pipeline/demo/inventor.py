"""Events of any stream, made up from its Struct, for the demo of a newly declared stream."""

import base64
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import inspect

from ..core.decode import JsonDecoder
from ..core.errors import RecordRefused
from ..core.formats import Json
from ..core.stream import Stream
from .devices import Fleet

_SAMPLES = 100
_SOURCES = 20
_LOW, _HIGH = 0, 100
WAYS = ("not JSON", "cut off")
"""The ways of being broken refused by every Struct."""


class Inventor(Fleet):
    """Sources of a stream's topic. Fields have random values within type and bounds, and the event's time."""

    def __init__(self, stream: Stream, *, broken_every: int = 1000, tombstone_every: int = 0, seed: int = 0) -> None:
        super().__init__(stream.topic, WAYS, broken_every=broken_every, tombstone_every=tombstone_every, seed=seed)
        self._name, self._type = stream.name, inspect.type_info(stream.event)

    def _good(self, time: datetime) -> tuple[bytes, bytes]:
        source = self._random.randrange(_SOURCES)
        value = msgspec.json.encode(self._make("", self._type, source, time.isoformat()))
        return f"{self._name}-{source:03d}".encode(), value

    def _make(self, name: str, kind: inspect.Type, source: int, time: str) -> Any:
        """A value of this kind for the field `name`, before msgspec encodes the event."""
        draw = self._random
        match kind:
            case inspect.Metadata():
                return self._make(name, kind.type, source, time)
            case inspect.UnionType():
                return self._make(name, draw.choice(kind.types), source, time)
            case inspect.NoneType():
                return None
            case inspect.StructType():
                return {field.encode_name: self._make(field.name, field.type, source, time) for field in kind.fields}
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
    """Why no event of the stream can be made up, for example a pattern. None when events can be made up."""
    if stream.format != Json() or stream.envelope:
        return f"the simulator writes plain JSON, and the stream has {stream.envelope or stream.format}"
    inventor, decode = Inventor(stream, broken_every=0), JsonDecoder(stream).decode
    for number in range(_SAMPLES):
        try:
            decode(inventor.event(number).value or b"")
        except RecordRefused as refused:
            return refused.message
    return None


def _bounds(kind: inspect.IntType | inspect.FloatType) -> tuple[float, float]:
    """Both inclusive. An open bound is moved inwards by 1."""
    low = kind.ge if kind.ge is not None else None if kind.gt is None else kind.gt + 1
    high = kind.le if kind.le is not None else None if kind.lt is None else kind.lt - 1
    if low is None:
        low = _LOW if high is None else min(_LOW, high)
    return low, max(_HIGH, low) if high is None else max(low, high)
