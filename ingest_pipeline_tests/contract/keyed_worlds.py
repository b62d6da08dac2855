"""A keyed stream on the in-memory ledger and on PostgreSQL, written by COPY and by executemany."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec
import psycopg
import pytest

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.ledger import LetterFilter, Redriven, Replayed
from ingest_pipeline.core.ledger_ports import ReplayStore
from ingest_pipeline.core.record import Batch, CommitResult, Message, NextOffset, Position
from ingest_pipeline.core.rows import RecordRules
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.dead_letters import DeadLetters
from ingest_pipeline.postgres.ledger import PostgresLedger
from ingest_pipeline.postgres.replay import MissingRows
from ingest_pipeline.postgres.session import PostgresLedgerSession
from ingest_pipeline.postgres.writing_connection import PostgresWritingConnection
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
from ingest_pipeline.testing.log import MemoryMessage
from ingest_pipeline_tests.contract.ledger_worlds import begin, lose_answer
from ingest_pipeline_tests.samples import STAMP_MS, keys_of, make_batch

LIMIT = 1000
"""The table refuses a reading at or above it."""


class Level(msgspec.Struct):
    device: str
    version: int
    reading: int


def level(device: str, version: int, reading: int = 0) -> bytes:
    return msgspec.json.encode(Level(device, version, reading))


def keyed(**options: Any) -> Stream:
    return Stream("level", Level, key=("device",), **options)


KeyedRecord = tuple[int, str | None, bytes | None] | tuple[int, str | None, bytes | None, tuple[str, bytes]]
"""(partition, key, value), and a header."""


class KeyedWorld(ABC):
    """One run that owns partitions 0 and 1, whose next records have the next offsets."""

    ledger: MemoryLedger | PostgresLedger
    session: MemoryLedgerSession | PostgresLedgerSession
    missing: ReplayStore
    letters: MemoryDeadLetters | DeadLetters

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.read: dict[int, list[Message]] = {0: [], 1: []}

    def start(self) -> None:
        begin(self.ledger, 0, 1)
        assert self.session.own((0, 1), exact=True) == {}

    def batch(self, *records: KeyedRecord) -> Batch:
        """The batch of the records."""
        batch: list[Message] = []
        for partition, key, value, *headers in records:
            raw = None if key is None else key.encode()
            offset = len(self.read[partition])
            batch.append(
                MemoryMessage(partition, offset, 0, value, timestamp_ms=STAMP_MS, key=raw, headers=headers or None)
            )
            self.read[partition].append(batch[-1])
        return make_batch(self.session.positions, batch, stream=self.stream)

    def write(self, *records: KeyedRecord) -> CommitResult:
        """Write the records as one batch."""
        return self.session.write(self.batch(*records))

    def replay(self, partition: int, start: int, stop: int) -> Replayed:
        position = {partition: Position(partition, 1, NextOffset(start))}
        records = self.read[partition][start:stop]
        return self.missing.store(make_batch(position, records, stream=self.stream))

    def redrive(self, decode: Callable[[bytes], tuple[object, ...]] | None = None) -> Redriven:
        rules = RecordRules(record_columns=self.stream.record_columns, record_keys=keys_of(self.stream))
        return self.letters.redrive(LetterFilter(), decode or JsonDecoder(self.stream).decode, rules)

    def counters(self) -> tuple[int, int, int]:
        """Sums of rows, dead letters and skipped records, after a check that they account for every offset."""
        positions = self.ledger.positions().values()
        for position in positions:
            assert position.next_offset == position.rows + position.dead_letters + position.skipped
        return tuple(sum(getattr(p, name) for p in positions) for name in ("rows", "dead_letters", "skipped"))  # type: ignore[return-value]

    @abstractmethod
    def rows(self) -> dict[str, tuple[int, int, int, int]]:
        """Device → (version, reading, partition, offset)."""

    @abstractmethod
    def statuses(self) -> dict[tuple[int, int], str]:
        """(partition, offset) of dead letters → status."""

    @abstractmethod
    def refuse_high_readings(self) -> None: ...

    @abstractmethod
    def accept_high_readings(self) -> None: ...

    @abstractmethod
    def rekey(self, keys: Mapping[tuple[int, int], str]) -> None:
        """Give dead letters another record key."""

    @abstractmethod
    def lose(self, device: str) -> None:
        """Delete a row behind the ledger's back."""

    @abstractmethod
    def break_write(self, fault: Fault) -> None:
        """Let the next write break off there."""

    def close(self) -> None:  # noqa: B027 (a world in memory has nothing to close)
        """End the world's sessions."""


class MemoryKeyedWorld(KeyedWorld):
    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self.database = MemoryDatabase()
        self.ledger = MemoryLedger(self.database, stream)
        self.session = MemoryLedgerSession(MemoryWritingConnection(self.database, "run"), stream)
        self.missing, self.letters = MemoryMissingRows(self.database, stream), MemoryDeadLetters(self.database, stream)
        self.start()

    def rows(self) -> dict[str, tuple[int, int, int, int]]:
        rows: Iterable[Any] = self.database.table("level").rows.values()
        return {row[4]: (row[5], row[6], row[1], row[2]) for row in rows}

    def statuses(self) -> dict[tuple[int, int], str]:
        table = self.database.table("level")
        return {where[1:]: str(table.settled.get(where, "open")) for where in table.dead_letters}

    def refuse_high_readings(self) -> None:
        self.database.check("level", "low", lambda row: row[6] < LIMIT)

    def accept_high_readings(self) -> None:
        self.database.table("level").checks.clear()

    def break_write(self, fault: Fault) -> None:
        self.database.script(fault)

    def rekey(self, keys: Mapping[tuple[int, int], str]) -> None:
        letters = self.database.table("level").dead_letters
        for where, letter in letters.items():
            letters[where] = replace(letter, key=keys[where[1:]].encode())

    def lose(self, device: str) -> None:
        rows = self.database.table("level").rows
        for where in [where for where, row in rows.items() if row[4] == device]:
            del rows[where]


class PostgresKeyedWorld(KeyedWorld):
    def __init__(self, stream: Stream, url: str, write_method: str) -> None:
        super().__init__(stream)
        self.database, self.sql = Database(sqlalchemy_url(url)), psycopg.connect(url, autocommit=True)
        self.ledger = PostgresLedger(self.database, stream)
        self.ledger.prepare()
        self.connection = PostgresWritingConnection(self.database, "run")
        self.session = PostgresLedgerSession(self.connection, stream, write_method=write_method)
        self.missing, self.letters = MissingRows(self.database, stream), DeadLetters(self.database, stream)
        self.start()

    def rows(self) -> dict[str, tuple[int, int, int, int]]:
        rows = self.sql.execute("SELECT device, version, reading, kafka_partition, kafka_offset FROM level").fetchall()
        return {device: tuple(rest) for device, *rest in rows}

    def statuses(self) -> dict[tuple[int, int], str]:
        letters = self.sql.execute("SELECT kafka_partition, kafka_offset, status FROM ingest.dead_letter").fetchall()
        return {(partition, offset): status for partition, offset, status in letters}

    def refuse_high_readings(self) -> None:
        self.sql.execute(f"ALTER TABLE level ADD CONSTRAINT low CHECK (reading < {LIMIT})")

    def accept_high_readings(self) -> None:
        self.sql.execute("ALTER TABLE level DROP CONSTRAINT low")

    def break_write(self, fault: Fault) -> None:
        connection: psycopg.Connection[Any] = self.connection.driver_connection
        commit, commits = connection.commit, 0

        def break_commit() -> None:
            nonlocal commits
            commits += 1
            if commits == 1:  # of the temporary table
                commit()
            elif fault is Fault.BEFORE_COMMIT:
                self.sql.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
                commit()
            else:
                lose_answer(connection, self.sql)

        connection.commit = break_commit  # type: ignore[method-assign]

    def rekey(self, keys: Mapping[tuple[int, int], str]) -> None:
        for (partition, offset), key in keys.items():
            self.sql.execute(
                "UPDATE ingest.dead_letter SET key = %s WHERE kafka_partition = %s AND kafka_offset = %s",
                [key.encode(), partition, offset],
            )

    def lose(self, device: str) -> None:
        self.sql.execute("DELETE FROM level WHERE device = %s", [device])

    def reset(self) -> None:
        """Begin again at offset 0, with empty tables."""
        self.sql.execute("TRUNCATE level, ingest.dead_letter, ingest.settled_letters")
        self.sql.execute('UPDATE ingest.position SET next_offset = 0, "rows" = 0, dead_letters = 0, skipped = 0')
        self.session.release()
        assert self.session.own((0, 1), exact=True) == {}
        self.read = {0: [], 1: []}

    def close(self) -> None:
        self.connection.close()
        self.database.dispose()
        self.sql.close()


NewWorld = Callable[[Stream], KeyedWorld]


def new_worlds(request: pytest.FixtureRequest) -> Iterator[NewWorld]:
    """Makes the world of a fixture's parameter for a stream."""
    worlds: list[KeyedWorld] = []

    def make(stream: Stream) -> KeyedWorld:
        if request.param == "memory":
            worlds.append(MemoryKeyedWorld(stream))
        else:
            worlds.append(PostgresKeyedWorld(stream, request.getfixturevalue("database_url"), request.param))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()
