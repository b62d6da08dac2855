"""Checks of decoded values that every format shares. A reason names a JSON path, never a value."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from .choices import NaiveTimestamps
from .documents import holds_nul
from .errors import RecordRefused, RefusalStage
from .fields import Field, not_numeric

FIRST_YEAR, LAST_YEAR = 1, 9999


class ValueChecks:
    """Checks a row's values against PostgreSQL's limits."""

    def __init__(self, fields: Sequence[Field], naive_timestamps: NaiveTimestamps) -> None:
        self._fields = fields
        self._naive_is_utc = naive_timestamps == NaiveTimestamps.UTC
        self.times = tuple(i for i, item in enumerate(fields) if item.python_type is datetime)
        self._decimals = tuple(i for i, item in enumerate(fields) if item.python_type is Decimal)

    def check(self, values: Sequence[Any], size: int) -> None:
        """Refuse times and decimals that PostgreSQL or Python cannot hold. `size`: bytes of the record's value."""
        for i in self.times:
            time = values[i]
            if time is not None and not FIRST_YEAR < time.year < LAST_YEAR:
                self._check_year(time, self._fields[i])
        for i in self._decimals:
            if values[i] is not None and (why := not_numeric(values[i], size)):
                raise RecordRefused(f"{why} - at `$.{self._fields[i].path}`", stage=RefusalStage.VALUE)

    def check_nul(self, values: Sequence[Any]) -> None:
        for item, value in zip(self._fields, values, strict=True):
            if holds_nul(value):
                raise RecordRefused(
                    f"NUL character, which PostgreSQL cannot store - at `$.{item.path}`", stage=RefusalStage.VALUE
                )

    def zoned(self, time: datetime, item: Field) -> datetime:
        if time.tzinfo is not None:
            return time
        if self._naive_is_utc:
            return time.replace(tzinfo=UTC)
        raise RecordRefused(f"timestamp without a time zone - at `$.{item.path}`", stage=RefusalStage.TIMESTAMP)

    def _check_year(self, time: datetime, item: Field) -> None:
        """Conversion to UTC can move a time of year 1 or 9999 out of the range that Python reads back."""
        try:
            time.astimezone(UTC)
        except OverflowError:
            raise RecordRefused(
                f"timestamp outside years 1 to 9999 - at `$.{item.path}`", stage=RefusalStage.VALUE
            ) from None
