"""The ledger session of one stream on a MemoryDatabase."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from ..core.dead_letter_limit import WINDOW, LetterLimits, LetterTally, LetterWindow, Refusal
from ..core.dead_letters import dead_letter
from ..core.errors import DatabaseUnavailable, LedgerConflict, RecordRefused, RefusalStage, Superseded, TableBusy
from ..core.ledger import HandoverRequest, Holder, LetterStatus
from ..core.ledger_ports import LedgerSession
from ..core.loss import Acceptance
from ..core.record import (
    INCARNATION,
    OFFSET,
    PARTITION,
    Batch,
    CommitResult,
    DeadLetter,
    EventRow,
    NextOffset,
    OwnerRequests,
    Position,
    StoredPosition,
    TopicIdentity,
    coordinates_of,
)
from ..core.stream import Stream
from .acceptance import accept_one
from .database import Coordinates, Fault, MemoryTable
from .keyed import KeyedTable
from .writing_connection import MemoryWritingConnection, paused_words


class MemoryLedgerSession(LedgerSession):
    """Implements the port: the locks and positions of one stream on a run's connection."""

    def __init__(
        self,
        connection: MemoryWritingConnection,
        stream: Stream,
        *,
        dead_letter_max_bytes: int = 1 << 20,
        limits: LetterLimits | None = None,
    ) -> None:
        self.connection, self._run_id = connection, connection.run_id
        self._database, self._stream = connection.database, stream.name
        self._many = stream.many
        self._keyed = KeyedTable(self._database.table(stream.name), stream) if stream.key else None
        self._topic = stream.topic
        self._dead_letter_max_bytes = dead_letter_max_bytes
        self._committed: CommitResult | None = None
        self._window = LetterWindow(stream.name, limits)
        self._generation = connection.generation
        self.positions: dict[int, Position] = {}

    def own(self, partitions: Collection[int], *, exact: bool) -> dict[int, Holder]:
        with self._database.mutex:
            self._database.require(self.connection.backend)
            held = self._database.holders(self._stream, partitions)
            owned = set() if exact and held else set(partitions) - held.keys()
            if owned:
                self._take(owned)
            return {p: held.get(p, Holder("unknown")) for p in partitions if p not in owned}

    def announce(self, request: HandoverRequest, partitions: Collection[int]) -> None:
        with self._database.mutex:
            self._database.require(self.connection.backend)
            waits = self.connection.backend.waits.setdefault(request, set())
            waits |= {(self._stream, partition) for partition in partitions}

    def withdraw(self) -> None:
        with self._database.mutex:
            self._database.require(self.connection.backend)
            for waits in self.connection.backend.waits.values():
                waits -= {wait for wait in waits if wait[0] == self._stream}

    def end_frozen_owners(self, partitions: Collection[int]) -> bool:
        return False

    def release(self) -> None:
        with self._database.mutex:
            owned = {(self._stream, partition) for partition in self.positions}
            self.connection.backend.owned -= owned
            self.connection.owned.pop(self._stream, None)
            self.positions = {}

    def write(self, batch: Batch) -> CommitResult:
        with self._database.mutex:
            self._database.require(self.connection.backend)
            table = self._database.table(self._stream)
            if table.locked:
                raise TableBusy(f"writing stream {self._stream}: 55P03, the table is locked", sqlstate="55P03")
            self._committed = None
            fault = self._database.next_fault()
            self._break_off(fault, Fault.BEFORE_WRITE)
            tally = LetterTally(self._window, batch.dead_letters, batch.rows_before, table.state.letters_allowed)
            rows, letters, table_rows = self._judged(batch, table, tally)
            window = tally.after(len(batch.rows))
            written = CommitResult(
                Counter(partition for _, partition, _ in rows),
                Counter(partition for _, partition, _ in letters),
                reasons=[letter.reason for letter in letters.values()],
                requests=OwnerRequests(paused_words(table)),
                dropped=Counter(
                    row[PARTITION] for row in batch.rows if coordinates_of(row) not in rows.keys() | letters.keys()
                ),
            )
            positions = self._database.moved(self._stream, self._run_id, batch, written)
            stored_before = set() if self._keyed else table.rows.keys() & rows.keys()
            if twice := stored_before | (table.dead_letters.keys() & letters.keys()):
                raise LedgerConflict(
                    f"stream {self._stream}: {min(twice)} was written before, though the ledger says it was not",
                    stream=self._stream,
                )
            self._break_off(fault, Fault.BEFORE_COMMIT)
            table.rows = table_rows
            table.dead_letters.update(letters)
            if self._keyed:
                self._keyed.discard_letters(batch)
            table.positions = positions
            self._remember(batch, letters, tally)
            self._window = window
            self._committed = CommitResult(written.rows, written.dead_letters, dropped=written.dropped)
            self._break_off(fault, Fault.AFTER_COMMIT)
            self.positions.update(
                {p: Position(p, advance.incarnation, advance.resume_at) for p, advance in batch.advances.items()}
            )
            return written

    def recover(self, batch: Batch | None) -> CommitResult | None:
        with self._database.mutex:
            self.connection.repair(self._generation)
            if others := self._database.holders(self._stream, self.positions):
                raise self._superseded(f"run {next(iter(others.values())).run_id[:8]} owns them now")
            positions = self._database.table(self._stream).positions
            stored = {p: positions[p] for p in self.positions if p in positions}
            if any(position.run_id != self._run_id for position in stored.values()):
                raise self._superseded("another run has taken the positions")
            now = {p: _position(position) for p, position in stored.items()}
            advances = {} if batch is None else batch.advances
            settled = {
                p: Position(p, position.incarnation, advances[p].resume_at) if p in advances else position
                for p, position in self.positions.items()
            }
            if now not in (self.positions, settled):
                raise self._superseded("a position is neither what it was nor what this run wrote")
            committed = now != self.positions
            self.connection.backend.owned |= {(self._stream, partition) for partition in now}
            self._generation = self.connection.generation
            self.positions = now
            self._rebuild_window()
            return self._committed if committed else None

    def accept(self, accepted: Sequence[Acceptance], identity: TopicIdentity, by: str) -> None:
        with self._database.mutex:
            self._database.require(self.connection.backend)
            table = self._database.table(self._stream)
            for item in accepted:
                position, loss = table.positions.get(item.loss.partition), item.loss
                expected = (loss.incarnation, loss.next_offset, self._run_id)
                if position is None or (position.incarnation, position.next_offset, position.run_id) != expected:
                    raise self._superseded("a position has moved meanwhile")
            if any(item.new_incarnation for item in accepted):
                table.incarnation += 1
            for item in accepted:
                accept_one(item, table, self._topic, identity)
            table.state = replace(table.state, acted_at=self._database.now())
            stored = {p: table.positions[p] for p in self.positions if p in table.positions}
            self.positions = {p: _position(position) for p, position in stored.items()}

    def _take(self, partitions: Collection[int]) -> None:
        """Take the locks, write the run's id into the stored positions and read them."""
        stored = self._database.table(self._stream).positions
        self.connection.backend.owned |= {(self._stream, partition) for partition in partitions}
        self._generation = self.connection.generation
        begun = sorted(stored.keys() & set(partitions))
        for partition in begun:
            stored[partition] = replace(stored[partition], run_id=self._run_id)
        self.positions = {partition: _position(stored[partition]) for partition in begun}
        self.connection.owned[self._stream] = tuple(begun)
        self._rebuild_window()

    def _remember(self, batch: Batch, letters: dict[Coordinates, DeadLetter], tally: LetterTally) -> None:
        table = self._database.table(self._stream)
        allowed = table.state.letters_allowed - len(tally.uncounted)
        table.state = replace(table.state, letters_allowed=allowed)
        for row in batch.rows:
            if (row[PARTITION], row[OFFSET]) not in tally.uncounted:
                coordinates = coordinates_of(row)
                table.history.append((coordinates, letters[coordinates].reason if coordinates in letters else None))
        for letter in batch.dead_letters:
            if (letter.partition, letter.offset) not in tally.uncounted:
                coordinates = (letter.incarnation, letter.partition, letter.offset)
                table.history.append((coordinates, letter.reason))

    def _rebuild_window(self) -> None:
        table = self._database.table(self._stream)
        owned = [(where, reason) for where, reason in table.history if where[1] in self.positions]
        newest = [(where, reason) for where, reason in owned if table.settled.get(where) != LetterStatus.DISCARDED][
            -WINDOW:
        ]
        self._window = self._window.rebuilt(
            None if reason is None or where in table.settled else Refusal(where[1], where[2], reason)
            for where, reason in newest
        )

    def _judged(
        self, batch: Batch, table: MemoryTable, tally: LetterTally
    ) -> tuple[dict[Coordinates, EventRow], dict[Coordinates, DeadLetter], dict[Coordinates, EventRow]]:
        """Divide the batch into rows and dead letters, as the table's checks and triggers would. Also returns the
        table's rows afterwards."""
        rows: dict[Coordinates, EventRow] = {}
        letters = list(batch.dead_letters)
        keyed = self._keyed.write(batch.rows) if self._keyed else None
        for index, (row, message) in enumerate(zip(batch.rows, batch.messages, strict=True)):
            kept = row if keyed else table.kept(row, self._many)
            if kept is None or (keyed and coordinates_of(row) in keyed.unwritten):
                continue
            broken = keyed.refused.get(index) if keyed else table.broken_check(kept, self._many)
            if broken is None:
                rows[coordinates_of(row)] = kept
            else:
                refused = RecordRefused(
                    f"check violation (23514), constraint {broken}", stage=RefusalStage.INSERT, sqlstate="23514"
                )
                tally.refuse(index, row[PARTITION], row[OFFSET], refused.message)
                headers = batch.headers[index : index + 1]
                letters.append(
                    dead_letter(
                        message,
                        row[INCARNATION],
                        refused,
                        value_limit=self._dead_letter_max_bytes,
                        headers_read=headers,
                    )
                )
        by_coordinates = {(letter.incarnation, letter.partition, letter.offset): letter for letter in letters}
        return rows, by_coordinates, keyed.rows if keyed else {**table.rows, **rows}

    def _break_off(self, fault: Fault | None, point: Fault) -> None:
        if fault is point:
            self._database.end(self.connection.backend)
            raise DatabaseUnavailable(f"stream {self._stream}: connection lost {point.value}", stream=self._stream)

    def _superseded(self, why: str) -> Superseded:
        return Superseded(
            f"stream {self._stream}: run {self._run_id[:8]} lost its partitions: {why}", stream=self._stream
        )


def _position(stored: StoredPosition) -> Position:
    return Position(stored.partition, stored.incarnation, NextOffset(stored.next_offset, stored.leader_epoch))
