"""Partitions by event_time: their bounds, and whether a stream's options allow them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from .errors import SettingsError
from .fields import Field

LEAST_KEEP = timedelta(days=1)
Bounds = tuple[datetime, datetime]
"""Start and stop of a partition."""


class PartitionBy(StrEnum):
    """The length of a partition, in UTC. Weeks begin on Monday."""

    NONE = ""
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


AHEAD = {PartitionBy.DAY: 7, PartitionBy.WEEK: 4, PartitionBy.MONTH: 3}
"""Partitions made after the current one."""


def check_partitioning(
    partition_by: str, keep: timedelta | None, fields: Iterable[Field], excluded: Mapping[str, object]
) -> None:
    """Raises SettingsError with the reason, which does not name the stream.

    Args:
        excluded: option → its value, for options that partitions exclude.
    """
    if partition_by not in set(PartitionBy):
        raise SettingsError(f"partition_by {partition_by!r} is not day, week or month")
    for option, value in excluded.items():
        if partition_by and value:
            raise SettingsError(f"partition_by and {option} exclude each other")
    if keep is not None and not partition_by:
        raise SettingsError("keep drops partitions, and partition_by is not declared")
    if keep is not None and keep < LEAST_KEEP:
        raise SettingsError(f"keep is {keep}, at least a day is needed")
    times = [
        item for item in fields if item.name == "event_time" and item.python_type is datetime and not item.nullable
    ]
    if partition_by and not times:
        raise SettingsError("partition_by needs a datetime called event_time, which is never null")


def start_of(partition_by: PartitionBy, time: datetime) -> datetime:
    day = time.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if partition_by == PartitionBy.MONTH:
        return day.replace(day=1)
    return day - timedelta(days=day.weekday()) if partition_by == PartitionBy.WEEK else day


def stop_of(partition_by: PartitionBy, start: datetime) -> datetime:
    if partition_by == PartitionBy.MONTH:
        return (start + timedelta(days=31)).replace(day=1)
    return start + timedelta(days=7 if partition_by == PartitionBy.WEEK else 1)


def bounds_ahead(partition_by: PartitionBy, now: datetime) -> Iterator[Bounds]:
    """Of the current partition and of future partitions."""
    start = start_of(partition_by, now)
    for _ in range(AHEAD[partition_by] + 1):
        stop = stop_of(partition_by, start)
        yield start, stop
        start = stop


def gaps(bounds: Bounds, existing: Sequence[Bounds]) -> Iterator[Bounds]:
    """The parts of `bounds` that no existing partition covers. `existing` is in the order of times."""
    start, stop = bounds
    for existing_start, existing_stop in existing:
        if existing_stop <= start or existing_start >= stop:
            continue
        if start < existing_start:
            yield start, existing_start
        start = existing_stop
    if start < stop:
        yield start, stop
