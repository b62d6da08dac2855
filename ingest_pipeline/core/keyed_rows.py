"""The rows of a list that decide about their keys, with the result of writing row by row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from operator import itemgetter
from typing import Any

from .choices import OnConflict
from .record import Deletion, EventRow
from .stream import Stream


@dataclass(frozen=True, slots=True)
class LatestRows:
    """Attributes:
    latest: indices of rows to write after the deletions, in the order of their keys. At most one per key. PostgreSQL
        finds neighbours in the same pages, and two sessions lock the rows in the same order.
    deletions: indices of deletions. At most one per key.
    superseded: indices of rows that an earlier row of the list keeps out, by only_newer or on_conflict="ignore".
    """

    latest: list[int]
    deletions: list[int] = field(default_factory=list)
    superseded: list[int] = field(default_factory=list)


class KeyedRows:
    """Compares the rows of a keyed stream. Rows of one partition are in log order, so the last row of a key wins."""

    def __init__(self, stream: Stream) -> None:
        indices = [stream.columns.index(name) for name in stream.key]
        self.key_of = itemgetter(*indices)
        self._version = stream.columns.index(stream.only_newer) if stream.only_newer else None
        self._ignore = stream.on_conflict == OnConflict.IGNORE
        self._last_wins = not (self._ignore or stream.only_newer or stream.deletes)

    def latest(self, rows: Sequence[EventRow]) -> LatestRows:
        keys = map(self.key_of, rows)
        if self._last_wins:
            return LatestRows(_in_order(dict(zip(keys, count(), strict=False))))
        latest: dict[Any, int] = {}
        deletions: dict[Any, int] = {}
        superseded: list[int] = []
        for i, key in enumerate(keys):
            if type(rows[i]) is Deletion:
                latest.pop(key, None)
                deletions[key] = i
            elif key in latest and self._keeps_out(rows[latest[key]], rows[i]):
                superseded.append(i)
            else:
                latest[key] = i
        return LatestRows(_in_order(latest), list(deletions.values()), superseded)

    def _keeps_out(self, earlier: EventRow, later: EventRow) -> bool:
        return self._ignore or (self._version is not None and later[self._version] < earlier[self._version])


def _in_order(rows: Mapping[Any, int]) -> list[int]:
    """Key → index, in the order of the keys."""
    return list(map(rows.__getitem__, sorted(rows)))
