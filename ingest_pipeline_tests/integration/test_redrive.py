"""Redrive interrupted, filtered, and in two processes at once. A letter and its row change together, once."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, text

from ingest_pipeline import Stream
from ingest_pipeline.cli.main import main
from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.errors import DatabaseUnavailable, RecordRefused
from ingest_pipeline.core.ledger import LetterFilter, Redriven
from ingest_pipeline.postgres.dead_letters import CHUNK, DeadLetters
from ingest_pipeline_tests.declared import declare
from ingest_pipeline_tests.integration.postgres_bench import Bench
from ingest_pipeline_tests.samples import READING, Reading, good

ALL = LetterFilter()
DECODE = JsonDecoder(READING).decode
STATES = "SELECT status, attempts, resolved_at IS NOT NULL FROM ingest.dead_letter ORDER BY kafka_offset"
OPEN, REDRIVEN = ("open", 1, False), ("redriven", 2, True)
WAIT_SECONDS = 180.0


def refused(bench: Bench, count: int, chunk: int = CHUNK) -> DeadLetters:
    """Dead letters whose records the stream would store today."""
    bench.refuse([good()] * count)
    return DeadLetters(bench.database, READING, chunk=chunk)


def day(number: int) -> datetime:
    return datetime(2026, 1, number, tzinfo=UTC)


# --- cut short ------------------------------------------------------------------------------------------------------


def fail(_connection: Connection) -> None:
    raise RuntimeError("crash")


def lose_session(connection: Connection) -> None:
    connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


def crash_at_third(patch: pytest.MonkeyPatch, letters: DeadLetters, crash: Callable[[Connection], None]) -> list[int]:
    """The open transaction has the third letter's row, but not its new status. The rows before each status update."""
    redrive_one = letters._redrive_one
    seen: list[int] = []

    def redrive_and_crash(connection: Connection, *rest: Any) -> Any:
        outcome = redrive_one(connection, *rest)
        seen.append(connection.execute(text("SELECT count(*) FROM reading")).scalar_one())
        if len(seen) == 3:
            crash(connection)
        return outcome

    patch.setattr(letters, "_redrive_one", redrive_and_crash)
    return seen


@pytest.mark.parametrize(("crash", "raised"), [(fail, RuntimeError), (lose_session, DatabaseUnavailable)])
def test_a_crash_between_row_and_status_changes_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, crash: Callable[[Connection], None], raised: type[Exception]
) -> None:
    letters = refused(bench, 4)
    with monkeypatch.context() as patch:
        seen = crash_at_third(patch, letters, crash)
        with pytest.raises(raised):
            letters.redrive(ALL, DECODE)
    assert seen == [1, 2, 3], "each row was there before its letter's status"
    assert bench.offsets() == []
    assert bench.sql(STATES) == [OPEN] * 4
    assert letters.redrive(ALL, DECODE) == Redriven(stored=4)
    assert bench.offsets() == [0, 1, 2, 3]
    assert bench.sql(STATES) == [REDRIVEN] * 4
    assert letters.redrive(ALL, DECODE) == Redriven()


def test_what_was_committed_before_a_crash_stays_done(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = refused(bench, 4, chunk=2)
    told: list[Redriven] = []
    with monkeypatch.context() as patch:
        crash_at_third(patch, letters, fail)
        with pytest.raises(RuntimeError):
            letters.redrive(ALL, DECODE, observe=told.append)
    assert told == [Redriven(stored=2)]
    assert bench.offsets() == [0, 1]
    assert bench.sql(STATES) == [REDRIVEN, REDRIVEN, OPEN, OPEN]
    assert letters.redrive(ALL, DECODE) == Redriven(stored=2)
    assert bench.offsets() == [0, 1, 2, 3]
    assert bench.sql(STATES) == [REDRIVEN] * 4


# --- narrowed -------------------------------------------------------------------------------------------------------

REASONS = [
    RecordRefused("Object missing required field `device_id`", stage="decode"),
    RecordRefused("JSON is malformed: invalid character", stage="decode"),
    RecordRefused("check violation (23514), constraint warm_100%", stage="insert", sqlstate="23514"),
    RecordRefused("not null violation (23502), column device_id", stage="insert", sqlstate="23502"),
    RecordRefused("Kafka timestamp is out of range", stage="timestamp"),
]


@pytest.fixture
def letters(bench: Bench) -> DeadLetters:
    """One letter for each reason, refused on consecutive days from the first of January."""
    made = bench.refuse([good()] * len(REASONS), REASONS)
    bench.sql("UPDATE ingest.dead_letter SET failed_at = %s + kafka_offset * interval '1 day'", day(1))
    return made


@pytest.mark.parametrize(
    ("letter_filter", "chosen"),
    [
        (LetterFilter(since=day(3)), [2, 3, 4]),
        (LetterFilter(until=day(3)), [0, 1]),
        (LetterFilter(since=day(2), until=day(4)), [1, 2]),
        (LetterFilter(sqlstate="23514"), [2]),
        (LetterFilter(stage="insert"), [2, 3]),
        (LetterFilter(reason="violation"), [2, 3]),
        (LetterFilter(reason="warm_100%"), [2]),
        (LetterFilter(reason="device_id", stage="insert"), [3]),
        (LetterFilter(reason="a%e"), []),
    ],
    ids=["since", "until", "between", "sqlstate", "stage", "reason", "no-pattern", "both", "none"],
)
def test_exactly_the_chosen_letters_move(
    bench: Bench, letters: DeadLetters, letter_filter: LetterFilter, chosen: list[int]
) -> None:
    assert [letter.kafka_offset for letter in letters.page(letter_filter)] == chosen
    assert letters.redrive(letter_filter, DECODE) == Redriven(stored=len(chosen))
    assert bench.offsets() == chosen
    assert bench.sql(STATES) == [REDRIVEN if offset in chosen else OPEN for offset in range(5)]
    assert letters.redrive(letter_filter, DECODE) == Redriven()


def test_the_letters_named_by_id_move_and_those_of_another_stream_do_not(bench: Bench, letters: DeadLetters) -> None:
    ids = bench.sql("SELECT id FROM ingest.dead_letter ORDER BY kafka_offset")
    bench.sql("UPDATE ingest.dead_letter SET stream = 'another' WHERE kafka_offset = 4")
    assert letters.redrive(LetterFilter(ids=[ids[1], ids[3], ids[4]]), DECODE) == Redriven(stored=2)
    assert bench.offsets() == [1, 3]
    assert bench.sql(STATES) == [OPEN, REDRIVEN, OPEN, REDRIVEN, OPEN]


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ("--since 2026-01-03T00:00:00Z", [2, 3, 4]),
        ("--until 2026-01-03T00:00:00Z", [0, 1]),
        ("--sqlstate 23514", [2]),
        ("--stage insert", [2, 3]),
        ("--reason violation", [2, 3]),
        ("--id {ids[1]} --id {ids[3]}", [1, 3]),
    ],
)
def test_the_command_has_an_option_for_each(
    bench: Bench, letters: DeadLetters, monkeypatch: pytest.MonkeyPatch, words: str, chosen: list[int]
) -> None:
    declare(monkeypatch, [READING])
    given = words.format(ids=bench.sql("SELECT id FROM ingest.dead_letter ORDER BY kafka_offset")).split()
    done = CliRunner().invoke(main, ["dead-letters", "redrive", "reading", *given], env={"DATABASE_URL": bench.url})
    assert done.exit_code == 0, done.output
    assert f"{len(chosen)} stored, 0 were there already, 0 refused again" in done.output
    assert bench.offsets() == chosen


# --- twice at once --------------------------------------------------------------------------------------------------


def test_a_second_redrive_leaves_the_letters_that_a_first_one_has_in_hand(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = refused(bench, 25, chunk=10)
    redrive_one = letters._redrive_one
    held, go_on = threading.Event(), threading.Event()

    def hold_the_first(connection: Connection, *rest: Any) -> Any:
        if not held.is_set():
            held.set()
            assert go_on.wait(WAIT_SECONDS)
        return redrive_one(connection, *rest)

    monkeypatch.setattr(letters, "_redrive_one", hold_the_first)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(letters.redrive, ALL, DECODE)
        try:
            assert held.wait(WAIT_SECONDS)
            assert letters.redrive(ALL, DECODE) == Redriven(stored=15)
            assert bench.offsets() == list(range(10, 25))
        finally:
            go_on.set()
        assert first.result(WAIT_SECONDS) == Redriven(stored=10)
    assert sorted(bench.offsets()) == list(range(25))
    assert bench.sql(STATES) == [REDRIVEN] * 25


def test_redrives_that_race_try_every_letter_once(bench: Bench) -> None:
    letters, start = refused(bench, 200, chunk=3), threading.Barrier(2)

    def redrive(_number: int) -> Redriven:
        start.wait(WAIT_SECONDS)
        return letters.redrive(ALL, DECODE)

    with ThreadPoolExecutor(2) as threads:
        done = list(threads.map(redrive, range(2)))
    assert [sum(counts.stored for counts in done), sum(sum(astuple(counts)) for counts in done)] == [200, 200]
    assert sorted(bench.offsets()) == list(range(200))
    assert bench.sql(STATES) == [REDRIVEN] * 200


# --- the rest of a value that was cut short -------------------------------------------------------------------------


def test_only_commands_that_work_are_named_for_values_that_were_cut_short(bench: Bench) -> None:
    letters = refused(bench, 2)
    bench.sql("UPDATE ingest.dead_letter SET truncated = true WHERE kafka_offset = 1")
    assert letters.how_to_fetch(ALL).endswith("\n  ingest replay reading --partition 0 --from-offset 1 --to-offset 2")
    for refusing in (
        Stream("reading", Reading, coordinates=False),
        Stream("reading", Reading, key=("device_id",), deletes=True),
    ):
        words = DeadLetters(bench.database, refusing).how_to_fetch(ALL)
        assert words.startswith("a replay refuses this stream: ")
    bench.sql("UPDATE ingest.position SET kafka_incarnation = 2")
    assert letters.how_to_fetch(ALL) == "", "the offset is another record's"
