"""Storing the missing rows of a replayed range in a MemoryDatabase."""

from __future__ import annotations

from ..core.ledger import LetterStatus, Replayed
from ..core.ledger_ports import ReplayStore
from ..core.record import Batch
from ..core.stream import Stream
from .database import MemoryDatabase
from .keyed import KeyedTable


class MemoryMissingRows(ReplayStore):
    def __init__(self, database: MemoryDatabase, stream: Stream) -> None:
        self._database, self._stream, self._many = database, stream.name, stream.many
        self._keyed = KeyedTable(database.table(stream.name), stream) if stream.key else None

    def store(self, batch: Batch) -> Replayed:
        with self._database.using():
            table = self._database.table(self._stream)
            letters = self._letters(batch)
            rows = [row for row in batch.rows if letters.get(row[2], True)]
            kept = {row[2]: table.kept(row, self._many) for row in rows}
            dropped = {row[2] for row in rows if kept[row[2]] is None and row[:3] not in table.rows}
            refused = {offset for offset, row in kept.items() if row and table.broken_check(row, self._many)}
            stored = 0
            for row in rows:
                if row[2] in dropped | refused:
                    continue
                if self._keyed:
                    stored += self._keyed.restore(row)
                elif (stored_row := kept[row[2]]) is not None:
                    stored += table.add(stored_row, self._many)
                if row[2] in letters:
                    present = row[:3] in table.rows
                    table.settled[row[:3]] = LetterStatus.REDRIVEN if present else LetterStatus.DISCARDED
            undecoded = {letter.offset for letter in batch.dead_letters}
            known_letters = sum(offset in letters for offset in refused | undecoded)
            return Replayed(
                stored=stored,
                present=len(rows) - len(refused) - len(dropped) - stored,
                dead=len(batch.rows) - len(rows) + known_letters,
                refused=len(refused) + len(undecoded) - known_letters,
                skipped=len(dropped),
            )

    def _letters(self, batch: Batch) -> dict[int, bool]:
        """Offset → True for an open letter with a truncated value. Redriven letters are left out."""
        table = self._database.table(self._stream)
        ((partition, advance),) = batch.advances.items()
        return {
            coordinates[2]: letter.truncated and coordinates not in table.settled
            for coordinates, letter in table.dead_letters.items()
            if coordinates[:2] == (advance.incarnation, partition)
            and advance.expected <= coordinates[2] < advance.resume_at.next_offset
            and table.settled.get(coordinates) != LetterStatus.REDRIVEN
        }
