"""The ledger session of one run on a MemoryDatabase."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from ..core.dead_letter_limit import WINDOW, LetterLimits, LetterTally, LetterWindow, Refusal
from ..core.dead_letters import dead_letter
from ..core.errors import DatabaseUnavailable, LedgerConflict, RecordRefused, RefusalStage, Superseded
from ..core.ledger import HandoverRequest, Holder, LetterStatus
from ..core.loss import Acceptance
from ..core.ports import LedgerSession
from ..core.record import (
    Batch,
    CommitResult,
    DeadLetter,
    NextOffset,
    OwnerRequests,
    Position,
    Row,
    StoredPosition,
    TopicIdentity,
)
from ..core.stream import Stream
from .acceptance import accept_one
from .database import Coordinates, Fault, MemoryDatabase, MemoryTable

POLL_SECONDS = 0.05


class MemoryLedgerSession(LedgerSession):
    """Implements the port: the connection of one run, its locks, and the positions that the run owns.

    Attributes:
        connection: pass it to `MemoryDatabase.end` to break the session.
    """

    def __init__(
        self,
        database: MemoryDatabase,
        stream: Stream,
        run_id: str,
        *,
        dead_letter_max_bytes: int = 1 << 20,
        limits: LetterLimits | None = None,
    ) -> None:
        self._database, self._stream, self._run_id = database, stream.name, run_id
        self._record_columns = stream.record_columns
        self._topic = stream.topic
        self._dead_letter_max_bytes = dead_letter_max_bytes
        self._committed: CommitResult | None = None
        self._window = LetterWindow(stream.name, limits)
        self.positions: dict[int, Position] = {}
        self.connection = database.open(run_id, stream.name)

    def own(
        self,
        partitions: Collection[int],
        *,
        exact: bool,
        announce: HandoverRequest | None = None,
        wait_seconds: float = 0.0,
        stop: Callable[[], str | None] = lambda: None,
    ) -> dict[int, Holder]:
        clock = self._database.clock
        deadline = clock.monotonic() + wait_seconds
        while True:
            with self._database.mutex:
                self._database.require(self.connection)
                if announce is not None:
                    self.connection.waits[announce] = frozenset(partitions)
                held = self._database.holders(self._stream, partitions)
                owned = set() if exact and held else set(partitions) - held.keys()
                if owned or clock.monotonic() >= deadline or stop() is not None:
                    self.connection.waits.clear()
                    self._take(owned)
                    return {p: held.get(p, Holder("unknown")) for p in partitions if p not in owned}
            clock.sleep(POLL_SECONDS)

    def write(self, batch: Batch) -> CommitResult:
        with self._database.mutex:
            self._database.require(self.connection)
            self._committed = None
            fault = self._database.next_fault()
            self._break_off(fault, Fault.BEFORE_WRITE)
            table = self._database.table(self._stream)
            tally = self._window.tally(batch.dead_letters, batch.rows_before, table.state.letters_allowed)
            rows, letters = self._judged(batch, table, tally)
            window = tally.after(len(batch.rows))
            written = CommitResult(
                Counter(partition for _, partition, _ in rows),
                Counter(partition for _, partition, _ in letters),
                reasons=[letter.reason for letter in letters.values()],
                requests=OwnerRequests(self._paused()),
                dropped=Counter(row[1] for row in batch.rows if row[:3] not in rows.keys() | letters.keys()),
            )
            positions = self._database.moved(self.connection, batch, written)
            if twice := (table.rows.keys() & rows.keys()) | (table.dead_letters.keys() & letters.keys()):
                raise LedgerConflict(
                    f"stream {self._stream}: {min(twice)} was written before, though the ledger says it was not",
                    stream=self._stream,
                )
            self._break_off(fault, Fault.BEFORE_COMMIT)
            table.rows.update(rows)
            table.dead_letters.update(letters)
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
            self._database.end(self.connection)
            self.connection = self._database.open(self._run_id, self._stream)
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
            self.connection.owned.update(now)
            self.positions = now
            self._rebuild_window()
            return self._committed if committed else None

    def heartbeat(self) -> OwnerRequests:
        with self._database.mutex:
            self._database.require(self.connection)
            requests = {
                request
                for connection in self._database.connections
                if connection.stream == self._stream
                for request, partitions in connection.waits.items()
                if partitions & self.positions.keys()
            }
            return OwnerRequests(
                self._paused(), HandoverRequest.AT_MAXIMUM_AGE in requests, HandoverRequest.NOW in requests
            )

    def accept(self, accepted: Sequence[Acceptance], identity: TopicIdentity, by: str) -> None:
        with self._database.mutex:
            self._database.require(self.connection)
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

    def close(self) -> None:
        self._database.end(self.connection)

    def _take(self, partitions: Collection[int]) -> None:
        """Take the locks, write the run's id into the stored positions and read them."""
        stored = self._database.table(self._stream).positions
        self.connection.owned.update(partitions)
        begun = sorted(stored.keys() & set(partitions))
        for partition in begun:
            stored[partition] = replace(stored[partition], run_id=self._run_id)
        self.positions = {partition: _position(stored[partition]) for partition in begun}
        self._rebuild_window()

    def _remember(self, batch: Batch, letters: dict[Coordinates, DeadLetter], tally: LetterTally) -> None:
        table = self._database.table(self._stream)
        allowed = table.state.letters_allowed - len(tally.uncounted)
        table.state = replace(table.state, letters_allowed=allowed)
        for row in batch.rows:
            if (row[1], row[2]) not in tally.uncounted:
                table.history.append((row[:3], letters[row[:3]].reason if row[:3] in letters else None))
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
    ) -> tuple[dict[Coordinates, Row], dict[Coordinates, DeadLetter]]:
        """Divide the batch into rows and dead letters, as the table's checks and triggers would."""
        rows: dict[Coordinates, Row] = {}
        letters = list(batch.dead_letters)
        for index, (row, message) in enumerate(zip(batch.rows, batch.messages, strict=True)):
            if table.drops(row):
                continue
            broken = next((name for name, holds in table.checks.items() if not holds(row)), None)
            if broken is None:
                rows[row[:3]] = row
            else:
                refused = RecordRefused(
                    f"check violation (23514), constraint {broken}", stage=RefusalStage.INSERT, sqlstate="23514"
                )
                tally.refuse(index, row[1], row[2], refused.message)
                headers = row[self._record_columns.headers_slice]
                letters.append(
                    dead_letter(message, row[0], refused, value_limit=self._dead_letter_max_bytes, headers_read=headers)
                )
        return rows, {(letter.incarnation, letter.partition, letter.offset): letter for letter in letters}

    def _break_off(self, fault: Fault | None, point: Fault) -> None:
        if fault is point:
            self._database.end(self.connection)
            raise DatabaseUnavailable(f"stream {self._stream}: connection lost {point.value}", stream=self._stream)

    def _paused(self) -> str | None:
        state = self._database.table(self._stream).state
        return f"{state.reason} ({state.paused_by})" if state.paused else None

    def _superseded(self, why: str) -> Superseded:
        return Superseded(
            f"stream {self._stream}: run {self._run_id[:8]} lost its partitions: {why}", stream=self._stream
        )


def _position(stored: StoredPosition) -> Position:
    return Position(stored.partition, stored.incarnation, NextOffset(stored.next_offset, stored.leader_epoch))
