"""An in-memory database with the ledger's rules: one transaction or none, fencing by run id, counters that add up.

Faults are scripted, so that a test reads as a story:

    database = MemoryDatabase()
    database.script(Fault.AFTER_COMMIT)                    # the next write commits, and its answer is lost
    database.check("price", "positive", lambda row: row[5] > 0)   # a CHECK constraint
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from itertools import count
from uuid import uuid4

from ..core.clock import SystemClock
from ..core.errors import DatabaseUnavailable, LedgerConflict, RecordRefused, Superseded
from ..core.letters import dead_letter
from ..core.ports import Clock
from ..core.record import Batch, DeadLetter, Place, Position, Requests, Row, Written
from ..core.start import StoredPosition
from ..core.stream import Stream

Coordinates = tuple[int, int, int]
"""(incarnation, partition, offset)."""
POLL_SECONDS = 0.05


class Fault(Enum):
    """Where a write breaks off. The session is lost in each case; only the last one leaves the batch committed."""

    BEFORE_WRITE = "before write"
    BEFORE_COMMIT = "after write, before commit"
    AFTER_COMMIT = "after commit, before acknowledgement"


@dataclass(frozen=True, slots=True)
class MemoryHolder:
    """Who owns a partition."""

    run_id: str
    pid: int = 0
    frozen: bool = False


@dataclass(slots=True)
class MemoryTable:
    """What is committed of one stream.

    Attributes:
        rows, dead_letters: by coordinates, in the order in which they were stored.
        paused: (reason, by whom), or None.
    """

    rows: dict[Coordinates, Row] = field(default_factory=dict)
    dead_letters: dict[Coordinates, DeadLetter] = field(default_factory=dict)
    positions: dict[int, StoredPosition] = field(default_factory=dict)
    paused: tuple[str, str] | None = None
    awaited: bool = False
    incarnation: int = 0
    checks: dict[str, Callable[[Row], bool]] = field(default_factory=dict)


class MemoryDatabase:
    """Holds what was committed, the locks of live sessions, and the faults to come. Safe to use from threads.

    Attributes:
        reachable: while False, every call on a session and every new one raises DatabaseUnavailable.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.ledger_id = str(uuid4())
        self.reachable = True
        self.mutex = threading.RLock()
        self.owners: dict[tuple[str, int], MemoryLedger] = {}
        self.waiters: dict[MemoryLedger, tuple[str, frozenset[int]]] = {}
        self.sessions: set[MemoryLedger] = set()
        self._streams: dict[str, MemoryTable] = {}
        self._script: deque[Fault | None] = deque()

    def stream(self, name: str) -> MemoryTable:
        """What is committed of the stream."""
        with self.mutex:
            return self._streams.setdefault(name, MemoryTable())

    def script(self, *faults: Fault | None) -> None:
        """Break the next writes, one entry each; None lets one pass."""
        self._script.extend(faults)

    def next_fault(self) -> Fault | None:
        """What the write that has just begun meets."""
        return self._script.popleft() if self._script else None

    def check(self, stream: str, constraint: str, holds: Callable[[Row], bool]) -> None:
        """Refuse rows for which `holds` is not true, as a CHECK constraint of that name would."""
        self.stream(stream).checks[constraint] = holds

    def end_session(self, ledger: MemoryLedger) -> None:
        """What pg_terminate_backend does: the locks are free, and the session's next call fails."""
        with self.mutex:
            self.free(ledger)
            self.sessions.discard(ledger)

    def free(self, ledger: MemoryLedger) -> None:
        """Take the session's locks from it, without its noticing."""
        with self.mutex:
            self.owners = {key: owner for key, owner in self.owners.items() if owner is not ledger}
            self.waiters.pop(ledger, None)

    def move(self, stream: str, run_id: str, batch: Batch, written: Written) -> dict[int, StoredPosition]:
        """The positions behind the batch, by compare-and-set. Raises Superseded."""
        positions = dict(self.stream(stream).positions)
        for partition, move in batch.moves.items():
            at = positions[partition]
            if (at.incarnation, at.next_offset, at.run_id) != (move.incarnation, move.expected, run_id):
                raise Superseded(
                    f"stream {stream}: position of partition {partition} is not as run {run_id} left it", stream=stream
                )
            rows, letters = written.rows.get(partition, 0), written.dead_letters.get(partition, 0)
            positions[partition] = replace(
                at,
                next_offset=move.place.next_offset,
                leader_epoch=move.place.leader_epoch,
                rows=at.rows + rows,
                dead_letters=at.dead_letters + letters,
                skipped=at.skipped + move.skipped,
                absent=at.absent + move.place.next_offset - move.expected - rows - letters - move.skipped,
                updated_at=datetime.fromtimestamp(self.clock.time(), UTC),
            )
        return positions


class MemoryLedger:
    """Implements core.ports.Ledger on a MemoryDatabase, with the constructor and the calls of the real one."""

    _pids = count(1)

    def __init__(self, database: MemoryDatabase, stream: Stream, run_id: str, value_limit: int = 1 << 20) -> None:
        self._database, self._stream, self.run_id = database, stream.name, run_id
        self._value_limit = value_limit
        self._pid = next(self._pids)
        self._unsettled: Written | None = None
        self.positions: dict[int, Position] = {}
        self._connect()

    def own(
        self, partitions: Collection[int], *, exact: bool, announce: str | None = None, wait_seconds: float = 0.0
    ) -> dict[int, MemoryHolder]:
        """Take the partitions; see PostgresLedger.own. Returns who owns those that were not taken."""
        deadline = self._database.clock.monotonic() + wait_seconds
        while True:
            with self._session():
                if announce is not None:
                    self._database.waiters[self] = announce, frozenset(partitions)
                missing = self._held_by_others(partitions)
                owned = [] if exact and missing else sorted(set(partitions) - set(missing))
                if owned or self._database.clock.monotonic() >= deadline:
                    self._database.waiters.pop(self, None)
                    self._take(owned)
                    return {p: missing.get(p, MemoryHolder("unknown")) for p in partitions if p not in owned}
            self._database.clock.sleep(POLL_SECONDS)

    def write(self, batch: Batch) -> Written:
        """See core.ports.Ledger."""
        with self._session():
            self._unsettled = None
            fault = self._database.next_fault()
            self._break_if(fault is Fault.BEFORE_WRITE)
            table = self._database.stream(self._stream)
            rows, letters = self._judge(batch, table)
            counts = Counter(c[1] for c in rows), Counter(c[1] for c in letters)
            paused = None if table.paused is None else "{} ({})".format(*table.paused)
            reasons = [letter.reason for letter in letters.values()]
            written = Written(*counts, reasons, Requests(paused))
            positions = self._database.move(self._stream, self.run_id, batch, written)
            if conflict := (table.rows.keys() & rows.keys()) | (table.dead_letters.keys() & letters.keys()):
                raise LedgerConflict(
                    f"stream {self._stream}: coordinates {min(conflict)} were written before, though the ledger says not"
                )
            self._break_if(fault is Fault.BEFORE_COMMIT)
            table.rows |= rows
            table.dead_letters |= letters
            table.positions = positions
            self._unsettled = Written(*counts)
            self._break_if(fault is Fault.AFTER_COMMIT)
            self.positions.update({p: Position(p, m.incarnation, m.place) for p, m in batch.moves.items()})
            return written

    def recover(self, batch: Batch | None) -> Written | None:
        """See core.ports.Ledger."""
        with self._database.mutex:
            self._database.end_session(self)
            self._connect()
            moves = {} if batch is None else batch.moves
            if self._held_by_others(self.positions):
                raise self._superseded("another run owns them now")
            stored = self._database.stream(self._stream).positions
            if any(stored[p].run_id != self.run_id for p in self.positions):
                raise self._superseded("another run has taken the positions")
            settled = {p: replace(at, place=moves[p].place) if p in moves else at for p, at in self.positions.items()}
            now = {p: _position(stored[p]) for p in self.positions}
            if now not in (self.positions, settled):
                raise self._superseded("a position is neither what it was nor what this run wrote")
            committed = now != self.positions
            self._take(self.positions)
            return self._unsettled if committed else None

    def heartbeat(self) -> Requests:
        """See core.ports.Ledger."""
        with self._session():
            paused = self._database.stream(self._stream).paused
            waits = {
                kind
                for waiter, (kind, partitions) in self._database.waiters.items()
                if waiter._stream == self._stream and partitions & self.positions.keys()
            }
            return Requests(None if paused is None else "{} ({})".format(*paused), "wait" in waits, "wait-now" in waits)

    def close(self) -> None:
        """End the session; its locks go with it."""
        self._database.end_session(self)
