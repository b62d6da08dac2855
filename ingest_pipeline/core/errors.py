"""Every error this package raises on purpose.

    IngestError
    ├── SettingsError            the user's mistake in settings or in streams.py
    ├── RecordRefused            one record's own fault       → dead letter, its neighbours go on
    ├── EnvironmentFault         nobody's record is at fault  → retry within the run, then fail the run
    │   ├── DatabaseUnavailable
    │   └── KafkaUnavailable
    ├── Superseded               another run owns the partitions → this run writes nothing more and ends
    └── StopStream               retrying cannot help         → the run fails, its message says what to do
        ├── NotPermitted         a right or a credential is missing
        ├── SchemaMismatch       table or ledger is not as declared: `ingest migrate`
        ├── LedgerConflict       rows and ledger contradict each other
        ├── LedgerMissing        Kafka shows our mark, the database shows no position
        ├── AdoptionRefused      the group of ADOPT_GROUP has no offsets that a stream could begin at
        ├── DeadLetterLimit      too many records in too short a time were refused
        ├── DataLoss             Kafka no longer holds what the ledger expects next
        ├── TopicChanged         topic or cluster is not the one the ledger knows
        ├── TopicMissing         the topic does not exist
        └── UnknownFault         an error that no table of ours knows

A message is one line: what happened, where, what to do. It never quotes a record's value, key or headers.
All of them can be pickled, with their attributes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class IngestError(Exception):
    """Base of all. `stream`, `partition`, `offset`, `sqlstate` are set where they are known.

    Args:
        message: one line without values of a record.
        where: attributes to keep, from the names above.
    """

    def __init__(self, message: str, **where: Any) -> None:
        super().__init__(message)
        self.message = message
        self.where = where

    @property
    def stream(self) -> str | None:
        return self.where.get("stream")

    @property
    def partition(self) -> int | None:
        return self.where.get("partition")

    @property
    def offset(self) -> int | None:
        return self.where.get("offset")

    @property
    def sqlstate(self) -> str | None:
        return self.where.get("sqlstate")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.where)


def _rebuild(cls: type[IngestError], message: str, where: dict[str, Any]) -> IngestError:
    return cls(message, **where)


class SettingsError(IngestError):
    """A setting or a stream declaration that cannot be used. The message may have a line for each."""


class RefusalStage(StrEnum):
    """Where a record was refused, as stored with its dead letter."""

    SIZE = "size"
    DECODE = "decode"
    TIMESTAMP = "timestamp"
    VALUE = "value"
    INSERT = "insert"


class RecordRefused(IngestError):
    """One record cannot become a row. The message is the dead letter's reason and holds no value of the record."""

    @property
    def stage(self) -> RefusalStage:
        return RefusalStage(self.where.get("stage", RefusalStage.INSERT))

    @property
    def index(self) -> int | None:
        """Index of the record in the list that was written. None: neither driver nor server named it."""
        return self.where.get("index")


class EnvironmentFault(IngestError):
    """Something outside is unreachable, full, locked or shutting down. No record is at fault."""


class DatabaseUnavailable(EnvironmentFault):
    """PostgreSQL cannot be reached or cannot work now."""


class KafkaUnavailable(EnvironmentFault):
    """Kafka cannot be reached or cannot answer now."""


class Superseded(IngestError):
    """The partitions belong to another run: a position did not move, or the lock is another's."""


class StopStream(IngestError):
    """Retrying cannot help: somebody has to act first."""


class NotPermitted(StopStream):
    """A right or a credential is missing."""


class SchemaMismatch(StopStream):
    """The table or the ledger is not as declared."""


class LedgerConflict(StopStream):
    """A row stands where the ledger says nothing was written yet."""


class LedgerMissing(StopStream):
    """The group's offsets in Kafka bear a ledger's mark, and this database has no position for the stream."""


class AdoptionRefused(StopStream):
    """The group that ADOPT_GROUP names has no offsets that a stream could begin at."""


class DeadLetterLimit(StopStream):
    """Too many of the last records were refused: rather a wrong deployment than bad records."""


class DataLoss(StopStream):
    """Kafka no longer holds what the ledger expects next."""


class TopicChanged(StopStream):
    """Topic id, cluster id or partition count say that this is not the topic whose positions the ledger holds."""


class TopicMissing(StopStream):
    """The topic does not exist."""


class UnknownFault(StopStream):
    """An error that no table of ours knows, or that no repetition mends. No record is blamed for it."""
