"""A partition in a stream's status: its position, owner and refused records."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class OpenLetters:
    """Open dead letters of a class: the refusing stage and, for letters of the database, the first two characters of
    the SQLSTATE."""

    stage: str
    sqlstate_class: str
    letters: int


@dataclass(frozen=True)
class PartitionStatus:
    """A partition's figures.

    Attributes:
        next_offset: None before the stream has begun.
        end: None: Kafka does not answer, or does not have the partition.
        lag: None: the end is not known, or belongs to another log than the position.
        owner, owner_since: the owning run, and the beginning of its session in PostgreSQL.
        refused, accounted: None where the ledger did not answer in time.
        newest_at: the Kafka timestamp of the newest row.
        rows_per_second: over the last minute, see postgres/table_reads.py. None: not asked for.
        delay: see lateness.delays.
    """

    partition: int
    next_offset: int | None
    end: int | None
    lag: int | None
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
    def owned(self) -> bool:
        return self.owner is not None

    @property
    def open_letters(self) -> int | None:
        return None if self.refused is None else sum(letters.letters for letters in self.refused)
