"""Ports to PostgreSQL.

postgres/ implements the ports, and testing/ implements them in memory. One contract suite tests both.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from .errors import IngestError
from .ledger import Account, HandoverRequest, Holder, LedgerSnapshot, LetterCount, Owners, Replayed, StreamState
from .loss import Acceptance, Loss
from .record import Batch, CommitResult, NextOffset, OwnerRequests, Position, StoredPosition, TopicIdentity


class Ledgers(Protocol):
    """The ledgers of several streams, read together.

    Every call raises DatabaseUnavailable when the database does not answer.
    """

    def prepare(self) -> None:
        """Create ledger and event tables where missing. Raises SchemaMismatch, and creates nothing then."""

    def snapshots(self) -> dict[str, LedgerSnapshot | IngestError]:
        """Stream → the facts for a sensor tick, or the error of this stream's ledger. Reads all in one transaction."""

    def accounting(self) -> dict[str, list[Account]]:
        """Stream → accounts, see Ledger."""

    def open_letters(self) -> dict[str, list[LetterCount]]:
        """Stream → open dead letters, see Ledger."""

    def note_ticks(self, streams: Collection[str]) -> None:
        """Note the time of a sensor tick for these streams."""

    def note_waiting(self, waiting: Mapping[str, Mapping[int, Sequence[float]]]) -> None:
        """Note since when records wait.

        Args:
            waiting: stream → partition → (incarnation, next offset, start of the wait in Unix seconds of the database's
                clock).
        """


class Ledger(Protocol):
    """One stream's part of the ledger, read and changed from outside a run.

    Every call raises DatabaseUnavailable when the database does not answer.
    """

    def prepare(self) -> None:
        """Create ledger and event table where missing. Raises SchemaMismatch."""

    def ledger_id(self) -> str: ...

    def snapshot(self) -> LedgerSnapshot:
        """The facts for a sensor tick. Empty without a ledger."""

    def positions(self) -> dict[int, StoredPosition]:
        """Partition → position. Empty before the stream has begun, and without a ledger."""

    def owners(self, partitions: Collection[int]) -> Owners:
        """Owners of the partitions, and the runs with a session."""

    def state(self) -> StreamState: ...

    def accounting(self) -> list[Account]:
        """Accounts of all present and past positions."""

    def row_count(self) -> int:
        """Stored rows, from the counters and the redriven dead letters. The table is not counted."""

    def open_letters(self) -> list[LetterCount]:
        """Open dead letters, counted by partition, stage and class of SQLSTATE."""

    def begin(
        self, identity: TopicIdentity, starts: Mapping[int, NextOffset], first: bool
    ) -> dict[int, StoredPosition]:
        """Store positions for the partitions in one transaction, and return all positions of the stream.

        With `first`, nothing is stored if another run has begun the stream meanwhile.
        """

    def adopt_identity(self, identity: TopicIdentity) -> None:
        """Fill in the topic's ids in positions without ids."""

    def await_topic(self) -> None:
        """Note that the topic does not exist yet. The stream will begin at the topic's first offset."""

    def pause(self, reason: str, by: str) -> None:
        """Stop the stream within a batch, until `resume`."""

    def resume(self) -> None:
        """Lift the pause. The next tick launches a run."""

    def allow_letters(self, count: int) -> None:
        """Allow `count` dead letters that do not count towards the limit. 0 ends an earlier permission."""

    def acknowledge_letters(self) -> None:
        """Note that an operator has seen the open dead letters."""

    def note_failure(self, why: str, stops: bool) -> None:
        """Note a run's failure: why, in one line without a record's values, and whether another try cannot help."""

    def losses(self) -> list[Loss]:
        """Noted losses at the current positions, without accepted losses."""

    def note_loss(self, loss: Loss) -> None:
        """Note a loss. A position's first note stays, because the log's bounds change later."""

    def forget_losses(self, partition: int | None = None) -> None:
        """Delete mistaken notes of a partition, or of all, and the leader epochs of the positions.

        With the old leader epoch, a reader would report a rewritten log again.
        """


class WritingConnection(Protocol):
    """The connection of a run that writes. The ledger sessions of all its streams share it."""

    def heartbeat(self) -> Mapping[str, OwnerRequests]:
        """Keep the session alive and read the requests to the owner: stream → requests. Raises EnvironmentFault."""

    def close(self) -> None:
        """End the session and release its locks. Never raises."""


class LedgerSession(Protocol):
    """Writes a stream's rows, dead letters and positions. The connection also holds the locks of the partitions."""

    positions: dict[int, Position]
    """Owned partition → position, updated by every write."""

    def own(self, partitions: Collection[int], *, exact: bool) -> dict[int, Holder]:
        """Try to take ownership of partitions, store the run's id as the owner and read the positions.

        Args:
            exact: take all partitions or none. Otherwise take free partitions.

        Returns:
            Owners of the partitions that were not taken. `positions` holds the taken partitions.
        """

    def announce(self, request: HandoverRequest, partitions: Collection[int]) -> None:
        """Show a request to the owners of the partitions, until `withdraw`."""

    def withdraw(self) -> None:
        """Take back the announced requests."""

    def end_frozen_owners(self, partitions: Collection[int]) -> bool:
        """End the sessions of frozen owners. Returns whether an owner needs a second look."""

    def release(self) -> None:
        """Give the partitions back. A lost connection has given them back already."""

    def write(self, batch: Batch) -> CommitResult:
        """Store rows, dead letters and positions in one transaction, or nothing.

        On return, the transaction is committed and `positions` is updated.

        Raises:
            Superseded: another run owns the positions. Nothing was written.
            TableBusy: nothing was written, and the connection is as before. Another try may help.
            EnvironmentFault: the outcome of the transaction is unknown. Call `recover`.
            StopStream: nothing was written.
        """

    def recover(self, batch: Batch | None) -> CommitResult | None:
        """Connect and own again after an EnvironmentFault. Returns the result if `batch` was committed after all.

        Raises:
            Superseded: another run owns or has moved the positions.
            EnvironmentFault: the database is still unreachable.
        """

    def accept(self, accepted: Sequence[Acceptance], identity: TopicIdentity, by: str) -> None:
        """Record gaps of owned partitions and move the positions over the gaps, in one transaction.

        Raises:
            Superseded: a position has moved since the loss was examined.
        """


class ReplayStore(Protocol):
    """Stores the missing rows of a batch in one transaction, beside a running drain."""

    def store(self, batch: Batch) -> Replayed:
        """Store missing rows. `skipped` counts only rows that a trigger dropped.

        A record with a dead letter is left out. If the letter lacks part of the value, the row is stored and the
        letter is marked as redriven.

        Raises:
            EnvironmentFault, StopStream.
        """
