"""Redrive on a real PostgreSQL: a dead letter becomes a row under its own coordinates, once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from ingest_pipeline.cli.main import main
from ingest_pipeline.core.dead_letters import dead_letter
from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.errors import RecordRefused
from ingest_pipeline.core.ledger import LetterFilter, Redriven
from ingest_pipeline.core.record import Advance, Batch, NextOffset, TopicIdentity
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.dead_letters import DeadLetters
from ingest_pipeline.postgres.ledger import PostgresLedger
from ingest_pipeline.postgres.session import PostgresLedgerSession
from ingest_pipeline.postgres.writing_connection import PostgresWritingConnection
from ingest_pipeline.streams import STREAMS
from ingest_pipeline.testing.broker import MemoryBroker
from ingest_pipeline.testing.source import MemorySource

PRICE = next(stream for stream in STREAMS if stream.name == "price")
GOOD = b'{"symbol": "ABC", "price": 1.5, "timestamp": "2026-01-01T00:00:00Z"}'
BAD = b'{"symbol": "ABC", "price": "n/a", "timestamp": "2026-01-01T00:00:00Z"}'
NOT_JSON = b"\xff\x00"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url.replace("postgresql://", "postgresql+psycopg://", 1))
    yield database
    database.dispose()


@pytest.fixture
def letters(database: Database) -> DeadLetters:
    """Four dead letters with valid and invalid values, as if an older version had refused all of them."""
    broker = MemoryBroker()
    broker.create_topic("price", partitions=1)
    for value in (GOOD, BAD, NOT_JSON, GOOD):
        broker.append("price", 0, value)
    source = MemorySource(broker)
    source.assign("price", {0: NextOffset(0)})
    messages = list(source.read(10, 0)["price"].messages)
    ledger = PostgresLedger(database, PRICE)
    ledger.prepare()
    ledger.begin(TopicIdentity("cluster", "topic", 1), {0: NextOffset(0)}, first=True)
    connection = PostgresWritingConnection(database, "run-1")
    session = PostgresLedgerSession(connection, PRICE)
    session.own([0], exact=True)
    limits = (1 << 20, 1 << 20, 1 << 20, 10)  # the last one is cut short
    refused = RecordRefused("refused by an older version", stage="decode")
    dead_letters = [
        dead_letter(message, 1, refused, value_limit=limit) for message, limit in zip(messages, limits, strict=True)
    ]
    session.write(Batch([], [], dead_letters, {0: Advance(1, 0, NextOffset(4))}, records=4, rows_before=[0] * 4))
    connection.close()
    return DeadLetters(database, PRICE)


def rows(database: Database) -> list[tuple[int, float]]:
    with database.connect("counting") as connection:
        rows = connection.execute(text("SELECT kafka_offset, price FROM price ORDER BY 1"))
        return [(row.kafka_offset, row.price) for row in rows]


def test_redrive_stores_what_decodes_now_and_leaves_the_rest_open(database: Database, letters: DeadLetters) -> None:
    done = letters.redrive(LetterFilter(), JsonDecoder(PRICE).decode)
    assert done == Redriven(stored=1, refused=2, truncated=1)
    assert rows(database) == [(0, 1.5)]
    left = {row.kafka_offset: row for row in letters.page(LetterFilter())}
    assert set(left) == {1, 2, 3}
    assert left[1].attempts == 2
    assert left[1].reason == "Expected `float`, got `str` - at `$.price`"
    assert left[3].attempts == 1


def test_a_second_redrive_changes_nothing(database: Database, letters: DeadLetters) -> None:
    letters.redrive(LetterFilter(), JsonDecoder(PRICE).decode)
    again = letters.redrive(LetterFilter(), JsonDecoder(PRICE).decode)
    assert (again.stored, again.present) == (0, 0)
    assert rows(database) == [(0, 1.5)]


def test_a_row_that_is_there_already_counts_as_redriven(database: Database, letters: DeadLetters) -> None:
    with database.connect("writing") as connection:
        connection.execute(text("INSERT INTO price VALUES (1, 0, 0, 'ABC', 9, '2026-01-01Z')"))
    assert letters.redrive(LetterFilter(), JsonDecoder(PRICE).decode).present == 1
    assert rows(database) == [(0, 9.0)]


def test_a_dry_run_commits_nothing(database: Database, letters: DeadLetters) -> None:
    done = letters.redrive(LetterFilter(), JsonDecoder(PRICE).decode, dry_run=True)
    assert done == Redriven(stored=1, refused=2, truncated=1)
    assert rows(database) == []
    assert len(letters.page(LetterFilter())) == 4


def test_filters_narrow(letters: DeadLetters) -> None:
    first = letters.page(LetterFilter())[0].id
    assert [row.id for row in letters.page(LetterFilter(ids=[first]))] == [first]
    assert letters.page(LetterFilter(stage="insert")) == []
    assert letters.page(LetterFilter(sqlstate="23514")) == []
    assert len(letters.page(LetterFilter(reason="older version"))) == 4


def test_counters_say_what_happened_at_ingestion_and_do_not_change(database: Database, letters: DeadLetters) -> None:
    before = PostgresLedger(database, PRICE).positions()
    letters.redrive(LetterFilter(), JsonDecoder(PRICE).decode)
    letters.discard(LetterFilter())
    assert PostgresLedger(database, PRICE).positions() == before


def test_the_commands(database_url: str, letters: DeadLetters) -> None:
    def ingest(*words: str) -> str:
        result = CliRunner().invoke(main, ["dead-letters", *words], env={"DATABASE_URL": database_url})
        assert result.exit_code == 0, result.output
        return result.stdout

    listed = ingest("list", "price")
    assert listed.splitlines()[0].split() == ["4", "decode", "refused", "by", "an", "older", "version"]
    first = letters.page(LetterFilter())[0].id
    assert "1.5" in ingest("show", "price", str(first))
    assert ingest("redrive", "price", "--dry-run").startswith("1 would be stored")
    assert ingest("redrive", "price").startswith("1 stored, 0 were there already, 2 refused again, 1 cut short")
    assert ingest("discard", "price", "--yes") == "discarded 3\n"
    assert "no such open dead letter" in ingest("list", "price")
