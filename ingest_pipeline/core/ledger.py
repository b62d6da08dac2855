"""Values that cross the ledger's ports: a snapshot, owners, accounts, and what a replay or a redrive did."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from .loss import Loss
from .record import StoredPosition


@dataclass(frozen=True, slots=True)
class Holder:
    """The run that owns a partition.

    Attributes:
        frozen: PostgreSQL has waited too long for this run's client. None while a COPY is too young to tell.
        since: when the run's session began. None where unknown.
    """

    run_id: str
    pid: int = 0
    frozen: bool | None = False
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Owners:
    """Owners and sessions at one moment.

    Attributes:
        holders: partition → its owner. Free partitions are absent.
        present: ids of the runs that have a session, with or without a partition.
    """

    holders: Mapping[int, Holder]
    present: Collection[str]


@dataclass(frozen=True, slots=True)
class StreamState:
    """The ledger's facts about a whole stream.

    Attributes:
        paused, reason, paused_by, since: whether the stream is paused, why, by whom and since when.
        letters_allowed: dead letters that may still be stored without counting towards the limit.
        acted_at: when an operator last resumed the stream, allowed dead letters or accepted a loss.
        ticked_at: when the sensor last ticked, to the minute.
        failed_at, failure, failure_stops: when a run last failed, why, and whether only an operator can help.
        waiting: what `note_waiting` stored.
        now: the database's time, to compare the other times with.
    """

    paused: bool = False
    reason: str | None = None
    paused_by: str | None = None
    since: datetime | None = None
    letters_allowed: int = 0
    acted_at: datetime | None = None
    ticked_at: datetime | None = None
    failed_at: datetime | None = None
    failure: str | None = None
    failure_stops: bool | None = None
    waiting: Mapping[str, Any] | None = None
    now: datetime | None = None


@dataclass(frozen=True, slots=True)
class LedgerSnapshot:
    """A stream's ledger, read in one transaction. `owners` covers the partitions that have a position."""

    positions: dict[int, StoredPosition]
    state: StreamState
    losses: list[Loss]
    owners: Owners


@dataclass(frozen=True, slots=True)
class Account:
    """The counters of one partition's incarnation beside the dead letters and gaps that the ledger keeps of it."""

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
        """Offsets that no counter explains."""
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
class Replayed:
    """Offsets of a replayed range, counted by what became of them.

    Attributes:
        stored: rows that were missing.
        present: rows that were there already. They stay as they are.
        dead: records with a dead letter, which a redrive can store. A letter without its whole value is tried here.
        refused: records that cannot become a row today and have no dead letter.
        skipped: tombstones, and rows that a trigger of the table dropped.
        absent: offsets that the log does not hold: transaction markers, compaction.
    """

    stored: int = 0
    present: int = 0
    dead: int = 0
    refused: int = 0
    skipped: int = 0
    absent: int = 0

    def __add__(self, other: Replayed) -> Replayed:
        return Replayed(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(Replayed)))

    @property
    def offsets(self) -> int:
        return sum(getattr(self, item.name) for item in fields(self))


@dataclass(frozen=True, slots=True)
class Redriven:
    """Dead letters that were tried again, counted by what became of them.

    Attributes:
        stored: a row was written.
        present: the row was there already. The letter counts as redriven.
        refused: the record failed again. The letter stays open.
        truncated: the letter lacks part of its value, so the record cannot be decoded. The letter stays open.
    """

    stored: int = 0
    present: int = 0
    refused: int = 0
    truncated: int = 0

    def __add__(self, other: Redriven) -> Redriven:
        return Redriven(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(Redriven)))

    @property
    def tried(self) -> int:
        return sum(getattr(self, item.name) for item in fields(self))
