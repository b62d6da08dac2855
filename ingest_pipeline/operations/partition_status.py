"""One partition of a stream's status: its positions, its owner, and the records that were refused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class OpenLetters:
    """How many dead letters of one class are open. The class is the stage that refused them and, for those that the
    database refused, the first two characters of the SQLSTATE."""

    stage: str
    sqlstate_class: str
    letters: int


@dataclass(frozen=True)
class PartitionStatus:
    """One partition.

    Attributes:
        next_offset: None before the stream has begun.
        end: None when Kafka does not answer, or has no such partition.
        owner, owner_since: the run that owns it, and when its session in PostgreSQL began.
        refused, accounted: None where the ledger did not answer in time.
        newest_at: the Kafka timestamp of the newest row.
        rows_per_second: over the last minute, see postgres/table_reads.py. None: not asked for.
        delay: seconds for which the next record has waited while the position did not move, see lateness.py. It is 0
            without lag. None: not known.
    """

    partition: int
    next_offset: int | None
    end: int | None
    rows: int = 0
    dead_letters: int = 0
    skipped: int = 0
    absent: int = 0
    lost: int = 0
    refused: tuple[OpenLetters, ...] | None = ()
    accounted: bool | None = True
    owner: str | None = None
    owner_since: datetime | None = None
    committed_at: datetime | None = None
    newest_at: datetime | None = None
    rows_per_second: float | None = None
    delay: float | None = None

    @property
    def open_letters(self) -> int | None:
        return None if self.refused is None else sum(letters.letters for letters in self.refused)

    @property
    def lag(self) -> int | None:
        return None if self.end is None else max(0, self.end - (self.next_offset or 0))
