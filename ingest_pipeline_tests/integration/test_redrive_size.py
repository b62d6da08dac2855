"""Redrive of large letters and into slow tables: bounded by bytes, and never cut short by its size."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from ingest_pipeline.cli.main import main
from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.ledger import LetterFilter, Redriven, Replayed
from ingest_pipeline.core.record import NextOffset, Position
from ingest_pipeline.postgres.dead_letters import CHUNK_BYTES, DeadLetters
from ingest_pipeline.postgres.replay import MissingRows
from ingest_pipeline_tests.declared import declare
from ingest_pipeline_tests.integration.postgres_bench import Bench
from ingest_pipeline_tests.samples import READING, make_batch, message

MIB = 1 << 20
ALL = LetterFilter()
DECODE = JsonDecoder(READING).decode


def refuse(
    bench: Bench, count: int, size: int, *, truncated: bool = False, chunk_bytes: int = CHUNK_BYTES
) -> DeadLetters:
    """Open letters with valid values of a little more than `size` bytes."""
    bench.sql(
        """INSERT INTO ingest.dead_letter (stream, topic, kafka_incarnation, kafka_partition, kafka_offset, value,
               value_bytes, value_sha256, truncated, stage, reason, run_id)
           SELECT 'reading', 'reading', 1, 0, n,
                  convert_to('{"temperature":1,"timestamp":"2026-01-01T00:00:00Z","device_id":"'
                             || repeat('x', %s::int) || '"}', 'UTF8'),
                  %s, sha256('x'), %s, 'decode', 'too new', 'run'
           FROM generate_series(1, %s::int) n""",
        size,
        size,
        truncated,
        count,
    )
    return DeadLetters(bench.database, READING, chunk_bytes=chunk_bytes)


def peak(url: str, count: int) -> int:
    command = [sys.executable, "-m", "ingest_pipeline_tests.integration.redrive_peak", url, str(count)]
    return int(subprocess.run(command, check=True, text=True, capture_output=True).stdout)


def test_ten_times_the_letters_take_no_more_memory(bench: Bench) -> None:
    refuse(bench, 300, MIB)
    few, many = peak(bench.url, 30), peak(bench.url, 300)
    assert many < 1.3 * few, f"{few:,} kB for 30 letters of 1 MiB, {many:,} kB for 300"


def test_a_transaction_takes_so_many_bytes(bench: Bench) -> None:
    letters = refuse(bench, 5, 1000, chunk_bytes=2500)
    told: list[Redriven] = []
    assert letters.redrive(ALL, DECODE, observe=told.append) == Redriven(stored=5)
    assert told == [Redriven(stored=2), Redriven(stored=4), Redriven(stored=5)]


def test_a_letter_larger_than_a_transaction_takes_is_redriven_alone(bench: Bench) -> None:
    letters = refuse(bench, 3, 1000, chunk_bytes=10)
    assert letters.redrive(ALL, DECODE) == Redriven(stored=3)


def test_values_that_are_not_whole_are_not_fetched(bench: Bench) -> None:
    letters = refuse(bench, 4, 1000, truncated=True, chunk_bytes=2500)
    told: list[Redriven] = []
    assert letters.redrive(ALL, DECODE, observe=told.append) == Redriven(truncated=4)
    assert told == [Redriven(truncated=4)]


@pytest.fixture
def slow(bench: Bench, queries_end_after_a_second: None) -> Bench:
    bench.sql(
        """CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1.5); RETURN NEW; END';
           CREATE TRIGGER slow BEFORE INSERT ON reading FOR EACH ROW EXECUTE FUNCTION slow()"""
    )
    return bench


def test_a_row_may_take_longer_to_redrive_than_a_question(slow: Bench) -> None:
    assert refuse(slow, 1, 10).redrive(ALL, DECODE) == Redriven(stored=1)


def test_a_row_may_take_longer_to_replay_than_a_question(slow: Bench) -> None:
    batch = make_batch({0: Position(0, 1, NextOffset(0))}, [message(0, 0)])
    assert MissingRows(slow.database, READING).store(batch) == Replayed(stored=1)


def test_show_fetches_the_first_bytes_of_a_large_letter(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = refuse(bench, 1, 8 * MIB)
    row = letters.show(1, preview_bytes=100)
    assert row is not None
    assert (len(row.value), row.kept_bytes) == (100, 8 * MIB + 67)
    declare(monkeypatch, [READING])
    shown = CliRunner().invoke(main, ["dead-letters", "show", "reading", "1"], env={"DATABASE_URL": bench.url})
    assert f"… ({8 * MIB + 67:,} bytes)" in shown.stdout
    assert len(shown.stdout) < 10_000
