"""The streams. To add a stream, write a Struct and a line in STREAMS. Asset, sensor, job, table and group id follow.

A field is a column of the same name. `field(name=...)` gives a different JSON key. Types: str, int, float, bool,
datetime, date, Decimal, UUID, dict or list (jsonb), bytes (base64 in JSON), a Struct of these (columns
`parent_child`), and `| None` for a nullable column. docs/streams.md has the rest.
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
