"""What the loop passes around. Offsets are next offsets: "+1" is written once, here.

A message is whatever the Kafka client hands out, used through the `Message` protocol so that the hot loop copies
nothing; `confluent_kafka.Message` and the in-memory broker's message both satisfy it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol, Self

Row = tuple[Any, ...]
"""(kafka_incarnation, kafka_partition, kafka_offset, kafka_timestamp, *the event's fields in declared order)."""
STAMP = 3
"""kafka_timestamp's place in a Row: microseconds since 2000-01-01, PostgreSQL's timestamp zero; or None."""
PG_EPOCH_MS = 946_684_800_000
MIN_MS, MAX_MS = -62_135_596_800_000, 253_402_300_799_999
"""Unix milliseconds of years 1 to 9999: what PostgreSQL stores and Python reads back."""

NO_TIMESTAMP_MS = -1
"""What Kafka keeps for a record whose producer gave no time; the client hands it out as if it were one."""


class Message(Protocol):
    """One Kafka record as the client hands it out. Its length is the value's, in bytes; 0 without a value."""

    def __len__(self) -> int: ...
    def value(self) -> bytes | None: ...
    def key(self) -> bytes | None: ...
    def headers(self) -> list[tuple[str, bytes | None]] | None: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def leader_epoch(self) -> int | None: ...
    def timestamp(self) -> tuple[int, int]: ...


class _Place(NamedTuple):
    next_offset: int
    leader_epoch: int | None = None


class NextOffset(_Place):
    """Where reading goes on: the next offset, and the leader epoch it was learned under (None: not known).

    A Kafka client uses negative numbers where it has no answer (-1001, -1, -2). None of them can become a place:
    the constructor raises ValueError.
    """

    __slots__ = ()

    def __new__(cls, next_offset: int, leader_epoch: int | None = None) -> Self:
        if next_offset < 0 or (leader_epoch is not None and leader_epoch < 0):
            raise ValueError(f"offset {next_offset} with leader epoch {leader_epoch} is no place in a log")
        return super().__new__(cls, next_offset, leader_epoch)


def next_offset_or_none(offset: int | None, leader_epoch: int | None) -> NextOffset | None:
    """What a Kafka client answered, as a place. None: the client has no answer. A negative epoch is not known."""
    if offset is None or offset < 0:
        return None
    return NextOffset(offset, None if leader_epoch is None or leader_epoch < 0 else leader_epoch)


def next_offset_after(message: Message) -> NextOffset:
    """The place behind a record."""
    epoch = message.leader_epoch()
    return NextOffset(message.offset() + 1, None if epoch is None or epoch < 0 else epoch)


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one read returned.

    Attributes:
        messages: records in the order of each partition's log.
        ends: partition → place of an end of partition that was served behind all of that partition's `messages`;
            it lies beyond last offset + 1 where the log ends in transaction markers or was compacted.
    """

    messages: Sequence[Message] = ()
    ends: Mapping[int, NextOffset] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicIdentity:
    """What tells a topic from another of the same name. None: the broker cannot tell (before Kafka 2.8)."""

    cluster_id: str | None
    topic_id: str | None
    partitions: int


LEDGER_MARK = "ingest-ledger:"
"""The metadata of our group commits: this and the ledger's id. It tells them from a foreign consumer's commits."""


@dataclass(frozen=True, slots=True)
class GroupOffset:
    """A consumer group's committed offset of one partition, with the metadata its writer left."""

    next_offset: int
    metadata: str

    @property
    def ledger_id(self) -> str | None:
        """The ledger whose position this offset follows. None for a foreign consumer's offset."""
        return self.metadata.removeprefix(LEDGER_MARK) if self.metadata.startswith(LEDGER_MARK) else None


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run stands in a partition that it owns."""

    partition: int
    incarnation: int
    resume_at: NextOffset


@dataclass(frozen=True, slots=True)
class StoredPosition:
    """One partition's whole row in the ledger. `updated_at`: when a batch last moved the position."""

    partition: int
    incarnation: int
    topic: str
    cluster_id: str | None
    topic_id: str | None
    first_offset: int
    next_offset: int
    leader_epoch: int | None
    rows: int
    dead_letters: int
    skipped: int
    absent: int
    lost: int
    updated_at: datetime
    run_id: str | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record that cannot become a row, with everything needed to try again."""

    partition: int
    offset: int
    incarnation: int
    timestamp_ms: int | None
    key: bytes | None
    value: bytes | None
    value_bytes: int
    value_sha256: bytes
    truncated: bool
    headers: list[list[str | None]] | None
    stage: str
    reason: str
    sqlstate: str | None = None


@dataclass(frozen=True, slots=True)
class Advance:
    """One partition's step in one batch: from `expected` to `resume_at.next_offset`. `skipped` counts tombstones."""

    incarnation: int
    expected: int
    resume_at: NextOffset
    skipped: int = 0


@dataclass(slots=True)
class Batch:
    """Everything one transaction writes.

    `rows[i]` came from `messages[i]`; both are in log order per partition. A batch without rows still moves positions.
    `rows_before[i]` rows came before `dead_letters[i]`.

    Attributes:
        put_aside: i → the dead letter that was made of `messages[i]`, for the batch's next try: the headers of a
            message can be asked for only once (core/dead_letters.py).
    """

    rows: list[Row]
    messages: list[Message]
    dead_letters: list[DeadLetter]
    advances: dict[int, Advance]
    records: int = 0
    rows_before: list[int] = field(default_factory=list)
    put_aside: dict[int, DeadLetter] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CommitResult:
    """What one committed transaction held, by partition, and what others ask of the owner.

    Attributes:
        dropped: rows that a trigger of the table dropped. The ledger counts them as skipped.
    """

    rows: Mapping[int, int]
    dead_letters: Mapping[int, int]
    reasons: Sequence[str] = ()
    requests: OwnerRequests | None = None
    dropped: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OwnerRequests:
    """What others ask of whoever drains, as seen at one moment.

    Attributes:
        paused: the reason and who, in words, when the stream is paused.
        successor_waits: a run waits to take over once this one is past its age.
        yield_now: a run waits that must not wait for this one's age (other code, other number of shards).
    """

    paused: str | None = None
    successor_waits: bool = False
    yield_now: bool = False
