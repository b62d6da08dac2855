"""Ports to Kafka and the clock.

kafka/ implements the ports, and testing/ implements them in memory. One contract suite tests both.
"""

from collections.abc import Collection, Mapping
from typing import Protocol

from .errors import IngestError
from .record import Chunk, GroupOffset, NextOffset, TopicIdentity


class Clock(Protocol):
    """Seconds. `monotonic` measures durations, `time` gives timestamps for people."""

    def monotonic(self) -> float: ...
    def time(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...


class Source(Protocol):
    """Reads records of one or more topics from the ledger's offsets. Never resets an offset."""

    def assign(self, topic: str, offsets: Mapping[int, NextOffset]) -> None:
        """Read the topic from `offsets`, and go on with all other topics. Without offsets, stop reading the topic.

        Drops an earlier assignment of the topic and its fetched records.
        """

    def read(self, max_records: int, timeout_seconds: float) -> Mapping[str, Chunk]:
        """Topic → chunk. Returns `max_records` records in all, or fewer after the time-out.

        An end of partition is returned once. A topic whose chunk has an error, such as DataLoss, is not read before the
        next `assign`.

        Raises:
            KafkaUnavailable, NotPermitted, StopStream: no topic can be read.
        """

    def acknowledge(self, topic: str, offsets: Mapping[int, NextOffset]) -> None:
        """Commit the group's offsets with the ledger's mark, without waiting. A failure is only logged."""

    def earlier_commits(self, topic: str) -> Mapping[int, int]:
        """Partition → the group's offset with the ledger's mark before this source's first commit for the topic. Empty
        until then, and without an answer."""

    def close(self) -> None:
        """Release everything. The last acknowledged offsets are committed if the broker answers within 2 s."""


class Topic(Protocol):
    """Answers about a topic. Reads no record. Every call raises KafkaUnavailable without an answer in time.

    Answers about offsets leave out partitions whose leader did not answer, and may be empty. Callers leave the missing
    partitions out of lag, losses and decisions, and ask again later. KafkaUnavailable means that no broker answered.
    """

    name: str

    def identity(self) -> TopicIdentity:
        """Raises TopicMissing."""

    def end_offsets(self, partitions: Collection[int]) -> dict[int, NextOffset]:
        """Ends for a read_committed reader, by a single request for all partitions.

        Raises:
            TopicMissing: the topic or a partition does not exist.
        """

    def high_watermarks(self, partitions: Collection[int]) -> dict[int, NextOffset]:
        """Ends of the log. Includes records of open transactions, which a read_committed reader does not get."""

    def start_offsets(self, partitions: Collection[int]) -> dict[int, NextOffset]:
        """First offsets of the log (low watermarks)."""

    def offsets_at(self, partitions: Collection[int], timestamp_ms: int) -> dict[int, NextOffset]:
        """First offsets at or after a time. Without such a record, the end.

        The end is read first, so a record arriving meanwhile is never skipped.
        """

    def group_offsets(self, group: str) -> dict[int, GroupOffset]:
        """The group's committed offsets for the topic, without uncommitted partitions."""


class Topics(Protocol):
    """Answers about many topics at once, by as few requests as about one topic.

    Every call raises KafkaUnavailable when no broker answers in time.
    """

    def identities(self, topics: Collection[str]) -> Mapping[str, TopicIdentity | IngestError]:
        """Topic → identity, or the topic's own error, such as TopicMissing. Raises no error of a single topic."""

    def end_offsets(self, partitions: Mapping[str, Collection[int]]) -> dict[str, dict[int, NextOffset]]:
        """Topic → partition → end for a read_committed reader.

        Leaves out partitions that do not exist or whose leader does not answer. Every topic has an entry.
        """

    def high_watermarks(self, partitions: Mapping[str, Collection[int]]) -> dict[str, dict[int, NextOffset]]:
        """Topic → partition → end of the log, see Topic. Leaves out partitions as `end_offsets` does."""

    def start_offsets(self, partitions: Mapping[str, Collection[int]]) -> dict[str, dict[int, NextOffset]]:
        """Topic → partition → first offset of the log. Leaves out partitions as `end_offsets` does."""
