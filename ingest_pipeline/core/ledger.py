"""Values of the ledger's ports: snapshot, owners, accounts, counts of a replay or redrive, and a filter of letters."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from .loss import Loss
from .record import StoredPosition


class HandoverRequest(StrEnum):
    """When a waiting run asks the owners to hand over."""

    AT_MAXIMUM_AGE = "wait"
    NOW = "wait-now"


class LetterStatus(StrEnum):
    """As stored in the ledger."""

    OPEN = "open"
    REDRIVEN = "redriven"
    DISCARDED = "discarded"


class RedriveOutcome(StrEnum):
    """Outcome of a retried dead letter, and a field of `Redriven`."""

    STORED = "stored"
    PRESENT = "present"
    REFUSED = "refused"
    TRUNCATED = "truncated"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class Holder:
    """The run that owns a partition.

    Attributes:
        frozen: PostgreSQL has waited too long for the run's client. None while a COPY is too young to tell.
        since: beginning of the run's session, or None if unknown.
    """

    run_id: str
    pid: int = 0
    frozen: bool | None = False
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Owners:
    """Owners and sessions at one moment.

    Attributes:
        holders: partition → owner. Free partitions are absent.
        present: ids of the runs with a session, with or without a partition.
    """

    holders: Mapping[int, Holder]
    present: Collection[str]


@dataclass(frozen=True, slots=True)
class StreamState:
    """The ledger's facts about a whole stream.

    Attributes:
        paused, reason, paused_by, since: whether the stream is paused, why, by whom and since when.
        letters_allowed: remaining dead letters that do not count towards the limit.
        acknowledged_at: when an operator last acknowledged the open dead letters.
        acted_at: when an operator last resumed the stream, allowed dead letters or accepted a loss.
        ticked_at: when the sensor last ticked, to the minute.
        awaited: the topic did not exist when a tick first looked for it.
        failed_at, failure, failure_stops: when a run last failed, why, and whether only an operator can help.
        waiting: as stored by `note_waiting`.
        now: the database's time, for comparison with the other times.
    """

    paused: bool = False
    reason: str | None = None
    paused_by: str | None = None
    since: datetime | None = None
    letters_allowed: int = 0
    acknowledged_at: datetime | None = None
    acted_at: datetime | None = None
    ticked_at: datetime | None = None
    awaited: bool = False
    failed_at: datetime | None = None
    failure: str | None = None
    failure_stops: bool | None = None
    waiting: Mapping[str, Any] | None = None
    now: datetime | None = None


@dataclass(frozen=True, slots=True)
class LedgerSnapshot:
    """A stream's ledger, read in one transaction. `owners` covers partitions with a position."""

    positions: dict[int, StoredPosition]
    state: StreamState
    losses: list[Loss]
    owners: Owners


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Counters of a partition's incarnation, and the stored dead letters and gaps to compare with."""

    partition: int
    incarnation: int
    first_offset: int
    next_offset: int
    rows: int
    dead_letters: int
    skipped: int
    absent: int
    lost: int
    letters_kept: int
    gaps_kept: int

    @property
    def unaccounted(self) -> int:
        """Number of offsets that no counter explains."""
        counted = self.rows + self.dead_letters + self.skipped + self.absent + self.lost
        return self.next_offset - self.first_offset - counted

    @property
    def accounted(self) -> bool:
        """Whether every offset, dead letter and lost offset adds up."""
        return (self.unaccounted, self.letters_kept, self.gaps_kept) == (0, self.dead_letters, self.lost)


@dataclass(frozen=True, slots=True)
class LetterCount:
    """Open dead letters of one partition and stage.

    Attributes:
        sqlstate_class: first two characters of the SQLSTATE. Empty where PostgreSQL did not refuse the record.
    """

    partition: int
    stage: str
    sqlstate_class: str
    letters: int


@dataclass(frozen=True, slots=True)
class Refusals:
    """The newest refused records of a stream.

    Attributes:
        newest_at: when the newest record with an open dead letter was refused. None without one.
        records, refused: the last records, stored or refused, and how many of them were refused. Letters that an
            operator allowed, acknowledged or settled do not count, and their records neither.
    """

    newest_at: datetime | None = None
    records: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class _Counts:
    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(self)))

    @property
    def total(self) -> int:
        return sum(getattr(self, item.name) for item in fields(self))


@dataclass(frozen=True, slots=True)
class Replayed(_Counts):
    """Numbers of offsets of a replayed range, by outcome.

    Attributes:
        stored: missing rows.
        present: rows already in the table. They stay unchanged.
        dead: records with a whole dead letter. A redrive can store them.
        refused: records without a dead letter that cannot become a row today.
        skipped: tombstones, and rows dropped by a trigger of the table.
        absent: offsets without a record in the log: transaction markers, compaction.
    """

    stored: int = 0
    present: int = 0
    dead: int = 0
    refused: int = 0
    skipped: int = 0
    absent: int = 0


@dataclass(frozen=True, slots=True)
class Redriven(_Counts):
    """Numbers of retried dead letters, by outcome.

    Attributes:
        stored: a row was written.
        present: the table already held the row. The letter counts as redriven.
        refused: the record failed again. The letter stays open.
        superseded: a newer record wrote or deleted the row of the key, so the letter is discarded.
        truncated: the letter lacks part of its value, so the record cannot be decoded. The letter stays open.
    """

    stored: int = 0
    present: int = 0
    refused: int = 0
    truncated: int = 0
    superseded: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """Selects open letters. A field with None does not restrict.

    Attributes:
        reason: a part of the reason's text.
        since, until: range of the refusal's time, without `until` itself.
    """

    stage: str | None = None
    sqlstate: str | None = None
    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    ids: list[int] | None = None
