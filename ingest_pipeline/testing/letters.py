"""Redriving and discarding the dead letters of a MemoryDatabase."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ..core.errors import RecordRefused, RefusalStage
from ..core.ledger import LetterStatus, Redriven, RedriveOutcome
from ..core.record import PG_EPOCH_MS, DeadLetter, Row
from ..core.rows import DEFAULT_RULES, Decode, RecordRules, decode_one
from ..core.stream import Stream
from .database import Coordinates, MemoryDatabase


class MemoryDeadLetters:
    """The dead letters of a stream. `reason` narrows to letters with this text in the reason."""

    def __init__(self, database: MemoryDatabase, stream: Stream) -> None:
        self._database, self._stream, self._record_columns = database, stream.name, stream.record_columns

    def open(self, reason: str = "") -> dict[Coordinates, DeadLetter]:
        """Coordinates → dead letter, for letters that are neither redriven nor discarded."""
        with self._database.using():
            table = self._database.table(self._stream)
            return {
                coordinates: letter
                for coordinates, letter in table.dead_letters.items()
                if coordinates not in table.settled and reason in letter.reason
            }

    def discard(self, reason: str = "") -> int:
        """Close open letters without storing a row. Returns the number of letters."""
        letters = self.open(reason)
        self._database.table(self._stream).settled.update(dict.fromkeys(letters, LetterStatus.DISCARDED))
        return len(letters)

    def redrive(self, decode: Decode, reason: str = "", rules: RecordRules = DEFAULT_RULES) -> Redriven:
        """Decode every open letter again and store its row under the original coordinates.

        A letter that is refused again stays open. Positions and counters do not change."""
        letters = self.open(reason).items()
        return Redriven(**Counter(self._redrive_one(*letter, decode, rules).value for letter in letters))

    def _redrive_one(
        self, coordinates: Coordinates, letter: DeadLetter, decode: Decode, rules: RecordRules
    ) -> RedriveOutcome:
        if letter.truncated:
            return RedriveOutcome.TRUNCATED
        table = self._database.table(self._stream)
        try:
            column_values = self._record_columns.of_letter(letter.key, letter.headers)
            row: Row = (
                *coordinates,
                _stamp(letter.timestamp_ms),
                *column_values,
                *decode_one(letter.value, decode, rules.max_record_bytes),
            )
        except RecordRefused as refused:
            table.dead_letters[coordinates] = replace(letter, stage=refused.stage, reason=refused.message)
            return RedriveOutcome.REFUSED
        if table.drops(row) and coordinates not in table.rows:
            table.dead_letters[coordinates] = replace(
                letter, stage=RefusalStage.INSERT, reason="a trigger of the table drops the row"
            )
            return RedriveOutcome.REFUSED
        if not all(holds(row) for holds in table.checks.values()):
            return RedriveOutcome.REFUSED
        outcome = RedriveOutcome.PRESENT if coordinates in table.rows else RedriveOutcome.STORED
        table.rows.setdefault(coordinates, row)
        table.settled[coordinates] = LetterStatus.REDRIVEN
        return outcome


def _stamp(timestamp_ms: int | None) -> int | None:
    return None if timestamp_ms is None else (timestamp_ms - PG_EPOCH_MS) * 1000
