"""A table without our columns: the ledger alone keeps exactly once, in memory and in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.errors import DatabaseUnavailable, Superseded
from ingest_pipeline.core.ledger import LetterFilter, Redriven
from ingest_pipeline.core.record import Batch
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.dead_letters import DeadLetters
from ingest_pipeline.postgres.ledger import PostgresLedger
from ingest_pipeline.postgres.session import PostgresLedgerSession
from ingest_pipeline.postgres.writing_connection import PostgresWritingConnection
from ingest_pipeline.settings.database_url import sqlalchemy_url
from ingest_pipeline.testing import (
    Fault,
    MemoryDatabase,
    MemoryDeadLetters,
    MemoryLedger,
    MemoryLedgerSession,
    MemoryWritingConnection,
)
from ingest_pipeline_tests.contract.ledger_worlds import WORLDS, begin
from ingest_pipeline_tests.samples import BAD, READING, good, make_batch, message

STREAM = replace(READING, coordinates=False)


class World:
    """The table refuses readings of 7 degrees."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind = kind
        if kind == "memory":
            self.memory = MemoryDatabase()
            self.ledger: Any = MemoryLedger(self.memory, STREAM)
            self.letters: Any = MemoryDeadLetters(self.memory, STREAM)
            self.memory.check(STREAM.name, "not_seven", lambda row: row[5] != 7)
        else:
            self.other = psycopg.connect(url, autocommit=True)
            self.other.execute(
                "CREATE TABLE reading (id serial, device_id text, temperature float8, event_time timestamptz,"
                " CONSTRAINT not_seven CHECK (temperature <> 7))"
            )
            self.database = Database(sqlalchemy_url(url))
            self.ledger = PostgresLedger(self.database, STREAM)
            self.ledger.prepare()
            self.letters = DeadLetters(self.database, STREAM)
        begin(self.ledger, 0)
        self.session = self.owning("run")

    def owning(self, run_id: str) -> Any:
        session: Any
        if self.kind == "memory":
            session = MemoryLedgerSession(MemoryWritingConnection(self.memory, run_id), STREAM)
        else:
            connection = PostgresWritingConnection(self.database, run_id)
            session = PostgresLedgerSession(connection, STREAM, write_method=self.kind)
        assert session.own([0], exact=True) == {}
        return session

    def close(self) -> None:
        self.session.connection.close()
        if self.kind != "memory":
            self.database.dispose()
            self.other.close()

    def batch(self, *values: bytes) -> Batch:
        start = self.session.positions[0].resume_at.next_offset
        records = [message(0, start + n, value) for n, value in enumerate(values)]
        return make_batch(self.session.positions, records, stream=STREAM)  # type: ignore[arg-type]

    def lose_the_answer(self) -> None:
        """The next COMMIT succeeds, and the session ends before its answer."""
        if self.kind == "memory":
            self.memory.script(Fault.AFTER_COMMIT)
            return
        driver: Any = self.session.connection.driver_connection
        commit = driver.commit

        def lose() -> None:
            commit()
            self.other.execute("SELECT pg_terminate_backend(%s)", [driver.info.backend_pid])
            raise psycopg.OperationalError("the answer was lost")

        driver.commit = lose

    def devices(self) -> list[str]:
        if self.kind == "memory":
            return sorted(row[4] for row in self.memory.table(STREAM.name).rows.values())
        return [device for (device,) in self.other.execute("SELECT device_id FROM reading ORDER BY 1")]

    def mend(self) -> None:
        if self.kind == "memory":
            self.memory.table(STREAM.name).checks.clear()
        else:
            self.other.execute("ALTER TABLE reading DROP CONSTRAINT not_seven")

    def redrive(self) -> Redriven:
        redriven: Redriven = self.letters.redrive(LetterFilter(), JsonDecoder(STREAM).decode)
        return redriven


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(request.param, "" if request.param == "memory" else request.getfixturevalue("database_url"))
    yield made
    made.close()


def test_good_rows_are_stored_and_bad_records_are_letters(world: World) -> None:
    written = world.session.write(world.batch(good("a"), BAD, good("b", 7), good("c")))
    assert (written.rows[0], written.dead_letters[0]) == (2, 2)
    assert world.devices() == ["a", "c"]
    position = world.ledger.positions()[0]
    assert (position.next_offset, position.rows, position.dead_letters) == (4, 2, 2)


def test_a_letter_is_redriven_once(world: World) -> None:
    world.session.write(world.batch(good("a"), good("b", 7)))
    assert world.redrive() == Redriven(refused=1)
    world.mend()
    assert world.redrive() == Redriven(stored=1)
    assert world.redrive() == Redriven()
    assert world.devices() == ["a", "b"]


def test_a_batch_whose_answer_is_lost_is_not_written_again(world: World) -> None:
    world.session.write(world.batch(good("a")))
    batch = world.batch(good("b"), BAD)
    world.lose_the_answer()
    with pytest.raises(DatabaseUnavailable):
        world.session.write(batch)
    written = world.session.recover(batch)
    assert written is not None
    assert (written.rows[0], written.dead_letters[0]) == (1, 1)
    world.session.write(world.batch(good("c")))
    assert world.devices() == ["a", "b", "c"]


def test_a_batch_of_another_position_writes_nothing(world: World) -> None:
    batch = world.batch(good("a"))
    world.session.write(batch)
    with pytest.raises(Superseded):
        world.session.write(batch)
    assert world.devices() == ["a"]
