"""A begun stream in a real PostgreSQL, with ledger, table and plain queries."""

import re
import uuid
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import psycopg
import pytest
from sqlalchemy.engine import make_url

from ingest_pipeline.core.choices import NaiveTimestamps
from ingest_pipeline.core.dead_letters import dead_letter
from ingest_pipeline.core.errors import RecordRefused
from ingest_pipeline.core.ledger import LetterFilter, Redriven, Replayed
from ingest_pipeline.core.record import Advance, Batch, CommitResult, Message, NextOffset, Position
from ingest_pipeline.core.roles import Role
from ingest_pipeline.core.rows import Decode
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.operations.check import _postgres
from ingest_pipeline.operations.clients import Clients
from ingest_pipeline.operations.decoders import decoder_of
from ingest_pipeline.operations.finding import Finding
from ingest_pipeline.postgres import comparison
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.dead_letters import DeadLetters
from ingest_pipeline.postgres.ledger import PostgresLedger
from ingest_pipeline.postgres.replay import MissingRows
from ingest_pipeline.postgres.session import PostgresLedgerSession
from ingest_pipeline.postgres.sql import Schemas
from ingest_pipeline.postgres.writing_connection import PostgresWritingConnection
from ingest_pipeline.settings import load_settings
from ingest_pipeline.settings.database_url import sqlalchemy_url
from ingest_pipeline_tests.samples import IDENTITY, READING, make_batch, message
from ingest_pipeline_tests.servers.postgres_roles import give_to_writer, url_of


class Bench:
    """Partition 0 begins at offset 0. The session owns it from its first use on.

    Args:
        url: of a superuser, who makes ledger and table. The sessions have a writer's rights.
        own_rights: the sessions have the rights of the role in the URL.
    """

    def __init__(
        self,
        url: str,
        stream: Stream = READING,
        *,
        schemas: Schemas | None = None,
        method: str = "copy",
        own_rights: bool = False,
    ) -> None:
        self.url, self.stream, self.method = url, stream, method
        self._own_rights, self._rights_given = own_rights, False
        self._cleanup = ExitStack()
        self.database = Database(sqlalchemy_url(url), schemas)
        self._cleanup.callback(self.database.dispose)
        self.ledger = PostgresLedger(self.database, stream)
        self._connection = psycopg.connect(url, autocommit=True)
        self._cleanup.callback(self._connection.close)
        self._session: PostgresLedgerSession | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def begin(self) -> Self:
        """Create ledger and table, and begin the stream."""
        self.ledger.prepare()
        self._give_rights()
        assert self.ledger.begin(IDENTITY, {0: NextOffset(0)}, first=True)
        return self

    def sql(self, statement: str, *values: Any) -> list[Any]:
        """Rows as tuples. Rows with one column come back as plain values."""
        cursor = self._connection.execute(statement, values or None)
        rows = cursor.fetchall() if cursor.description else []
        return [row[0] if len(row) == 1 else row for row in rows]

    def differences(self) -> list[str]:
        """Of the stream's table and its declaration."""
        with self.database.connect("comparing") as connection:
            return comparison.table_differences(connection, self.stream, "public")

    def remarks(self) -> list[str]:
        """On what may change or refuse rows."""
        with self.database.connect("comparing") as connection:
            return comparison.table_remarks(connection, self.stream, "public")

    def new_session(self, run_id: str = "run") -> PostgresLedgerSession:
        connection = PostgresWritingConnection(self._writer, run_id)
        self._cleanup.callback(connection.close)
        return PostgresLedgerSession(connection, self.stream, write_method=self.method)

    def _give_rights(self) -> None:
        if not self._own_rights:
            give_to_writer(self.url, [self.stream], self.database.schemas)
            self._rights_given = True

    @cached_property
    def _writer(self) -> Database:
        if self._own_rights:
            return self.database
        if not self._rights_given:
            self._give_rights()
        writer = Database(sqlalchemy_url(url_of(self.url, Role.WRITER)), self.database.schemas)
        writer.copy_looks = self.database.copy_looks
        self._cleanup.callback(writer.dispose)
        return writer

    @property
    def session(self) -> PostgresLedgerSession:
        if self._session is None:
            self._session = self.new_session()
            assert self._session.own([0], exact=True) == {}
        return self._session

    def batch(self, records: list[Message], decode: Decode | None = None) -> Batch:
        decode = decode or decode_of(self.stream)
        return make_batch(self.session.positions, records, stream=self.stream, decode=decode)

    def write(self, values: Sequence[bytes]) -> CommitResult:
        """Store one batch of records with these values after the stored ones."""
        start = self.session.positions[0].resume_at.next_offset
        return self.session.write(self.batch([message(0, start + n, value) for n, value in enumerate(values)]))

    def refuse(
        self, values: Sequence[bytes | None], why: Sequence[RecordRefused] = (), *, value_limit: int = 1024
    ) -> DeadLetters:
        """Store dead letters at offsets 0, 1, …, as an older version did that refused these records."""
        errors = why or [RecordRefused("older version", stage="decode")] * len(values)
        letters = [
            dead_letter(message(0, offset, value), 1, error, value_limit=value_limit)
            for offset, (value, error) in enumerate(zip(values, errors, strict=True))
        ]
        count = len(letters)
        advances = {0: Advance(1, 0, NextOffset(count))}
        self.session.write(Batch([], [], letters, advances, records=count, rows_before=[0] * count))
        return DeadLetters(self.database, self.stream)

    def redrive(self, stream: Stream | None = None) -> Redriven:
        """Redrive every letter, as this declaration of the stream says."""
        stream = stream or self.stream
        return DeadLetters(self.database, stream).redrive(LetterFilter(), decode_of(stream))

    def replay(self, values: Sequence[bytes], stream: Stream | None = None) -> Replayed:
        """Read these records at the offsets from 0 on again."""
        stream = stream or self.stream
        start = {0: Position(0, self.ledger.positions()[0].incarnation, NextOffset(0))}
        records: list[Message] = [message(0, offset, value) for offset, value in enumerate(values)]
        batch = make_batch(start, records, stream=stream, decode=decode_of(stream))
        return MissingRows(self.database, stream).store(batch)

    def findings(self) -> list[Finding]:
        """What `ingest check` says about PostgreSQL."""
        clients = Clients(load_settings([self.stream.name], {"DATABASE_URL": self.url}))
        with closing(clients):
            return list(_postgres(clients, [self.stream]))

    def reopen(self) -> None:
        """Close the session. Its next use opens another."""
        self.session.connection.close()
        self._session = None

    def offsets(self) -> list[int]:
        """The rows' values, in the order of storage."""
        return self.sql(f'SELECT kafka_offset FROM "{self.stream.table}" ORDER BY ctid')

    def letters(self) -> dict[int, tuple[str, str | None]]:
        """Offset → (reason, sqlstate)."""
        rows = self.sql("SELECT kafka_offset, reason, sqlstate FROM ingest.dead_letter ORDER BY kafka_offset")
        return {offset: (reason, state) for offset, reason, state in rows}

    def counters(self) -> tuple[int, int, int]:
        """(next_offset, rows, dead_letters)."""
        (row,) = self.sql('SELECT next_offset, "rows", dead_letters FROM ingest.position')
        return tuple(row)


def decode_of(stream: Stream) -> Decode:
    return decoder_of(stream, NaiveTimestamps.UTC, lambda: pytest.fail("no registry is needed")).decode


class PlainRole:
    """A role with these rights alone. `bench` connects as this role, and `owner` as the tables' owner."""

    def __init__(self, owner: Bench, *grants: str) -> None:
        self.owner, self.name = owner, f"plain_{uuid.uuid4().hex[:8]}"
        owner.sql(f"REVOKE ALL ON SCHEMA public FROM PUBLIC; CREATE ROLE {self.name} LOGIN PASSWORD 'secret'")
        self.grant(*grants)
        url = make_url(owner.url).set(username=self.name, password="secret")
        self.bench = Bench(url.render_as_string(hide_password=False), owner.stream, own_rights=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bench.__exit__(kind, error, trace)
        self.owner.sql(f"DROP OWNED BY {self.name}; DROP ROLE {self.name}")

    def grant(self, *grants: str) -> None:
        for grant in grants:
            self.owner.sql(f"GRANT {grant} TO {self.name}")


def pasted(message: str) -> list[str]:
    """The ALTER statements in a message, as a reader would paste them."""
    return re.findall(r"ALTER .*?(?=, or |;|$)", message)
