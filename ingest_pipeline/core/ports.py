"""Ports: what the product needs of Kafka, PostgreSQL and the clock.

kafka/ and postgres/ implement the ports, testing/ does so in memory. One contract suite tests both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from .ledger import Account, Holder, LedgerSnapshot, LetterCount, Owners, Replayed, StreamState
from .loss import Acceptance, Loss
from .record import (
    Batch,
    Chunk,
    CommitResult,
    GroupOffset,
    NextOffset,
    OwnerRequests,
    Position,
    StoredPosition,
    TopicIdentity,
)


class Clock(Protocol):
    """Seconds. Durations come from `monotonic`, only timestamps shown to people from `time`."""

    def monotonic(self) -> float: ...
    def time(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...


class Source(Protocol):
    """Reads records from the ledger's offsets. Never resets an offset by itself."""

    def assign(self, offsets: Mapping[int, NextOffset]) -> None:
        """Read from these offsets. An earlier assignment and its fetched records are dropped."""

    def read(self, max_records: int, timeout_seconds: float) -> Chunk:
        """Up to `max_records` records. Returns when that many have arrived, or after the time-out.

        The chunk may be empty. An end of partition is returned once.

        Raises:
            DataLoss: the log no longer holds an assigned offset, or was truncated and rewritten.
            KafkaUnavailable, NotPermitted, StopStream.
        """

    def acknowledge(self, offsets: Mapping[int, NextOffset]) -> None:
        """Commit the group's offsets with the ledger's mark, without waiting. A failure is only logged."""

    def close(self) -> None:
        """Release everything. The last acknowledged offsets are committed if the broker answers within 2 s."""


class Topic(Protocol):
    """Answers about one topic. Reads no record. Every call raises KafkaUnavailable when there is no answer in time.

    A partition is absent from the answer to a question about offsets when its leader did not answer. Nothing is known
    of that partition then: callers leave it out of lag, of losses and of every decision, and ask again later. The
    answer may be empty. KafkaUnavailable means that no broker answered at all.
    """

    name: str

    def identity(self) -> TopicIdentity:
        """Raises TopicMissing."""

    def end_offsets(self, partitions: Collection[int]) -> dict[int, NextOffset]:
        """Where a read_committed reader would find the end, by one request for all partitions.

        Raises:
            TopicMissing: the topic, or one of these partitions, does not exist.
        """

    def high_watermarks(self, partitions: Collection[int]) -> dict[int, NextOffset]:
        """Where the log ends, with the records that open transactions hold back from a read_committed reader."""

    def start_offsets(self, partitions: Collection[int]) -> dict[int, NextOffset]:
        """The first offset still held (low watermark)."""

    def offsets_at(self, partitions: Collection[int], timestamp_ms: int) -> dict[int, NextOffset]:
        """The first offset whose record is not older than this; the end where there is none.

        The end is read first: a record that arrives in between is never skipped.
        """

    def group_offsets(self, group: str) -> dict[int, GroupOffset]:
        """What the group has committed for this topic; partitions without a commit are left out."""


class Ledger(Protocol):
    """One stream's part of the ledger, read and changed from outside a run. Every call raises DatabaseUnavailable when
    the database does not answer."""

    def prepare(self) -> None:
        """Create ledger and event table where missing. Raises SchemaMismatch."""

    def ledger_id(self) -> str: ...

    def snapshot(self) -> LedgerSnapshot:
        """All facts that a sensor tick needs. Empty without a ledger."""

    def positions(self) -> dict[int, StoredPosition]:
        """Partition → position. Empty before the stream has begun, and without a ledger."""

    def owners(self, partitions: Collection[int]) -> Owners:
        """Owners of these partitions, and the runs that have a session."""

    def state(self) -> StreamState: ...

    def accounting(self) -> list[Account]:
        """Accounts of all present and past positions."""

    def open_letters(self) -> list[LetterCount]:
        """Open dead letters, counted by partition, stage and class of SQLSTATE."""

    def begin(self, identity: TopicIdentity, places: Mapping[int, NextOffset], first: bool) -> bool:
        """Store positions for these partitions in one transaction. False, and nothing stored, when `first` and another
        run has begun the stream meanwhile."""

    def adopt_identity(self, identity: TopicIdentity) -> None:
        """Fill in the topic's ids in positions that lack them."""

    def await_topic(self) -> None:
        """Note that the topic does not exist yet. The stream will begin at the topic's first offset."""

    def was_awaited(self) -> bool:
        """Whether `await_topic` was called."""

    def pause(self, reason: str, by: str) -> None:
        """Stop the stream within a batch, until `resume`."""

    def resume(self) -> None:
        """Lift the pause. The next tick launches a run."""

    def allow_letters(self, count: int) -> None:
        """Set how many dead letters may be stored without counting towards the limit. 0 ends an earlier permission."""

    def note_tick(self) -> None:
        """Note that the sensor has ticked just now."""

    def note_waiting(self, waiting: Mapping[int, Sequence[float]]) -> None:
        """Note since when records wait.

        Args:
            waiting: partition → incarnation, next offset, and since when, in Unix seconds by the database's clock.
        """

    def note_failure(self, why: str, stops: bool) -> None:
        """Note that a run has failed just now.

        Args:
            why: one line, without a record's values.
            stops: another try cannot help.
        """

    def losses(self) -> list[Loss]:
        """Losses noted at the present positions and not accepted yet."""

    def note_loss(self, loss: Loss) -> None:
        """Note a loss. The first note of a position stays, because the log's bounds change later."""

    def forget_losses(self, partition: int | None = None) -> None:
        """Delete notes that were mistaken, of one partition or of all, with the leader epochs of their positions.

        With its old leader epoch, a reader would report a rewritten log again.
        """


class LedgerSession(Protocol):
    """Positions, rows and dead letters of one shard, written through one connection that also holds its locks."""

    positions: dict[int, Position]
    """Partition → position, for every partition owned; moves with each write."""

    def own(
        self,
        partitions: Collection[int],
        *,
        exact: bool,
        announce: str | None = None,
        wait_seconds: float = 0.0,
        stop: Callable[[], str | None] = lambda: None,
    ) -> dict[int, Holder]:
        """Take ownership of the partitions, write the run's id into them and read their positions.

        Args:
            exact: take all partitions or none. Otherwise take the free ones.
            announce: "wait" or "wait-now": how to tell the owners that this run waits.
            wait_seconds: how long to try. A frozen COPY of an owner may extend this.
            stop: a reason to stop trying.

        Returns:
            The owners of the partitions that were not taken. `positions` holds the taken ones.
        """

    def write(self, batch: Batch) -> CommitResult:
        """Store rows, dead letters and positions in one transaction, or nothing.

        On return it is committed and `positions` has moved.

        Raises:
            Superseded: the positions are not ours any more. Nothing was written.
            EnvironmentFault: not known whether it was written: call `recover`.
            StopStream: nothing was written.
        """

    def recover(self, batch: Batch | None) -> CommitResult | None:
        """Connect and own again after an EnvironmentFault. What was written, when `batch` turns out to be committed.

        Raises:
            Superseded: somebody else owns or has moved the positions.
            EnvironmentFault: still not reachable.
        """

    def heartbeat(self) -> OwnerRequests:
        """A sign of life to the server, and what others ask. Raises EnvironmentFault."""

    def accept(self, accepted: Sequence[Acceptance], identity: TopicIdentity, by: str) -> None:
        """Record gaps of owned partitions and move their positions over the gaps, all in one transaction.

        Raises:
            Superseded: a position has moved since the loss was examined.
        """

    def close(self) -> None:
        """End the session and release its locks. Never raises."""


class ReplayStore(Protocol):
    """Stores the missing rows of a batch in one transaction. A drain may go on beside it."""

    def store(self, batch: Batch) -> Replayed:
        """Store missing rows. A record with a dead letter is left out, unless the letter lacks part of the value:
        such a letter is redriven with its row. Counts `skipped` only for rows that a trigger dropped.

        Raises:
            EnvironmentFault, StopStream.
        """
