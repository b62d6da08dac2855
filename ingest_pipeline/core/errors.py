"""Every error this package raises on purpose.

    IngestError
    ├── SettingsError            the user's mistake in settings or in streams.py
    ├── RecordRefused            the fault of one record      → dead letter, other records go on
    │   └── RecordSkipped        nothing to store             → counted as skipped
    │       └── RecordDeleted    about a deleted row          → deletes a row where the stream has `deletes`
    ├── EnvironmentFault         no record is at fault        → retry within the run, then fail the run
    │   ├── DatabaseUnavailable
    │   │   └── TableBusy        the table is locked or slow
    │   ├── KafkaUnavailable
    │   └── SchemaRegistryUnavailable
    ├── Superseded               another run owns the partitions → the run stops writing and ends
    └── StopStream               retrying cannot help         → the run fails, the message says what to do
        ├── NotPermitted         a right or a credential is missing
        ├── SchemaMismatch       table or ledger is not as declared: `ingest migrate`
        ├── LedgerConflict       rows and ledger contradict each other
        ├── LedgerMissing        Kafka shows our mark, the database shows no position
        ├── AdoptionRefused      the group of ADOPT_GROUP has no usable offsets
        ├── DeadLetterLimit      too many of the last records were refused
        ├── DataLoss             Kafka no longer holds what the ledger expects next
        ├── TopicChanged         the ledger knows another topic or cluster
        ├── TopicMissing         the topic does not exist
        └── UnknownFault         an error that no error table lists

A message is one line: what happened, where, what to do. It never quotes a record's value, key or headers.
All errors can be pickled, with their attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from typing import Any


class IngestError(Exception):
    """Base of all errors. `stream`, `partition`, `offset`, `sqlstate` are None where unknown."""

    def __init__(self, message: str, **where: Any) -> None:
        super().__init__(message)
        self.message, self.where = message, where
        self.stream: str | None = where.get("stream")
        self.partition: int | None = where.get("partition")
        self.offset: int | None = where.get("offset")
        self.sqlstate: str | None = where.get("sqlstate")

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), self.message, **self.where), ()


class SettingsError(IngestError):
    """A setting or a stream declaration cannot be used. The message may have several lines."""


class RefusalStage(StrEnum):
    """Stage at which a record was refused, as stored with the dead letter."""

    SIZE = "size"
    DECODE = "decode"
    TIMESTAMP = "timestamp"
    VALUE = "value"
    INSERT = "insert"


class RecordRefused(IngestError):
    """One record cannot become a row. The message is the dead letter's reason and holds no value of the record. The
    stage is DECODE, unless another one is given."""

    @property
    def stage(self) -> RefusalStage:
        return RefusalStage(self.where.get("stage", RefusalStage.DECODE))

    @property
    def index(self) -> int | None:
        """Index of the record in the written list. None: neither driver nor server named a record."""
        return self.where.get("index")

    @property
    def without_partition(self) -> bool:
        return bool(self.where.get("without_partition"))

    def of_element(self, index: int, ordinal: int) -> RecordRefused:
        """The refusal of the record `index`, because of its row `ordinal`."""
        return RecordRefused(f"{self.message}, in the row of kafka_ordinal {ordinal}", **{**self.where, "index": index})

    def in_rows(self, indices: Sequence[int]) -> RecordRefused:
        """The same refusal with an index in a longer list. `indices`: of the written rows in that list."""
        index = self.index if self.index is not None and 0 <= self.index < len(indices) else None
        return RecordRefused(self.message, **{**self.where, "index": None if index is None else indices[index]})


class RecordSkipped(RecordRefused):
    """The record has nothing to store, such as the deletion of a row in a change event."""


class RecordDeleted(RecordSkipped):
    """The record is a change event about a deleted row."""


class EnvironmentFault(IngestError):
    """Something outside is unreachable, full, locked or shutting down. No record is at fault."""


class DatabaseUnavailable(EnvironmentFault):
    """PostgreSQL cannot be reached or cannot work now."""


class TableBusy(DatabaseUnavailable):
    """Another session locks the table, or a statement took too long. PostgreSQL rolled the transaction back."""


class KafkaUnavailable(EnvironmentFault):
    """Kafka cannot be reached or cannot answer now."""


class SchemaRegistryUnavailable(EnvironmentFault):
    """The schema registry cannot be reached or cannot answer now."""


class Superseded(IngestError):
    """Another run owns the partitions: a position did not move, or another session holds the lock."""


class StopStream(IngestError):
    """Retrying cannot help before somebody acts."""


class NotPermitted(StopStream):
    """A right or a credential is missing."""


class SchemaMismatch(StopStream):
    """The table or the ledger is not as declared."""


class LedgerConflict(StopStream):
    """The table holds a row that the ledger does not count yet."""


class LedgerMissing(StopStream):
    """The group's offsets in Kafka bear a ledger's mark, and this database has no position for the stream."""


class AdoptionRefused(StopStream):
    """The group of ADOPT_GROUP has no usable offsets."""


class DeadLetterLimit(StopStream):
    """Too many of the last records were refused. A wrong deployment is more likely than bad records."""


class DataLoss(StopStream):
    """Kafka no longer holds what the ledger expects next."""


class TopicChanged(StopStream):
    """Topic id, cluster id or partition count show that the ledger's positions belong to another topic."""


class TopicMissing(StopStream):
    """The topic does not exist."""


class UnknownFault(StopStream):
    """An error that no error table lists, or that retries do not mend. No record is blamed."""
