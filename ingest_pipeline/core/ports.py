"""What the core asks of the outside: a record source, a topic's facts, a ledger, a clock.

kafka/ and postgres/ fulfil these for real, testing/ in memory; one contract suite holds both to the same words.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from .record import Batch, Chunk, CommitResult, GroupOffset, NextOffset, OwnerRequests, Position, TopicIdentity


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


class LedgerSession(Protocol):
    """Positions, rows and dead letters of one shard, written through one connection that also holds its locks."""

    positions: dict[int, Position]
    """Partition → position, for every partition owned; moves with each write."""

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
