"""One stream on the in-memory ledger and on PostgreSQL, written by COPY and by executemany."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from ingest_pipeline.core.choices import NaiveTimestamps
from ingest_pipeline.core.ledger import LetterFilter, Redriven
from ingest_pipeline.core.ledger_ports import ReplayStore
from ingest_pipeline.core.record import Batch, CommitResult, EventRow
from ingest_pipeline.core.rows import RecordRules
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.operations.decoders import decoder_of
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.dead_letters import DeadLetters
from ingest_pipeline.postgres.ledger import PostgresLedger
from ingest_pipeline.postgres.replay import MissingRows
from ingest_pipeline.postgres.session import PostgresLedgerSession
from ingest_pipeline.postgres.writing_connection import PostgresWritingConnection
from ingest_pipeline.schema_registry.registry import SchemaRegistry
from ingest_pipeline.settings.database_url import sqlalchemy_url
from ingest_pipeline.testing import (
    MemoryDatabase,
    MemoryDeadLetters,
    MemoryLedger,
    MemoryLedgerSession,
    MemoryMissingRows,
    MemoryWritingConnection,
)
from ingest_pipeline_tests.contract.ledger_worlds import begin
from ingest_pipeline_tests.samples import keys_of, make_batch, message


class StreamWorld:
    """A run that owns partitions of the stream, from offset 0.

    Args:
        kind: of WORLDS.
        create: SQL that makes the table before the ledger.
    """

    ledger: Any
    letters: Any

    def __init__(
        self, kind: str, url: str, stream: Stream, *, create: str = "", partitions: Sequence[int] = (0,)
    ) -> None:
        self.kind, self.stream = kind, stream
        self.decode = decoder_of(stream, NaiveTimestamps.UTC, lambda: SchemaRegistry({})).decode
        if self.in_memory:
            self.memory = MemoryDatabase()
            self.table = self.memory.table(stream.name)
            self.ledger, self.letters = MemoryLedger(self.memory, stream), MemoryDeadLetters(self.memory, stream)
        else:
            self.connection = psycopg.connect(url, autocommit=True)
            self.sql(f"SET timezone TO 'UTC'; {create}")
            self.database = Database(sqlalchemy_url(url))
            self.ledger, self.letters = PostgresLedger(self.database, stream), DeadLetters(self.database, stream)
            self.ledger.prepare()
        begin(self.ledger, *partitions)
        session: Any
        if self.in_memory:
            session = MemoryLedgerSession(MemoryWritingConnection(self.memory, "run"), stream)
        else:
            connection = PostgresWritingConnection(self.database, "run")
            session = PostgresLedgerSession(connection, stream, write_method=kind)
        assert session.own(partitions, exact=True) == {}
        self.session = session

    @property
    def in_memory(self) -> bool:
        return self.kind == "memory"

    @property
    def missing(self) -> ReplayStore:
        if self.in_memory:
            return MemoryMissingRows(self.memory, self.stream)
        return MissingRows(self.database, self.stream)

    def sql(self, statement: str, *values: Any) -> list[Any]:
        cursor = self.connection.execute(statement, values or None)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []

    def check(self, constraint: str, condition: str, holds: Callable[[EventRow], bool]) -> None:
        """Refuse rows as a CHECK constraint of this SQL does."""
        if self.in_memory:
            self.memory.check(self.stream.name, constraint, holds)
        else:
            self.sql(f"ALTER TABLE {self.stream.table} ADD CONSTRAINT {constraint} CHECK ({condition})")

    def drop_check(self, constraint: str) -> None:
        if self.in_memory:
            del self.table.checks[constraint]
        else:
            self.sql(f"ALTER TABLE {self.stream.table} DROP CONSTRAINT {constraint}")

    def batch(self, *values: bytes) -> Batch:
        """The next records of partition 0."""
        start = self.session.positions[0].resume_at.next_offset
        records: list[Any] = [message(0, start + n, value) for n, value in enumerate(values)]
        return make_batch(self.session.positions, records, stream=self.stream, decode=self.decode)

    def write(self, *values: Any) -> CommitResult:
        result: CommitResult = self.session.write(self.batch(*values))
        return result

    def redrive(self) -> Redriven:
        rules = RecordRules(record_columns=self.stream.record_columns, record_keys=keys_of(self.stream))
        redriven: Redriven = self.letters.redrive(LetterFilter(), self.decode, rules)
        return redriven

    def refused(self) -> list[tuple[int, str, str]]:
        """(offset, stage, reason) of every open letter."""
        if self.in_memory:
            letters = sorted(self.letters.open().items())
            return [(offset, letter.stage, letter.reason) for (_, _, offset), letter in letters]
        return [(row.kafka_offset, row.stage, row.reason) for row in self.letters.page(LetterFilter())]

    def close(self) -> None:
        self.session.connection.close()
        if not self.in_memory:
            self.database.dispose()
            self.connection.close()


@contextmanager
def stream_world(request: pytest.FixtureRequest, stream: Stream, create: str = "") -> Iterator[StreamWorld]:
    """The world of a fixture's parameter."""
    url = "" if request.param == "memory" else request.getfixturevalue("database_url")
    world = StreamWorld(request.param, url, stream, create=create)
    yield world
    world.close()
