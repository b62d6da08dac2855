"""Records of several events: `Stream(many=True)`.

The Row of a record with several events ends with its elements instead of an event's values. Only the writer makes a
table row of every element: everything else, from the positions to the dead letters, counts records.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from .record import Row

Element = tuple[Any, ...]
"""(kafka_ordinal, *the values of an event's columns)."""


def table_rows(records: Sequence[Row]) -> list[Row]:
    """The rows of the records' elements, in order."""
    return [record[:-1] + element for record in records for element in record[-1]]


def element_at(records: Sequence[Row], index: int) -> tuple[int, int]:
    """(index of the record, ordinal) of a row from `table_rows`."""
    stops = list(accumulate(len(record[-1]) for record in records))
    i = bisect_right(stops, index)
    elements = records[i][-1]
    return i, elements[index - stops[i]][0]
