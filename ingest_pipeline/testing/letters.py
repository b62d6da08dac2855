"""Redriving and discarding the dead letters of a MemoryDatabase, and replaying its missing rows."""

from collections import Counter
from dataclasses import replace

from ..core.errors import RecordRefused, RefusalStage
from ..core.ledger import LetterFilter, LetterStatus, Redriven, RedriveOutcome, Replayed
from ..core.ledger_ports import ReplayStore
from ..core.record import OFFSET, PG_EPOCH_MS, Batch, DeadLetter, Deletion, EventRow, coordinates_of
from ..core.record_keys import check_record_key
from ..core.rows import DEFAULT_RULES, Decode, RecordRules, decode_or_delete
from ..core.stream import Stream
from .database import Coordinates, MemoryDatabase
from .keyed import KeyedTable

_ALL = LetterFilter()


class MemoryDeadLetters:
    """The dead letters of a stream. They have neither ids nor times, so a filter by these is refused."""

    def __init__(self, database: MemoryDatabase, stream: Stream) -> None:
        self._database, self._stream, self._many = database, stream.name, stream.many
        self._record_columns = stream.record_columns
        self._declared = stream
        self._keyed = KeyedTable(database.table(stream.name), stream) if stream.key else None

    def open(self, letter_filter: LetterFilter = _ALL) -> dict[Coordinates, DeadLetter]:
        """Coordinates → dead letter, for letters that are neither redriven nor discarded."""
        with self._database.using():
            table = self._database.table(self._stream)
            return {
                coordinates: letter
                for coordinates, letter in table.dead_letters.items()
                if coordinates not in table.settled and _selects(letter_filter, letter)
            }

    def discard(self, letter_filter: LetterFilter) -> int:
        letters = self.open(letter_filter)
        self._database.table(self._stream).settled.update(dict.fromkeys(letters, LetterStatus.DISCARDED))
        return len(letters)

    def redrive(self, letter_filter: LetterFilter, decode: Decode, rules: RecordRules = DEFAULT_RULES) -> Redriven:
        """Decode every open letter again and store its row under the original coordinates.

        A letter that is refused again stays open. Positions and counters do not change."""
        letters = self.open(letter_filter).items()
        return Redriven(**Counter(self._redrive_one(*letter, decode, rules).value for letter in letters))

    def _redrive_one(
        self, coordinates: Coordinates, letter: DeadLetter, decode: Decode, rules: RecordRules
    ) -> RedriveOutcome:
        if letter.truncated:
            return RedriveOutcome.TRUNCATED
        table = self._database.table(self._stream)
        try:
            value = self._record_columns.framed(letter.value, letter.headers)
            column_values = self._record_columns.of_letter(letter.key, letter.headers)
            key = self._record_columns.framed_key(letter.key, letter.headers)
            values, deleted = decode_or_delete(value, lambda: key, decode, rules)
            ms = letter.timestamp_ms
            stamp = None if ms is None else (ms - PG_EPOCH_MS) * 1000
            row: EventRow = (*coordinates, stamp, *column_values, *values)
            if self._keyed and rules.record_keys and not deleted:
                check_record_key(self._declared, values, key, rules.record_keys)
        except RecordRefused as refused:
            table.dead_letters[coordinates] = replace(letter, stage=refused.stage, reason=refused.message)
            return RedriveOutcome.REFUSED
        kept = table.kept(row, self._many)
        if kept is None and coordinates not in table.rows:
            table.dead_letters[coordinates] = replace(
                letter, stage=RefusalStage.INSERT, reason="a trigger of the table drops the row"
            )
            return RedriveOutcome.REFUSED
        if kept is not None and not deleted and table.broken_check(kept, self._many):
            return RedriveOutcome.REFUSED
        if self._keyed:
            if not deleted and coordinates in table.settled:  # by a deletion of this redrive
                return RedriveOutcome.SUPERSEDED
            if rules.record_keys and deleted:
                self._keyed.discard_before(coordinates, rules.record_keys.values, key)
            return self._restore(Deletion(row) if deleted else row, coordinates)
        table.settled[coordinates] = LetterStatus.REDRIVEN
        stored = kept is not None and table.add(kept, self._many)
        return RedriveOutcome.STORED if stored else RedriveOutcome.PRESENT

    def _restore(self, row: EventRow, coordinates: Coordinates) -> RedriveOutcome:
        assert self._keyed is not None
        table = self._database.table(self._stream)
        if self._keyed.restore(row):
            table.settled[coordinates] = LetterStatus.REDRIVEN
            return RedriveOutcome.STORED
        present = self._keyed.row_of(row)
        is_own = present is not None and present[:3] == coordinates
        table.settled[coordinates] = LetterStatus.REDRIVEN if is_own else LetterStatus.DISCARDED
        return RedriveOutcome.PRESENT if is_own else RedriveOutcome.SUPERSEDED


def _selects(letter_filter: LetterFilter, letter: DeadLetter) -> bool:
    if letter_filter.since or letter_filter.until or letter_filter.ids is not None:
        raise ValueError("a dead letter in memory has no id and no time")
    return (
        letter_filter.stage in (None, letter.stage)
        and letter_filter.sqlstate in (None, letter.sqlstate)
        and (letter_filter.reason or "") in letter.reason
    )


class MemoryMissingRows(ReplayStore):
    def __init__(self, database: MemoryDatabase, stream: Stream) -> None:
        self._database, self._stream, self._many = database, stream.name, stream.many
        self._keyed = KeyedTable(database.table(stream.name), stream) if stream.key else None

    def store(self, batch: Batch) -> Replayed:
        with self._database.using():
            table = self._database.table(self._stream)
            letters = self._letters(batch)
            rows = [row for row in batch.rows if letters.get(row[OFFSET], True)]
            kept = {row[OFFSET]: table.kept(row, self._many) for row in rows}
            dropped = {row[OFFSET] for row in rows if not kept[row[OFFSET]] and coordinates_of(row) not in table.rows}
            refused = {offset for offset, row in kept.items() if row and table.broken_check(row, self._many)}
            stored = 0
            for row in rows:
                if row[OFFSET] in dropped | refused:
                    continue
                if self._keyed:
                    stored += self._keyed.restore(row)
                elif (stored_row := kept[row[OFFSET]]) is not None:
                    stored += table.add(stored_row, self._many)
                if row[OFFSET] in letters:
                    present = coordinates_of(row) in table.rows
                    table.settled[coordinates_of(row)] = LetterStatus.REDRIVEN if present else LetterStatus.DISCARDED
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
