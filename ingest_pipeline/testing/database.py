"""An in-memory database with the ledger's rules: atomic commits, fencing by run id, and exact counters.

Tests script the faults of coming writes:

    database = MemoryDatabase()
    database.script(Fault.AFTER_COMMIT)                           # the next write commits, and its answer is lost
    database.check("price", "positive", lambda row: row[5] > 0)   # as a CHECK constraint would
"""

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from operator import itemgetter
from typing import Any
from uuid import uuid4

from ..core.clock import SystemClock
from ..core.errors import DatabaseUnavailable, Superseded
from ..core.ledger import HandoverRequest, Holder, LetterStatus, StreamState
from ..core.loss import Loss
from ..core.many import table_rows
from ..core.ports import Clock
from ..core.record import Batch, CommitResult, DeadLetter, EventRow, StoredPosition, coordinates_of

Coordinates = tuple[int, int, int]
"""(incarnation, partition, offset)."""


class Fault(Enum):
    """The point where a write loses its session. Only AFTER_COMMIT leaves the batch committed."""

    BEFORE_WRITE = "before write"
    BEFORE_COMMIT = "after write, before commit"
    AFTER_COMMIT = "after commit, before acknowledgement"


@dataclass(slots=True)
class MemoryTable:
    """The committed data of one stream. Rows and dead letters are keyed by coordinates, in commit order."""

    rows: dict[Coordinates, EventRow] = field(default_factory=dict)
    dead_letters: dict[Coordinates, DeadLetter] = field(default_factory=dict)
    settled: dict[Coordinates, LetterStatus] = field(default_factory=dict)
    """Coordinates → status. Settled letters stay in `dead_letters`."""
    positions: dict[int, StoredPosition] = field(default_factory=dict)
    state: StreamState = field(default_factory=StreamState)
    losses: dict[int, Loss] = field(default_factory=dict)
    gaps: list[tuple[Loss, int]] = field(default_factory=list)
    """Accepted losses with the offsets after their gaps."""
    past: list[StoredPosition] = field(default_factory=list)
    history: list[tuple[Coordinates, str | None]] = field(default_factory=list)
    """All records in commit order. A dead letter that counts towards the limit has its reason here."""
    incarnation: int = 0
    checks: dict[str, Callable[[EventRow], bool]] = field(default_factory=dict)
    drops: Callable[[EventRow], bool] = lambda row: False
    """True for rows that a BEFORE trigger would drop."""
    locked: bool = False
    """Whether another session locks the table. Every write is rolled back."""

    def kept(self, row: EventRow, many: bool) -> EventRow | None:
        """The row without the elements dropped by the trigger. None: no element is left."""
        if not many:
            return None if self.drops(row) else row
        elements = [element for element in row[-1] if not self.drops(row[:-1] + element)]
        return (*row[:-1], elements) if elements else None

    def add(self, row: EventRow, many: bool) -> bool:
        """Store the row, or its missing elements. Returns whether something was missing."""
        stored = self.rows.setdefault(coordinates_of(row), row)
        if stored is row or not many:
            return stored is row
        ordinals = {element[0] for element in stored[-1]}
        missing = [element for element in row[-1] if element[0] not in ordinals]
        self.rows[coordinates_of(row)] = (*stored[:-1], sorted([*stored[-1], *missing], key=itemgetter(0)))
        return bool(missing)

    def broken_check(self, row: EventRow, many: bool) -> str | None:
        """The first check violated by the row or one of its elements."""
        rows = table_rows([row]) if many else [row]
        return next((name for name, holds in self.checks.items() if not all(map(holds, rows))), None)


@dataclass(eq=False, slots=True)
class MemoryBackend:
    """A session of a run, with owned and awaited (stream, partition) pairs. A lost session is never alive again."""

    run_id: str
    pid: int
    since: datetime
    alive: bool = True
    owned: set[tuple[str, int]] = field(default_factory=set)
    waits: dict[HandoverRequest, set[tuple[str, int]]] = field(default_factory=dict)


class MemoryDatabase:
    """Committed data, open sessions with their locks, and scripted faults. Methods are thread-safe.

    Attributes:
        mutex: held during every call. Hold it to read several values at one moment.
        reachable: while False, every call raises DatabaseUnavailable.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.ledger_id = str(uuid4())
        self.reachable = True
        self.mutex = threading.RLock()
        self.backends: list[MemoryBackend] = []
        self._tables: dict[str, MemoryTable] = {}
        self._script: deque[Fault | None] = deque()
        self._pids = 0

    def table(self, stream: str) -> MemoryTable:
        with self.mutex:
            return self._tables.setdefault(stream, MemoryTable())

    def script(self, *faults: Fault | None) -> None:
        """Set the faults of the next writes, in order. None lets a write pass."""
        self._script.extend(faults)

    def clear_script(self) -> None:
        """Delete the scripted faults that have not happened."""
        self._script.clear()

    def next_fault(self) -> Fault | None:
        return self._script.popleft() if self._script else None

    def check(self, stream: str, constraint: str, holds: Callable[[EventRow], bool]) -> None:
        """Refuse rows for which `holds` returns False, like a CHECK constraint of this name."""
        self.table(stream).checks[constraint] = holds

    def drop(self, stream: str, drops: Callable[[EventRow], bool]) -> None:
        """Drop rows for which `drops` returns True, like a BEFORE trigger that returns NULL."""
        self.table(stream).drops = drops

    @contextmanager
    def using(self) -> Iterator[None]:
        """A transaction on a pooled connection. Raises DatabaseUnavailable."""
        with self.mutex:
            if not self.reachable:
                raise DatabaseUnavailable("connecting: the database is not reachable")
            yield

    def change_state(self, stream: str, **changes: Any) -> None:
        """Set facts of a StreamState by name."""
        with self.using():
            table = self.table(stream)
            table.state = replace(table.state, **changes)

    def open(self, run_id: str) -> MemoryBackend:
        with self.using():
            self._pids += 1
            backend = MemoryBackend(run_id, self._pids, self.now())
            self.backends.append(backend)
            return backend

    def end(self, backend: MemoryBackend) -> None:
        """End a session as pg_terminate_backend does: release its locks and let its next call fail."""
        with self.mutex:
            backend.alive = False
            backend.owned.clear()
            backend.waits.clear()
            if backend in self.backends:
                self.backends.remove(backend)

    def free(self, backend: MemoryBackend) -> None:
        """Release a session's locks behind its back. The session still lists the partitions as its own."""
        with self.mutex:
            backend.owned.clear()

    def require(self, backend: MemoryBackend) -> None:
        """Raise DatabaseUnavailable for a lost session or an unreachable database."""
        if not self.reachable:
            self.end(backend)
        if not backend.alive:
            raise DatabaseUnavailable(f"run {backend.run_id[:8]}: the connection is lost")

    def holders(self, stream: str, partitions: Collection[int]) -> dict[int, Holder]:
        """Partition → owner. Free partitions are left out."""
        with self.mutex:
            return {
                partition: Holder(backend.run_id, backend.pid, since=backend.since)
                for backend in self.backends
                for partition in partitions
                if (stream, partition) in backend.owned
            }

    def requests(self, stream: str, partitions: Collection[int]) -> set[HandoverRequest]:
        with self.mutex:
            return {
                request
                for backend in self.backends
                for request, waits in backend.waits.items()
                if any((stream, partition) in waits for partition in partitions)
            }

    def moved(self, stream: str, run_id: str, batch: Batch, written: CommitResult) -> dict[int, StoredPosition]:
        """Compare the stored positions with the batch and return the positions after the batch. Stores nothing.

        Raises:
            Superseded: a position differs from the batch's expected one, or another run owns it.
        """
        positions = dict(self.table(stream).positions)
        for partition, advance in batch.advances.items():
            position = positions.get(partition)
            expected = (advance.incarnation, advance.expected, run_id)
            if position is None or (position.incarnation, position.next_offset, position.run_id) != expected:
                raise Superseded(
                    f"stream {stream}: partition {partition} is not as run {run_id[:8]} left it."
                    " Nothing of this batch was written",
                    stream=stream,
                    partition=partition,
                )
            rows, letters = written.rows.get(partition, 0), written.dead_letters.get(partition, 0)
            skipped = advance.skipped + written.dropped.get(partition, 0)
            positions[partition] = replace(
                position,
                next_offset=advance.resume_at.next_offset,
                leader_epoch=advance.resume_at.leader_epoch,
                rows=position.rows + rows,
                dead_letters=position.dead_letters + letters,
                skipped=position.skipped + skipped,
                absent=position.absent + advance.resume_at.next_offset - advance.expected - rows - letters - skipped,
                updated_at=self.now(),
            )
        return positions

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.time(), UTC)
