"""The streams. A third one is a Struct and a line in STREAMS; asset, sensor, job, table and group id follow from it.

A field's name is its column; `field(name=...)` gives the JSON key where it differs. Types: str, int, float, bool,
datetime, date, Decimal, UUID, dict or list (jsonb), bytes (base64 in JSON), and `| None` for a nullable column.
What else a Stream may say, such as owners, tags and max_silence: docs/streams.md.
"""

from datetime import datetime

from msgspec import Struct, field

from .core.stream import Stream


class Temperature(Struct):
    """One reading of one device's thermometer, in degrees Celsius."""

    device_id: str
    temperature: float
    event_time: datetime = field(name="timestamp")


class Price(Struct):
    """One traded price of one symbol."""

    symbol: str
    price: float
    event_time: datetime = field(name="timestamp")


STREAMS = [
    Stream("temperature", Temperature),
    Stream("price", Price),
]
