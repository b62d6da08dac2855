"""An in-memory database with the ledger's rules: one transaction or none, fencing by run id, counters that add up.

Faults are scripted, so that a test reads as a story:

    database = MemoryDatabase()
    database.script(Fault.AFTER_COMMIT)                           # the next write commits, and its answer is lost
    database.check("price", "positive", lambda row: row[5] > 0)   # as a CHECK constraint would
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from uuid import uuid4

from ..core.clock import SystemClock
from ..core.errors import DatabaseUnavailable, Superseded
from ..core.ledger import Holder, StreamState
from ..core.loss import Loss
from ..core.ports import Clock
from ..core.record import Batch, CommitResult, DeadLetter, Row, StoredPosition

Coordinates = tuple[int, int, int]
"""(incarnation, partition, offset)."""


class Fault(Enum):
    """Where a write breaks off. The session is lost each time; only the last one leaves the batch committed."""

    BEFORE_WRITE = "before write"
    BEFORE_COMMIT = "after write, before commit"
    AFTER_COMMIT = "after commit, before acknowledgement"


@dataclass(slots=True)
class MemoryTable:
    """What is committed of one stream; rows and dead letters by coordinates, in the order they were stored."""

    rows: dict[Coordinates, Row] = field(default_factory=dict)
    dead_letters: dict[Coordinates, DeadLetter] = field(default_factory=dict)
    settled: dict[Coordinates, str] = field(default_factory=dict)
    """Dead letters that are open no more: "redriven" or "discarded". They stay in `dead_letters`."""
    positions: dict[int, StoredPosition] = field(default_factory=dict)
    state: StreamState = field(default_factory=StreamState)
    awaited: bool = False
    losses: dict[int, Loss] = field(default_factory=dict)
    gaps: list[tuple[Loss, int]] = field(default_factory=list)
    """What was accepted, and the offset behind it."""
    past: list[StoredPosition] = field(default_factory=list)
    history: list[tuple[Coordinates, str | None]] = field(default_factory=list)
    """Every record in the order it was stored, with the reason where it became a dead letter the limit counts."""
    incarnation: int = 0
    checks: dict[str, Callable[[Row], bool]] = field(default_factory=dict)
    drops: Callable[[Row], bool] = lambda row: False
    """What a BEFORE trigger would return NULL for."""


@dataclass(eq=False, slots=True)
class MemoryConnection:
    """One connection of a run: what it owns, what it waits for. `alive` turns False for good when it is lost."""

    run_id: str
    stream: str
    pid: int
    since: datetime
    alive: bool = True
    owned: set[int] = field(default_factory=set)
    waits: dict[str, frozenset[int]] = field(default_factory=dict)


class MemoryDatabase:
    """What was committed, the sessions with their locks, and the faults to come. Several threads may use it.

    Attributes:
        mutex: held by each call; hold it to look at several things of one moment.
        reachable: while False, every call raises DatabaseUnavailable.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.ledger_id = str(uuid4())
        self.reachable = True
        self.mutex = threading.RLock()
        self.connections: list[MemoryConnection] = []
        self._tables: dict[str, MemoryTable] = {}
        self._script: deque[Fault | None] = deque()
        self._pids = 0

    def table(self, stream: str) -> MemoryTable:
        """What is committed of the stream."""
        with self.mutex:
            return self._tables.setdefault(stream, MemoryTable())

    def script(self, *faults: Fault | None) -> None:
        """Break the next writes, one entry each; None lets one pass."""
        self._script.extend(faults)

    def clear_script(self) -> None:
        """Forget the faults that have not happened."""
        self._script.clear()

    def next_fault(self) -> Fault | None:
        """What the write that begins now will meet."""
        return self._script.popleft() if self._script else None

    def check(self, stream: str, constraint: str, holds: Callable[[Row], bool]) -> None:
        """Refuse rows for which `holds` is False, as a CHECK constraint of that name would."""
        self.table(stream).checks[constraint] = holds

    def drop(self, stream: str, drops: Callable[[Row], bool]) -> None:
        """Drop rows for which `drops` is True, as a BEFORE trigger would that returns NULL."""
        self.table(stream).drops = drops

    @contextmanager
    def using(self) -> Iterator[None]:
        """One transaction of a pooled connection. Raises DatabaseUnavailable."""
        with self.mutex:
            if not self.reachable:
                raise DatabaseUnavailable("connecting: the database is not reachable")
            yield

    def open(self, run_id: str, stream: str) -> MemoryConnection:
        """A new session."""
        with self.using():
            self._pids += 1
            connection = MemoryConnection(run_id, stream, self._pids, self.now())
            self.connections.append(connection)
            return connection

    def end(self, connection: MemoryConnection) -> None:
        """What pg_terminate_backend does: the locks are free at once, and the session's next call fails."""
        with self.mutex:
            connection.alive = False
            connection.owned.clear()
            connection.waits.clear()
            if connection in self.connections:
                self.connections.remove(connection)

    def free(self, connection: MemoryConnection) -> None:
        """Take the session's locks from it without its noticing: it goes on believing that it owns its partitions."""
        with self.mutex:
            connection.owned.clear()

    def require(self, connection: MemoryConnection) -> None:
        """Raise DatabaseUnavailable when the session cannot be used."""
        if not self.reachable:
            self.end(connection)
        if not connection.alive:
            raise DatabaseUnavailable(f"stream {connection.stream}: the connection is lost", stream=connection.stream)

    def holders(self, stream: str, partitions: Collection[int]) -> dict[int, Holder]:
        """Partition → who owns it; free ones are left out."""
        with self.mutex:
            return {
                partition: Holder(connection.run_id, connection.pid, since=connection.since)
                for connection in self.connections
                if connection.stream == stream
                for partition in connection.owned.intersection(partitions)
            }

    def moved(self, connection: MemoryConnection, batch: Batch, written: CommitResult) -> dict[int, StoredPosition]:
        """The stream's positions behind the batch, by compare-and-set; stores nothing. Raises Superseded."""
        positions = dict(self.table(connection.stream).positions)
        for partition, advance in batch.advances.items():
            at = positions.get(partition)
            expected = (advance.incarnation, advance.expected, connection.run_id)
            if at is None or (at.incarnation, at.next_offset, at.run_id) != expected:
                raise Superseded(
                    f"stream {connection.stream}: partition {partition} is not as run {connection.run_id[:8]} left it;"
                    " nothing of this batch was written",
                    stream=connection.stream,
                    partition=partition,
                )
            rows, letters = written.rows.get(partition, 0), written.dead_letters.get(partition, 0)
            skipped = advance.skipped + written.dropped.get(partition, 0)
            positions[partition] = replace(
                at,
                next_offset=advance.resume_at.next_offset,
                leader_epoch=advance.resume_at.leader_epoch,
                rows=at.rows + rows,
                dead_letters=at.dead_letters + letters,
                skipped=at.skipped + skipped,
                absent=at.absent + advance.resume_at.next_offset - advance.expected - rows - letters - skipped,
                updated_at=self.now(),
            )
        return positions

    def now(self) -> datetime:
        """The database's time."""
        return datetime.fromtimestamp(self.clock.time(), UTC)
