"""Records, offsets, positions and batches, as the drain loop passes them around.

The hot loop copies no record: the Kafka client's own messages and the in-memory broker's satisfy `Message`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import Any, NamedTuple, Protocol, Self

from .errors import IngestError

EventRow = tuple[Any, ...]
"""(kafka_incarnation, kafka_partition, kafka_offset, kafka_timestamp, *the event's fields in declared order)."""
INCARNATION, PARTITION, OFFSET, STAMP = 0, 1, 2, 3
"""Indices in an EventRow. STAMP is kafka_timestamp: microseconds since 2000-01-01, PostgreSQL's epoch, or None."""
coordinates_of: Callable[[EventRow], tuple[int, int, int]] = itemgetter(INCARNATION, PARTITION, OFFSET)
PG_EPOCH_MS = 946_684_800_000
MIN_MS, MAX_MS = -62_135_596_800_000, 253_402_300_799_999
"""Unix milliseconds of years 1 to 9999. PostgreSQL stores the range and Python reads the range back."""

NO_TIMESTAMP_MS = -1
"""Kafka's value for a record without a time from its producer. The client returns it like a real timestamp."""

DeletedRow = Callable[[bytes | None], tuple[Any, ...]]
"""A record's key → the event's columns of a Deletion. Raises RecordRefused and EnvironmentFault."""
ValuesOf = Callable[[bytes | None], tuple[Any, ...] | None]
"""A record's key → the values that the key names, or None. Raises EnvironmentFault."""


class Deletion(tuple[Any, ...]):
    """Deletes the table's row of its key. The key's columns are filled, those of the other fields null."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class RecordKeys:
    """The record keys of a stream with `deletes`.

    Attributes:
        deleted_row: makes the columns of a Deletion.
        values: compares keys. Two keys may name the same values by other bytes.
    """

    deleted_row: DeletedRow
    values: ValuesOf


class Message(Protocol):
    """One Kafka record of the client. `len` counts the value's bytes, 0 without a value."""

    def __len__(self) -> int: ...
    def value(self) -> bytes | None: ...
    def key(self) -> bytes | None: ...
    def headers(self) -> list[tuple[str, bytes | None]] | None: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def leader_epoch(self) -> int | None: ...
    def timestamp(self) -> tuple[int, int]: ...


class _NextOffset(NamedTuple):
    next_offset: int
    leader_epoch: int | None = None


class NextOffset(_NextOffset):
    """The next offset to read, and the leader epoch under which the client learned the offset. None: unknown.

    A Kafka client without an answer returns a negative number (-1001, -1, -2). The constructor raises ValueError for
    negative numbers.
    """

    __slots__ = ()

    def __new__(cls, next_offset: int, leader_epoch: int | None = None) -> Self:
        if next_offset < 0 or (leader_epoch is not None and leader_epoch < 0):
            raise ValueError(f"offset {next_offset} with leader epoch {leader_epoch} is no position in a log")
        return super().__new__(cls, next_offset, leader_epoch)


def next_offset_or_none(offset: int | None, leader_epoch: int | None) -> NextOffset | None:
    """A Kafka client's answer as a NextOffset. None: the client has no answer. A negative epoch means unknown."""
    if offset is None or offset < 0:
        return None
    return NextOffset(offset, None if leader_epoch is None or leader_epoch < 0 else leader_epoch)


def next_offset_after(message: Message) -> NextOffset:
    epoch = message.leader_epoch()
    return NextOffset(message.offset() + 1, None if epoch is None or epoch < 0 else epoch)


@dataclass(frozen=True, slots=True)
class Chunk:
    """One topic's part of a read.

    Attributes:
        messages: records, per partition in log order.
        ends: partition → end, for partitions that were read to the end, behind `messages`. An end lies beyond last
            offset + 1 if the log ends in transaction markers or was compacted.
        error: why the topic is not read any further, behind `messages`.
    """

    messages: Sequence[Message] = ()
    ends: Mapping[int, NextOffset] = field(default_factory=dict)
    error: IngestError | None = None


@dataclass(frozen=True, slots=True)
class TopicIdentity:
    """Ids that differ between topics of the same name. None: a broker before Kafka 2.8 has no ids."""

    cluster_id: str | None
    topic_id: str | None
    partitions: int


LEDGER_MARK = "ingest-ledger:"
"""Our group commits carry this mark and the ledger's id as metadata. A foreign consumer's commits do not."""


@dataclass(frozen=True, slots=True)
class GroupOffset:
    """A consumer group's committed offset of one partition, with the committer's metadata."""

    next_offset: int
    metadata: str

    @property
    def ledger_id(self) -> str | None:
        """Id of the ledger that the offset was committed for. None for a foreign consumer's offset."""
        return self.metadata.removeprefix(LEDGER_MARK) if self.metadata.startswith(LEDGER_MARK) else None


@dataclass(frozen=True, slots=True)
class Position:
    partition: int
    incarnation: int
    resume_at: NextOffset


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPosition:
    """A partition's row in the ledger. `updated_at` is when a batch last advanced the position."""

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
    """A record that cannot become a row, with everything needed to try again."""

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
    """A partition's step within a batch, from `expected` to `resume_at.next_offset`. `skipped` counts tombstones."""

    incarnation: int
    expected: int
    resume_at: NextOffset
    skipped: int = 0


@dataclass(slots=True)
class Batch:
    """Everything that a transaction writes.

    `rows[i]` came from `messages[i]`, both in log order per partition. A batch without rows still moves positions.
    `rows_before[i]` rows came before `dead_letters[i]`.

    Attributes:
        headers: of `messages`, if they have been read.
        put_aside: i → dead letter of `messages[i]`, kept for a retry of the batch, because the headers of a message
            can be read only once (core/dead_letters.py).
    """

    rows: list[EventRow]
    messages: list[Message]
    dead_letters: list[DeadLetter]
    advances: dict[int, Advance]
    _: KW_ONLY
    records: int = 0
    rows_before: list[int] = field(default_factory=list)
    headers: Sequence[list[list[str | None]] | None] = ()
    record_keys: RecordKeys | None = None
    put_aside: dict[int, DeadLetter] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OwnerRequests:
    """Requests to the run that owns the partitions, at one moment.

    Attributes:
        paused: the reason and the person, in words, when the stream is paused.
        successor_waits: another run waits to take over after this run's maximum age.
        yield_now: end now, because the waiting run has other code or another number of shards.
    """

    paused: str | None = None
    successor_waits: bool = False
    yield_now: bool = False


@dataclass(frozen=True, slots=True)
class CommitResult:
    """Counts of a committed transaction by partition, and the requests to the owner.

    Attributes:
        dropped: rows that a trigger of the table dropped, and rows of a keyed stream that are older than the table's
            or ignored. The ledger counts them as skipped.
    """

    rows: Mapping[int, int]
    dead_letters: Mapping[int, int]
    _: KW_ONLY
    reasons: Sequence[str] = ()
    requests: OwnerRequests | None = None
    dropped: Mapping[int, int] = field(default_factory=dict)
