"""Redrive on a real PostgreSQL, and the commands."""

from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from ingest_pipeline.cli.main import main
from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.ledger import LetterFilter, Redriven
from ingest_pipeline.postgres.dead_letters import DeadLetters
from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.integration.postgres_bench import Bench

PRICE = next(stream for stream in STREAMS if stream.name == "price")
GOOD = b'{"symbol": "ABC", "price": 1.5, "timestamp": "2026-01-01T00:00:00Z"}'
BAD = b'{"symbol": "ABC", "price": "n/a", "timestamp": "2026-01-01T00:00:00Z"}'
NOT_JSON = b"\xff\x00"
ALL = LetterFilter()
DECODE = JsonDecoder(PRICE).decode
ROWS = "SELECT kafka_offset, price FROM price"


@pytest.fixture
def bench(database_url: str) -> Iterator[Bench]:
    with Bench(database_url, PRICE) as made:
        yield made.begin()


@pytest.fixture
def letters(bench: Bench) -> DeadLetters:
    """Four dead letters with valid and invalid values. The last one is cut short."""
    return bench.refuse([GOOD, BAD, NOT_JSON, GOOD + b" " * 1024])


def test_redrive_stores_what_decodes_now_and_leaves_the_rest_open(bench: Bench, letters: DeadLetters) -> None:
    assert letters.redrive(ALL, DECODE) == Redriven(stored=1, refused=2, truncated=1)
    assert bench.sql(ROWS) == [(0, 1.5)]
    left = {row.kafka_offset: row for row in letters.page(ALL)}
    assert set(left) == {1, 2, 3}
    assert left[1].attempts == 2
    assert left[1].reason == "Expected `float`, got `str` - at `$.price`"
    assert left[3].attempts == 1


def test_a_dry_run_commits_nothing(bench: Bench, letters: DeadLetters) -> None:
    done = letters.redrive(ALL, DECODE, dry_run=True)
    assert done == Redriven(stored=1, refused=2, truncated=1)
    assert bench.sql(ROWS) == []
    assert len(letters.page(ALL)) == 4


def test_the_commands(bench: Bench, letters: DeadLetters) -> None:
    def ingest(*words: str) -> str:
        result = CliRunner().invoke(main, ["dead-letters", *words], env={"DATABASE_URL": bench.url})
        assert result.exit_code == 0, result.output
        return result.stdout

    listed = ingest("list", "price")
    assert listed.splitlines()[0].split() == ["4", "decode", "older", "version"]
    first = letters.page(ALL)[0].id
    assert "1.5" in ingest("show", "price", str(first))
    assert ingest("redrive", "price", "--dry-run").startswith("1 would be stored")
    assert ingest("redrive", "price").startswith("1 stored, 0 were there already, 2 refused again, 1 cut short")
    assert ingest("discard", "price", "--yes") == "discarded 3\n"
    assert "no such open dead letter" in ingest("list", "price")
