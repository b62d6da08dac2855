"""How a field's time is written, where a record does not use ISO 8601."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from .errors import SettingsError
from .timestamps import EPOCH, parse_timestamp

_PER_SECOND: dict[str, int | Fraction] = {
    "d": Fraction(1, 86_400),
    "s": 1,
    "ms": 1_000,
    "us": 1_000_000,
    "ns": 1_000_000_000,
}
_UNITS = {"d": "days", "s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_NUMBER = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?")
EPOCH_HINT = ', which Annotated[datetime, Epoch("ms")] reads as milliseconds since 1970, and Epoch("s") as seconds'


@dataclass(frozen=True)
class Epoch:
    """`Annotated[datetime, Epoch("ms")]` reads a number of units since 1970-01-01 in UTC, or a text with the
    number. A date is the day in UTC.

    Attributes:
        unit: "d", "s", "ms", "us" or "ns". Fractions below a microsecond are cut.
    """

    wire_type: ClassVar[Any] = int | float | str
    unit: Literal["d", "s", "ms", "us", "ns"]

    def __post_init__(self) -> None:
        if self.unit not in _PER_SECOND:
            raise SettingsError(f"Epoch({self.unit!r}): the unit is one of {', '.join(_PER_SECOND)}")

    def read(self, value: object) -> datetime:
        """The time in UTC. Raises ValueError for a time outside the years 1 to 9999, and for another value."""
        if isinstance(value, date):
            return _as_time(value)
        number = Fraction(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value
        if isinstance(number, bool) or not isinstance(number, int | float | Fraction) or number != number:
            raise ValueError(f"not a number of {_UNITS[self.unit]} since 1970")
        per_second = _PER_SECOND[self.unit]
        try:
            if isinstance(number, float):
                return EPOCH + timedelta(seconds=number / per_second)
            return EPOCH + timedelta(microseconds=int(number * 1_000_000 // per_second))
        except OverflowError:
            raise ValueError("timestamp outside years 1 to 9999") from None


@dataclass(frozen=True)
class TimeFormat:
    """`Annotated[datetime, TimeFormat("%d.%m.%Y %H:%M:%S", zone="Europe/Berlin")]` reads a text. A date is its day.

    Attributes:
        pattern: of `datetime.strptime`. "": ISO 8601, as in a field without a TimeFormat.
        zone: an IANA name, for texts without a zone. A time that occurs twice, when a clock goes back, is the earlier
            one. A time that a clock skips is read with the offset before the skip. "": the setting NAIVE_TIMESTAMPS
            decides.
    """

    wire_type: ClassVar[Any] = str
    pattern: str = ""
    zone: str = ""

    def __post_init__(self) -> None:
        if self.zone:
            try:
                ZoneInfo(self.zone)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                raise SettingsError(f"TimeFormat: there is no time zone {self.zone!r}") from None

    def read(self, value: object) -> datetime:
        """The time, naive if neither the value nor `zone` says a zone. Raises ValueError."""
        try:
            time = _as_time(value) if isinstance(value, date) else self._parsed(value)
        except (ValueError, TypeError):
            form = f"of the form {self.pattern}" if self.pattern else "an ISO 8601 timestamp"
            raise ValueError(f"not {form}") from None
        return time.replace(tzinfo=self._zone_info) if time.tzinfo is None and self.zone else time

    def _parsed(self, text: Any) -> datetime:
        return datetime.strptime(text, self.pattern) if self.pattern else parse_timestamp(text)

    @cached_property
    def _zone_info(self) -> ZoneInfo:
        return ZoneInfo(self.zone)


def is_unix_time(text: str) -> bool:
    """Whether the text has as many digits as a present time in seconds, milliseconds, microseconds or nanoseconds."""
    return text.isdigit() and len(text) in (10, 13, 16, 19)


def _as_time(value: date) -> datetime:
    """A time of a format that has times of its own. A day is midnight in UTC."""
    return value if isinstance(value, datetime) else datetime(value.year, value.month, value.day, tzinfo=UTC)


TimeForm = Epoch | TimeFormat
ISO = TimeFormat()
"""The form of a field without an annotation."""
