"""The two ledgers that one contract suite runs on, and what each of them can be made to do."""

from __future__ import annotations

import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, LiteralString

import psycopg
import pytest

from ingest_pipeline.core.clock import SystemClock
from ingest_pipeline.core.dead_letter_limit import LetterLimits
from ingest_pipeline.core.ledger import Holder
from ingest_pipeline.core.ledger_ports import Ledgers
from ingest_pipeline.core.ownership import take_ownership
from ingest_pipeline.core.record import Batch, EventRow, NextOffset, OwnerRequests
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.ledger import PostgresLedger
from ingest_pipeline.postgres.ledgers import PostgresLedgers
from ingest_pipeline.postgres.session import PostgresLedgerSession
from ingest_pipeline.postgres.writing_connection import PostgresWritingConnection
from ingest_pipeline.settings.database_url import sqlalchemy_url
from ingest_pipeline.testing import (
    Fault,
    MemoryDatabase,
    MemoryLedger,
    MemoryLedgers,
    MemoryLedgerSession,
    MemoryWritingConnection,
)
from ingest_pipeline_tests.samples import IDENTITY, READING

LedgerSession = PostgresLedgerSession | MemoryLedgerSession
Ledger = PostgresLedger | MemoryLedger
WORLDS = ["memory", "copy", "executemany"]
"""The in-memory ledger, and PostgreSQL written by COPY and by executemany."""
Key = tuple[int, int]
CONSTRAINT = "above_zero_kelvin"
COLDEST = -273.15
DROPPED = "dropped"
"""The device whose rows a trigger drops once `drop_rows` was called."""


def wait_for(what: str, condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    """The condition's first true value. Fails with `what` when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {what}"
        time.sleep(0.01)
    return value


class LedgerWorld(ABC):
    """A database with an empty table that refuses readings at absolute zero."""

    ledger: Ledger
    limits: LetterLimits | None = None

    def __init__(self) -> None:
        self._open_sessions: list[LedgerSession] = []

    def session(self, run_id: str) -> LedgerSession:
        session = self.new_session(run_id)
        self._open_sessions.append(session)
        return session

    def owning(self, run_id: str, *partitions: int) -> LedgerSession:
        """A ledger that owns the partitions, all when none is named."""
        session = self.session(run_id)
        assert session.own(partitions or (0, 1), exact=True) == {}
        return session

    def close(self) -> None:
        for session in self._open_sessions:
            session.connection.close()

    @abstractmethod
    def ledger_of(self, stream: Stream) -> Ledger: ...

    @abstractmethod
    def ledgers(self, *streams: Stream) -> Ledgers: ...

    @abstractmethod
    def new_session(self, run_id: str) -> LedgerSession: ...

    @abstractmethod
    def break_write(self, session: Any, fault: Fault) -> None:
        """Let the ledger's next write break off there."""

    @abstractmethod
    def end_session(self, session: Any) -> None:
        """What an administrator's pg_terminate_backend does."""

    @abstractmethod
    def free(self, session: Any) -> None:
        """Take the ledger's locks from it without its noticing."""

    @abstractmethod
    def plant(self, row: EventRow) -> None:
        """Put a row into the table behind the ledger's back."""

    @abstractmethod
    def drop_rows(self) -> None:
        """From now on a BEFORE trigger returns NULL for rows of the device DROPPED."""

    @abstractmethod
    def keep_rows(self) -> None:
        """The trigger is dropped."""

    @abstractmethod
    def rewind(self) -> None:
        """Set positions and counters back to the beginning. Rows and dead letters stay."""

    @abstractmethod
    def rows(self) -> dict[Key, str]:
        """(partition, offset) → device_id, in the order of the key."""

    @abstractmethod
    def letters(self) -> dict[Key, tuple[str, str, str | None, bytes | None]]:
        """(partition, offset) → (stage, reason, sqlstate, value)."""


class MemoryWorld(LedgerWorld):
    def __init__(self) -> None:
        super().__init__()
        self._database = MemoryDatabase()
        self._table = self._database.table(READING.name)
        self._database.check(READING.name, CONSTRAINT, lambda row: row[5] > COLDEST)
        self.ledger = MemoryLedger(self._database, READING)

    def ledger_of(self, stream: Stream) -> MemoryLedger:
        return MemoryLedger(self._database, stream)

    def ledgers(self, *streams: Stream) -> MemoryLedgers:
        return MemoryLedgers(self._database, streams)

    def new_session(self, run_id: str) -> MemoryLedgerSession:
        return MemoryLedgerSession(MemoryWritingConnection(self._database, run_id), READING, limits=self.limits)

    def break_write(self, session: MemoryLedgerSession, fault: Fault) -> None:
        self._database.script(fault)

    def end_session(self, session: MemoryLedgerSession) -> None:
        self._database.end(session.connection.backend)

    def free(self, session: MemoryLedgerSession) -> None:
        self._database.free(session.connection.backend)

    def plant(self, row: EventRow) -> None:
        self._table.rows[row[0], row[1], row[2]] = row

    def drop_rows(self) -> None:
        self._database.drop(READING.name, lambda row: row[4] == DROPPED)

    def keep_rows(self) -> None:
        self._database.drop(READING.name, lambda row: False)

    def rewind(self) -> None:
        for partition, position in self._table.positions.items():
            self._table.positions[partition] = replace(
                position, next_offset=position.first_offset, rows=0, dead_letters=0, skipped=0, absent=0
            )

    def rows(self) -> dict[Key, str]:
        return {(p, o): row[4] for (_, p, o), row in sorted(self._table.rows.items())}

    def letters(self) -> dict[Key, tuple[str, str, str | None, bytes | None]]:
        letters = sorted(self._table.dead_letters.items())
        return {(p, o): (row.stage, row.reason, row.sqlstate, row.value) for (_, p, o), row in letters}


class PostgresWorld(LedgerWorld):
    def __init__(self, url: str, write_method: str) -> None:
        super().__init__()
        self._method = write_method
        self.database = Database(sqlalchemy_url(url))
        self.ledger = PostgresLedger(self.database, READING)
        self.ledger.prepare()
        self.url = url
        self._other = psycopg.connect(url, autocommit=True)
        self._other.execute(f"ALTER TABLE reading ADD CONSTRAINT {CONSTRAINT} CHECK (temperature > {COLDEST})")

    def close(self) -> None:
        super().close()
        self.database.dispose()
        self._other.close()

    def ledger_of(self, stream: Stream) -> PostgresLedger:
        return PostgresLedger(self.database, stream)

    def ledgers(self, *streams: Stream) -> PostgresLedgers:
        return PostgresLedgers(self.database, streams)

    def new_session(self, run_id: str) -> PostgresLedgerSession:
        connection = PostgresWritingConnection(self.database, run_id)
        return PostgresLedgerSession(connection, READING, write_method=self._method, limits=self.limits)

    def query(self, statement: LiteralString) -> list[tuple[Any, ...]]:
        return self._other.execute(statement).fetchall()

    def break_write(self, session: PostgresLedgerSession, fault: Fault) -> None:
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
                lose_answer(connection, self._other)

        connection.commit = break_commit  # type: ignore[method-assign]

    def end_session(self, session: PostgresLedgerSession) -> None:
        pid = session.connection.driver_connection.info.backend_pid
        self._other.execute("SELECT pg_terminate_backend(%s)", [pid])
        wait_for("the session to end", lambda: not self._sessions(pid))

    def free(self, session: PostgresLedgerSession) -> None:
        session.connection.driver_connection.execute("SELECT pg_advisory_unlock_all()")
        session.connection.driver_connection.commit()

    def plant(self, row: EventRow) -> None:
        self._other.execute(
            "INSERT INTO reading (kafka_incarnation, kafka_partition, kafka_offset, device_id, temperature, event_time)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            [*row[:3], *row[4:]],
        )

    def drop_rows(self) -> None:
        self._other.execute(f"""
            CREATE FUNCTION drop_row() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN IF new.device_id = '{DROPPED}' THEN RETURN NULL; END IF; RETURN new; END $$;
            CREATE TRIGGER drop_row BEFORE INSERT ON reading FOR EACH ROW EXECUTE FUNCTION drop_row()""")

    def keep_rows(self) -> None:
        self._other.execute("DROP FUNCTION drop_row CASCADE")

    def rewind(self) -> None:
        self._other.execute(
            'UPDATE ingest.position SET next_offset = first_offset, "rows" = 0, dead_letters = 0, skipped = 0,'
            " absent = 0"
        )

    def rows(self) -> dict[Key, str]:
        rows = self._other.execute("SELECT kafka_partition, kafka_offset, device_id FROM reading ORDER BY 1, 2")
        return {(p, o): device for p, o, device in rows}

    def letters(self) -> dict[Key, tuple[str, str, str | None, bytes | None]]:
        letters = self._other.execute(
            "SELECT kafka_partition, kafka_offset, stage, reason, sqlstate, value FROM ingest.dead_letter ORDER BY 1, 2"
        )
        return {(p, o): tuple(rest) for p, o, *rest in letters}

    def _sessions(self, pid: int) -> int:
        row = self._other.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone()
        assert row is not None
        return int(row[0])


def lose_answer(connection: psycopg.Connection[Any], other: psycopg.Connection[Any]) -> None:
    """The server carries out COMMIT, and the network breaks before the client reads the answer."""
    pgconn = connection.pgconn
    pgconn.send_query(b"COMMIT")
    while pgconn.flush():
        pass
    settled = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND state = 'idle'"
    wait_for("the COMMIT", lambda: other.execute(settled, [connection.info.backend_pid]).fetchone())
    with socket.socket(fileno=pgconn.socket) as cut:
        cut.shutdown(socket.SHUT_RDWR)
        cut.detach()
    pgconn.consume_input()  # what the server had sent, if it came through
    pgconn.consume_input()  # raises: the connection is gone
    raise AssertionError("the connection outlived its socket")


def own_within(
    session: LedgerSession, partitions: Collection[int], wait_seconds: float, **options: Any
) -> Mapping[int, Holder]:
    """Own all partitions in time, as a run does. Returns the owners of partitions that were not taken."""
    others = take_ownership({session: partitions}, SystemClock(), exact=True, wait_seconds=wait_seconds, **options)
    return others.get(session, {})


def requests_to(session: LedgerSession) -> OwnerRequests:
    """The requests in the answer to a heartbeat."""
    return session.connection.heartbeat()[READING.name]


def stale(batch: Batch, partition: int) -> Batch:
    """The same batch, expecting another position of one partition than the ledger holds."""
    advance = batch.advances[partition]
    return replace(batch, advances={**batch.advances, partition: replace(advance, expected=advance.expected - 1)})


def begin(ledger: Ledger, *partitions: int) -> None:
    """The stream begins at offset 0 of the partitions."""
    assert ledger.begin(IDENTITY, {partition: NextOffset(0) for partition in partitions}, first=True)


@contextmanager
def ledger_world(request: pytest.FixtureRequest) -> Iterator[LedgerWorld]:
    """The world of a fixture's parameter. Two partitions have begun at offset 0."""
    made: LedgerWorld
    if request.param == "memory":
        made = MemoryWorld()
    else:
        made = PostgresWorld(request.getfixturevalue("database_url"), request.param)
    begin(made.ledger, 0, 1)
    yield made
    made.close()


def counters(world: LedgerWorld, partition: int) -> tuple[int, ...]:
    """(next_offset, rows, dead_letters, skipped, absent)."""
    position = world.ledger.positions()[partition]
    assert (
        position.next_offset - position.first_offset
        == position.rows + position.dead_letters + position.skipped + position.absent + position.lost
    )
    return position.next_offset, position.rows, position.dead_letters, position.skipped, position.absent


def untouched(world: LedgerWorld) -> bool:
    return not world.rows() and not world.letters() and counters(world, 0) == counters(world, 1) == (0, 0, 0, 0, 0)
