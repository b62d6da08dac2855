"""Records of several events, on the in-memory ledger and on PostgreSQL by both ways of writing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import psycopg
import pytest

from ingest_pipeline.core.choices import NaiveTimestamps
from ingest_pipeline.core.errors import LedgerConflict
from ingest_pipeline.core.ledger import LetterFilter, Replayed
from ingest_pipeline.core.many import table_rows
from ingest_pipeline.core.record import CommitResult, NextOffset, Position
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.operations.decoders import decoder_of
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.dead_letters import DeadLetters
from ingest_pipeline.postgres.ledger import PostgresLedger
from ingest_pipeline.postgres.replay import MissingRows
from ingest_pipeline.postgres.session import PostgresLedgerSession
from ingest_pipeline.postgres.writing_connection import PostgresWritingConnection
from ingest_pipeline.settings.database_url import sqlalchemy_url
from ingest_pipeline.testing import (
    MemoryDatabase,
    MemoryDeadLetters,
    MemoryLedger,
    MemoryLedgerSession,
    MemoryMissingRows,
    MemoryWritingConnection,
)
from ingest_pipeline_tests.contract.ledger_worlds import WORLDS
from ingest_pipeline_tests.samples import IDENTITY, make_batch, message


class Count(msgspec.Struct):
    name: str
    count: int


STREAM = Stream("counts", Count, many=True)
ALL = LetterFilter()
DECODE = decoder_of(STREAM, NaiveTimestamps.UTC, lambda: pytest.fail("no registry is needed")).decode


def array(*counts: int) -> bytes:
    """A record with an event per count. The table refuses counts below 0 and drops counts above 99."""
    return msgspec.json.encode([{"name": f"n{count}", "count": count} for count in counts])


class World:
    """An empty table, and the ledger at offset 0 of partition 0."""

    session: Any
    letters: Any
    store: Any

    def write(self, *values: bytes) -> CommitResult:
        start = self.session.positions[0].resume_at.next_offset
        records = [message(0, start + n, value) for n, value in enumerate(values)]
        written: CommitResult = self.session.write(
            make_batch(self.session.positions, records, stream=STREAM, decode=DECODE)
        )
        return written

    def replay(self, *values: bytes) -> Replayed:
        """Read all records again."""
        start = {0: Position(0, 1, NextOffset(0))}
        records = [message(0, n, value) for n, value in enumerate(values)]
        replayed: Replayed = self.store.store(make_batch(start, records, stream=STREAM, decode=DECODE))
        return replayed


class MemoryWorld(World):
    def __init__(self) -> None:
        self.database = MemoryDatabase()
        self.ledger = MemoryLedger(self.database, STREAM)
        assert self.ledger.begin(IDENTITY, {0: NextOffset(0)}, first=True)
        self.database.check("counts", "not_negative", lambda row: row[-1] >= 0)
        self.database.drop("counts", lambda row: row[-1] > 99)
        self.session = MemoryLedgerSession(MemoryWritingConnection(self.database, "run"), STREAM)
        assert self.session.own([0], exact=True) == {}
        self.letters, self.store = MemoryDeadLetters(self.database, STREAM), MemoryMissingRows(self.database, STREAM)

    def rows(self) -> list[tuple[int, int, int]]:
        rows = table_rows(list(self.database.table("counts").rows.values()))
        return sorted((row[2], row[4], row[-1]) for row in rows)

    def reasons(self) -> dict[int, str]:
        return {offset: letter.reason for (_, _, offset), letter in self.letters.open().items()}

    def allow_negative(self) -> None:
        self.database.table("counts").checks.clear()

    def delete(self, offset: int, ordinals: Sequence[int]) -> None:
        rows = self.database.table("counts").rows
        row = rows.pop((1, 0, offset))
        if left := [element for element in row[-1] if element[0] not in ordinals]:
            rows[1, 0, offset] = (*row[:-1], left)

    def close(self) -> None:
        self.session.connection.close()


class PostgresWorld(World):
    def __init__(self, url: str, method: str) -> None:
        self.method, self.database = method, Database(sqlalchemy_url(url))
        self.ledger = PostgresLedger(self.database, STREAM)
        self.ledger.prepare()
        assert self.ledger.begin(IDENTITY, {0: NextOffset(0)}, first=True)
        self._connection = psycopg.connect(url, autocommit=True)
        self.sql("ALTER TABLE counts ADD CONSTRAINT not_negative CHECK (count >= 0)")
        self.sql("""
            CREATE FUNCTION drop_large() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN IF new.count > 99 THEN RETURN NULL; END IF; RETURN new; END $$;
            CREATE TRIGGER drop_large BEFORE INSERT ON counts FOR EACH ROW EXECUTE FUNCTION drop_large()""")
        connection = PostgresWritingConnection(self.database, "run")
        self.session = PostgresLedgerSession(connection, STREAM, write_method=method)
        assert self.session.own([0], exact=True) == {}
        self.letters, self.store = DeadLetters(self.database, STREAM), MissingRows(self.database, STREAM)

    def sql(self, statement: str, *values: Any) -> list[Any]:
        cursor = self._connection.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []

    def rows(self) -> list[tuple[int, int, int]]:
        return self.sql("SELECT kafka_offset, kafka_ordinal, count FROM counts ORDER BY 1, 2")

    def reasons(self) -> dict[int, str]:
        return dict(self.sql("SELECT kafka_offset, reason FROM ingest.dead_letter"))

    def allow_negative(self) -> None:
        self.sql("ALTER TABLE counts DROP CONSTRAINT not_negative")

    def delete(self, offset: int, ordinals: Sequence[int]) -> None:
        self.sql("DELETE FROM counts WHERE kafka_offset = %s AND kafka_ordinal = ANY(%s)", offset, list(ordinals))

    def close(self) -> None:
        self.session.connection.close()
        self._connection.close()
        self.database.dispose()


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> Iterator[Any]:
    memory = request.param == "memory"
    made = MemoryWorld() if memory else PostgresWorld(request.getfixturevalue("database_url"), request.param)
    yield made
    made.close()


def counters(world: Any) -> tuple[int, int, int, int, int]:
    """(next_offset, rows, dead_letters, skipped, absent)."""
    position = world.ledger.positions()[0]
    accounted = position.rows + position.dead_letters + position.skipped + position.absent
    assert position.next_offset - position.first_offset == accounted
    return position.next_offset, position.rows, position.dead_letters, position.skipped, position.absent


def test_counters_count_records(world: Any) -> None:
    written = world.write(array(1, 2, 3), b"[]", array(4), b'[{"name": "a", "count": 5}, {"name": 6}]')
    assert (written.rows, written.dead_letters) == ({0: 2}, {0: 1})
    assert world.rows() == [(0, 0, 1), (0, 1, 2), (0, 2, 3), (2, 0, 4)]
    assert world.reasons() == {3: "Expected `str`, got `int` - at `$[1].name`"}
    assert counters(world) == (4, 2, 1, 1, 0)


def test_a_row_that_the_database_refuses_takes_its_siblings_along(world: Any) -> None:
    written = world.write(array(1, 2), array(3, -1, 4), array(5, 6, 7), array(-2))
    assert (written.rows, written.dead_letters) == ({0: 2}, {0: 2})
    assert world.rows() == [(0, 0, 1), (0, 1, 2), (2, 0, 5), (2, 1, 6), (2, 2, 7)]
    reasons = world.reasons()
    assert reasons.keys() == {1, 3}
    assert all(reason.startswith("check violation (23514), constraint not_negative") for reason in reasons.values())
    if isinstance(world, PostgresWorld) and world.method == "copy":
        assert reasons[1].endswith(", in the row of kafka_ordinal 1")
    assert counters(world) == (4, 2, 2, 0, 0)


def test_a_record_is_dropped_with_its_last_row(world: Any) -> None:
    written = world.write(array(1, 100), array(101, 102), array(2))
    assert (written.rows, written.dropped) == ({0: 2}, {0: 1})
    assert world.rows() == [(0, 0, 1), (2, 0, 2)]
    assert counters(world) == (3, 2, 0, 1, 0)


def test_dropped_and_refused_rows_in_one_batch(world: Any) -> None:
    world.write(array(100), array(1, -1), array(2, 103))
    assert world.rows() == [(2, 0, 2)]
    assert counters(world) == (3, 1, 1, 1, 0)


def test_a_redrive_stores_all_rows_of_a_record(world: Any) -> None:
    world.write(array(1, -1, 2), array(3, -3))
    assert (world.letters.redrive(ALL, DECODE).refused, world.rows()) == (2, [])
    world.allow_negative()
    done = world.letters.redrive(ALL, DECODE)
    assert (done.stored, done.present, done.refused) == (2, 0, 0)
    assert world.rows() == [(0, 0, 1), (0, 1, -1), (0, 2, 2), (1, 0, 3), (1, 1, -3)]
    assert counters(world) == (2, 0, 2, 0, 0)


def test_a_replay_stores_missing_records(world: Any) -> None:
    values = array(1, 2), b"[]", array(3, 4), array(5, -5)
    world.write(*values)
    assert world.replay(*values) == Replayed(present=2, skipped=0, dead=1)
    world.delete(0, [1])
    world.delete(2, [0, 1])
    assert world.replay(*values) == Replayed(stored=2, present=0, skipped=0, dead=1)
    assert world.rows() == [(0, 0, 1), (0, 1, 2), (2, 0, 3), (2, 1, 4)]


@pytest.mark.parametrize("method", [name for name in WORLDS if name != "memory"])
def test_rows_that_share_a_unique_value_refuse_their_record(database_url: str, method: str) -> None:
    world = PostgresWorld(database_url, method)
    world.sql("ALTER TABLE counts ADD CONSTRAINT once UNIQUE (count)")
    written = world.write(array(1, 2), array(3, 3), array(4, 1), array(5))
    assert (written.rows, written.dead_letters) == ({0: 2}, {0: 2})
    assert world.rows() == [(0, 0, 1), (0, 1, 2), (3, 0, 5)]
    assert world.sql("SELECT DISTINCT sqlstate FROM ingest.dead_letter") == [("23505",)]
    world.close()


def test_a_record_stored_before_stops_the_stream(world: Any) -> None:
    world.write(array(1, 2))
    if isinstance(world, MemoryWorld):
        world.database.table("counts").rows[1, 0, 1] = (1, 0, 1, None, [(1, "a", 1)])
    else:
        world.sql(
            "INSERT INTO counts (kafka_incarnation, kafka_partition, kafka_offset, kafka_ordinal, name, count)"
            " VALUES (1, 0, 1, 1, 'a', 1)"
        )
    with pytest.raises(LedgerConflict):
        world.write(array(3, 4))
    assert counters(world) == (1, 1, 0, 0, 0)
