"""One stream on the in-memory ledger and on PostgreSQL, written by COPY and by executemany."""

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import psycopg
import pytest

from ingest_pipeline.core.choices import NaiveTimestamps
from ingest_pipeline.core.dead_letter_limit import LetterLimits
from ingest_pipeline.core.ledger import LetterFilter, Redriven, Replayed
from ingest_pipeline.core.ledger_ports import ReplayStore
from ingest_pipeline.core.record import Batch, CommitResult, EventRow, NextOffset, Position
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
    Fault,
    MemoryDatabase,
    MemoryDeadLetters,
    MemoryLedger,
    MemoryLedgerSession,
    MemoryMissingRows,
    MemoryWritingConnection,
)
from ingest_pipeline_tests.samples import IDENTITY, keys_of, make_batch, message
from ingest_pipeline_tests.waiting import wait_for

WORLDS = ["memory", "copy", "executemany"]
"""The in-memory ledger, and PostgreSQL written by COPY and by executemany."""


class StreamWorld:
    """A stream that begins at offset 0 of its partitions.

    Args:
        kind: of WORLDS.
        create: SQL that makes the table before the ledger.
    """

    limits: LetterLimits | None = None

    def __init__(
        self, kind: str, url: str, stream: Stream, *, create: str = "", partitions: Sequence[int] = (0,)
    ) -> None:
        self.kind, self.url, self.partitions = kind, url, partitions
        self._sessions: list[Any] = []
        if self.in_memory:
            self.memory = MemoryDatabase()
            self.table = self.memory.table(stream.name)
        else:
            self.connection = psycopg.connect(url, autocommit=True)
            self.sql(f"SET timezone TO 'UTC'; {create}")
            self.database = Database(sqlalchemy_url(url))
        self.use(stream)
        self.ledger = self.ledger_of(stream)
        self.ledger.prepare()
        begin(self.ledger, *partitions)

    def use(self, stream: Stream) -> None:
        """Redrive and replay as this declaration says. The run goes on with the earlier one."""
        self.stream = stream
        self.decode = decoder_of(stream, NaiveTimestamps.UTC, lambda: SchemaRegistry({})).decode

    @property
    def in_memory(self) -> bool:
        return self.kind == "memory"

    @property
    def dead_letters(self) -> Any:
        if self.in_memory:
            return MemoryDeadLetters(self.memory, self.stream)
        return DeadLetters(self.database, self.stream)

    @property
    def missing(self) -> ReplayStore:
        if self.in_memory:
            return MemoryMissingRows(self.memory, self.stream)
        return MissingRows(self.database, self.stream)

    def ledger_of(self, stream: Stream) -> Any:
        return MemoryLedger(self.memory, stream) if self.in_memory else PostgresLedger(self.database, stream)

    def sql(self, statement: str, *values: Any) -> list[Any]:
        cursor = self.connection.execute(statement, values or None)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []

    def new_session(self, run_id: str) -> Any:
        session: Any
        if self.in_memory:
            session = MemoryLedgerSession(MemoryWritingConnection(self.memory, run_id), self.stream, limits=self.limits)
        else:
            connection = PostgresWritingConnection(self.database, run_id)
            session = PostgresLedgerSession(connection, self.stream, write_method=self.kind, limits=self.limits)
        self._sessions.append(session)
        return session

    def owning(self, run_id: str, *partitions: int) -> Any:
        """A session that owns the partitions, all when none is named."""
        session = self.new_session(run_id)
        assert session.own(partitions or self.partitions, exact=True) == {}
        return session

    @cached_property
    def session(self) -> Any:
        """Of the run that most tests need."""
        return self.owning("run")

    def end_session(self, session: Any) -> None:
        """What an administrator's pg_terminate_backend does."""
        if self.in_memory:
            self.memory.end(session.connection.backend)
            return
        pid = session.connection.driver_connection.info.backend_pid
        self.sql("SELECT pg_terminate_backend(%s)", pid)
        wait_for("the session to end", lambda: not self.sql("SELECT 1 FROM pg_stat_activity WHERE pid = %s", pid))

    def break_write(self, session: Any, fault: Fault) -> None:
        """Let the session's next write break off there."""
        if self.in_memory:
            self.memory.script(fault)
            return
        if fault is Fault.BEFORE_WRITE:
            self.end_session(session)
            return
        connection: psycopg.Connection[Any] = session.connection.driver_connection
        commit = connection.commit

        def break_commit() -> None:
            if fault is Fault.BEFORE_COMMIT:
                self.end_session(session)
                commit()
            else:
                self._lose_answer(connection)

        connection.commit = break_commit  # type: ignore[method-assign]

    def _lose_answer(self, connection: psycopg.Connection[Any]) -> None:
        """The server carries out COMMIT, and the network breaks before the client reads the answer."""
        pgconn = connection.pgconn
        pgconn.send_query(b"COMMIT")
        while pgconn.flush():
            pass
        settled = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND state = 'idle'"
        wait_for("the COMMIT", lambda: self.sql(settled, connection.info.backend_pid))
        with socket.socket(fileno=pgconn.socket) as cut:
            cut.shutdown(socket.SHUT_RDWR)
            cut.detach()
        pgconn.consume_input()  # what the server had sent, if it came through
        pgconn.consume_input()  # raises: the connection is gone
        raise AssertionError("the connection outlived its socket")

    def check(self, constraint: str, condition: str, holds: Callable[[EventRow], bool]) -> None:
        """Refuse rows as a CHECK constraint of this SQL does."""
        if self.in_memory:
            self.memory.check(self.stream.name, constraint, holds)
        else:
            for table in self.stream.tables:
                self.sql(f"ALTER TABLE {table.table} ADD CONSTRAINT {constraint} CHECK ({condition})")

    def drop_check(self, constraint: str) -> None:
        if self.in_memory:
            del self.table.checks[constraint]
        else:
            for table in self.stream.tables:
                self.sql(f"ALTER TABLE {table.table} DROP CONSTRAINT {constraint}")

    def drop(self, condition: str, holds: Callable[[EventRow], bool]) -> None:
        """Drop rows as a BEFORE trigger does that returns NULL under this condition."""
        if self.in_memory:
            self.memory.drop(self.stream.name, holds)
            return
        self.sql(f"""
            CREATE FUNCTION drop_row() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN IF {condition} THEN RETURN NULL; END IF; RETURN new; END $$""")
        for table in self.stream.tables:
            self.sql(f"""
                CREATE TRIGGER drop_row BEFORE INSERT ON {table.table}
                FOR EACH ROW EXECUTE FUNCTION drop_row()""")

    def delete(self, offset: int) -> None:
        """Delete a row of partition 0 behind the ledger's back."""
        if self.in_memory:
            del self.table.rows[1, 0, offset]
        else:
            for table in self.stream.tables:
                self.sql(f"DELETE FROM {table.table} WHERE kafka_offset = %s", offset)

    def batch(self, *values: Any) -> Batch:
        """The next records of partition 0."""
        start = self.session.positions[0].resume_at.next_offset
        records: list[Any] = [message(0, start + n, value) for n, value in enumerate(values)]
        return make_batch(self.session.positions, records, stream=self.stream, decode=self.decode)

    def write(self, *values: Any) -> CommitResult:
        result: CommitResult = self.session.write(self.batch(*values))
        return result

    def replay(self, *values: Any, start: int = 0) -> Replayed:
        """Read these records of partition 0 again."""
        records: list[Any] = [message(0, start + n, value) for n, value in enumerate(values)]
        positions = {0: Position(0, 1, NextOffset(start))}
        return self.missing.store(make_batch(positions, records, stream=self.stream, decode=self.decode))

    def redrive(self) -> Redriven:
        rules = RecordRules(record_columns=self.stream.record_columns, record_keys=keys_of(self.stream))
        redriven: Redriven = self.dead_letters.redrive(LetterFilter(), self.decode, rules)
        return redriven

    def refused(self) -> list[tuple[int, str, str]]:
        """(offset, stage, reason) of every open letter."""
        if self.in_memory:
            letters = sorted(self.dead_letters.open().items())
            return [(offset, letter.stage, letter.reason) for (_, _, offset), letter in letters]
        return [(row.kafka_offset, row.stage, row.reason) for row in self.dead_letters.page(LetterFilter())]

    def reasons(self) -> dict[int, str]:
        return {offset: reason for offset, _, reason in self.refused()}

    def close(self) -> None:
        for session in self._sessions:
            session.connection.close()
        if not self.in_memory:
            self.database.dispose()
            self.connection.close()


def url_of(request: pytest.FixtureRequest) -> str:
    """The database of a fixture's parameter, which is of WORLDS."""
    return "" if request.param == "memory" else str(request.getfixturevalue("database_url"))


@contextmanager
def stream_world(request: pytest.FixtureRequest, stream: Stream, create: str = "") -> Iterator[StreamWorld]:
    """The world of a fixture's parameter."""
    world = StreamWorld(request.param, url_of(request), stream, create=create)
    yield world
    world.close()


def begin(ledger: Any, *partitions: int) -> None:
    """The stream begins at offset 0 of the partitions."""
    assert ledger.begin(IDENTITY, {partition: NextOffset(0) for partition in partitions}, first=True)


def counters(world: StreamWorld, partition: int = 0) -> tuple[int, ...]:
    """(next_offset, rows, dead_letters, skipped, absent)."""
    position = world.ledger.positions()[partition]
    assert (
        position.next_offset - position.first_offset
        == position.rows + position.dead_letters + position.skipped + position.absent + position.lost
    )
    return position.next_offset, position.rows, position.dead_letters, position.skipped, position.absent
