"""The table of a keyed stream in a MemoryDatabase."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..core.choices import OnConflict
from ..core.keyed_rows import KeyedRows
from ..core.ledger import LetterStatus
from ..core.record import INCARNATION, OFFSET, Batch, Deletion, EventRow, ValuesOf, coordinates_of
from ..core.stream import Stream
from .database import Coordinates, MemoryTable


@dataclass(frozen=True, slots=True)
class KeyedResult:
    """What a write makes of its rows.

    Attributes:
        rows: of the table afterwards.
        unwritten: coordinates of rows that change nothing.
        refused: index of a row → the broken constraint.
    """

    rows: dict[Coordinates, EventRow]
    unwritten: set[Coordinates]
    refused: dict[int, str]


class KeyedTable:
    """One row per key. The rows are still found by the coordinates of their last record."""

    def __init__(self, table: MemoryTable, stream: Stream) -> None:
        self._table, self._stream, self._keyed = table, stream, KeyedRows(stream)

    def write(self, rows: Sequence[EventRow]) -> KeyedResult:
        """Only the row that decides about a key is checked, as in PostgreSQL."""
        refused: dict[int, str] = {}
        while True:
            accepted = [i for i in range(len(rows)) if i not in refused]
            latest = self._keyed.latest([rows[i] for i in accepted])
            broken = {accepted[i]: self._table.broken_check(rows[accepted[i]], many=False) for i in latest.latest}
            if not any(broken.values()):
                break
            refused |= {i: constraint for i, constraint in broken.items() if constraint}
        by_key = {self._keyed.key_of(row): row for row in self._table.rows.values()}
        for i in latest.deletions:
            by_key.pop(self._keyed.key_of(rows[accepted[i]]), None)
        unwritten = {rows[accepted[i]][:3] for i in latest.superseded}
        for row in (rows[accepted[i]] for i in latest.latest):
            if self._table.drops(row) or not self._replaces(row, by_key.get(self._keyed.key_of(row))):
                unwritten.add(coordinates_of(row))
            else:
                by_key[self._keyed.key_of(row)] = row
        return KeyedResult({coordinates_of(row): row for row in by_key.values()}, unwritten, refused)

    def restore(self, row: EventRow) -> bool:
        """Store an older record's row, unless the table has a newer row of its key. Returns whether it was stored."""
        before = self.row_of(row)
        if before is not None and not self._is_older(before, row):
            return False
        if before is not None:
            del self._table.rows[coordinates_of(before)]
        if not isinstance(row, Deletion):
            self._table.rows[coordinates_of(row)] = row
        return True

    def row_of(self, row: EventRow) -> EventRow | None:
        """The table's row with the key of this row."""
        key = self._keyed.key_of(row)
        return next((stored for stored in self._table.rows.values() if self._keyed.key_of(stored) == key), None)

    def _replaces(self, row: EventRow, before: EventRow | None) -> bool:
        if before is None:
            return True
        if self._stream.on_conflict == OnConflict.IGNORE:
            return False
        return not self._stream.only_newer or self._version(before) <= self._version(row)

    def _is_older(self, stored: EventRow, row: EventRow) -> bool:
        if self._stream.on_conflict == OnConflict.IGNORE and not isinstance(row, Deletion):
            return False
        older = stored[INCARNATION] < row[INCARNATION] or (stored[:2] == row[:2] and stored[OFFSET] < row[OFFSET])
        if not self._stream.only_newer or isinstance(row, Deletion):
            return older
        version, before = self._version(row), self._version(stored)
        return bool(before < version or (before == version and older))

    def discard_letters(self, batch: Batch) -> None:
        """Discard open dead letters with the key of a Deletion, so that no redrive brings the deleted row back."""
        framed_key = self._stream.record_columns.framed_key
        for i, row in enumerate(batch.rows):
            if isinstance(row, Deletion):
                assert batch.record_keys is not None
                key = framed_key(batch.messages[i].key(), *batch.headers[i : i + 1])
                self.discard_before(coordinates_of(row), batch.record_keys.values, key)

    def discard_before(self, deletion: Coordinates, values_of: ValuesOf, key: bytes | None) -> None:
        framed_key, values = self._stream.record_columns.framed_key, values_of(key)
        for coordinates, letter in self._table.dead_letters.items():
            later = coordinates[:2] == deletion[:2] and coordinates[2] >= deletion[2]
            same_key = values is not None and values_of(framed_key(letter.key, letter.headers)) == values
            if same_key and coordinates not in self._table.settled and not later:
                self._table.settled[coordinates] = LetterStatus.DISCARDED

    def _version(self, row: EventRow) -> Any:
        return row[self._stream.columns.index(self._stream.only_newer)]
