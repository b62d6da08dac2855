"""What a replay stores and what a redrive does: the real ones and the in-memory ones, by the same words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.ledger import LetterFilter, Replayed
from ingest_pipeline.core.ledger_ports import ReplayStore
from ingest_pipeline.core.record import Batch, Message, NextOffset, Position
from ingest_pipeline.core.rows import RecordRules, decode_batch
from ingest_pipeline.postgres.dead_letters import DeadLetters
from ingest_pipeline.postgres.replay import MissingRows
from ingest_pipeline.testing import MemoryDeadLetters, MemoryMissingRows
from ingest_pipeline_tests.contract.ledger_worlds import (
    COLDEST,
    DROPPED,
    LedgerWorld,
    MemoryWorld,
    PostgresWorld,
    ledger_world,
)
from ingest_pipeline_tests.samples import BAD, READING, good, make_batch, message, tombstone

Decode = Any
ALL = LetterFilter()
DECODE = JsonDecoder(READING).decode
LONG = good("x" * 2000, COLDEST)
"""More than the 1,024 bytes that these tests' letters keep of a value."""


@pytest.fixture(params=["memory", "copy"])
def world(request: pytest.FixtureRequest) -> Iterator[LedgerWorld]:
    with ledger_world(request) as made:
        yield made


def letters_of(world: Any) -> Any:
    if isinstance(world, MemoryWorld):
        return MemoryDeadLetters(world._database, READING)
    return DeadLetters(world.database, READING)


def store_of(world: Any) -> ReplayStore:
    return (
        MemoryMissingRows(world._database, READING)
        if isinstance(world, MemoryWorld)
        else MissingRows(world.database, READING)
    )


def redrive(world: LedgerWorld, decode: Decode = DECODE) -> tuple[int, int, int, int]:
    done = letters_of(world).redrive(ALL, decode)
    return done.stored, done.present, done.refused, done.truncated


def discard(world: LedgerWorld) -> int:
    return int(letters_of(world).discard(ALL))


def drop_constraint(world: Any) -> None:
    if isinstance(world, PostgresWorld):
        world._other.execute("ALTER TABLE reading DROP CONSTRAINT above_zero_kelvin")
    else:
        world._table.checks.clear()


def delete_row(world: Any, offset: int) -> None:
    if isinstance(world, PostgresWorld):
        world._other.execute("DELETE FROM reading WHERE kafka_offset = %s", [offset])
    else:
        del world._table.rows[1, 0, offset]


def records(outcomes: str) -> list[Message]:
    """ "." good, "d" refused by the decoder, "p" by the database, "l" by the database and cut short in its letter."""
    values = {".": None, "d": BAD, "p": good("cold", COLDEST), "l": LONG}
    return [message(0, offset, values[kind]) for offset, kind in enumerate(outcomes)]


def drained(world: LedgerWorld, outcomes: str) -> None:
    session = world.owning("run")
    keep_bytes(session, 1024)
    session.write(make_batch(session.positions, records(outcomes)))
    session.connection.close()


def keep_bytes(session: Any, count: int) -> None:
    """Of a refused row the ledger itself makes the letter."""
    if hasattr(session, "_writer"):
        session._writer._dead_letter_max_bytes = count
    else:
        session._dead_letter_max_bytes = count


def again(world: LedgerWorld, outcomes: str, start: int = 0) -> Batch:
    """The same records as a replay reads them."""
    position = world.ledger.positions()[0]
    return make_batch({0: Position(0, position.incarnation, NextOffset(start))}, records(outcomes)[start:])


def test_what_is_missing_is_stored_and_what_is_there_stays(world: LedgerWorld) -> None:
    drained(world, ".....")
    for offset in (1, 3):
        delete_row(world, offset)
    before = world.ledger.positions()
    assert store_of(world).store(again(world, ".....")) == Replayed(stored=2, present=3)
    assert world.rows() == {(0, offset): f"0/{offset}" for offset in range(5)}
    assert store_of(world).store(again(world, ".....", 2)) == Replayed(present=3)
    assert world.ledger.positions() == before


def test_records_with_a_letter_are_left_to_redrive(world: LedgerWorld) -> None:
    drained(world, ".dp.")
    drop_constraint(world)
    assert store_of(world).store(again(world, ".dp.")) == Replayed(present=2, dead=2)
    assert set(world.rows()) == {(0, 0), (0, 3)}


def test_an_unstorable_record_without_a_letter_is_refused(world: LedgerWorld) -> None:
    drained(world, "...")
    for offset in (0, 1, 2):
        delete_row(world, offset)
    assert store_of(world).store(again(world, "dp.")) == Replayed(stored=1, refused=2)
    assert world.letters() == {}


def test_a_letter_cut_short_is_tried_and_settled_with_its_row(world: LedgerWorld) -> None:
    drained(world, ".l.")
    assert redrive(world) == (0, 0, 0, 1)
    assert store_of(world).store(again(world, ".l.")) == Replayed(present=2, dead=1)
    drop_constraint(world)
    assert store_of(world).store(again(world, ".l.")) == Replayed(stored=1, present=2)
    assert redrive(world) == (0, 0, 0, 0)
    assert store_of(world).store(again(world, ".l.")) == Replayed(present=3)


def test_a_redriven_letter_has_its_row_and_is_tried_no_more(world: LedgerWorld) -> None:
    drained(world, ".pd")
    before = world.ledger.positions()
    assert redrive(world) == (0, 0, 2, 0)
    drop_constraint(world)
    assert redrive(world) == (1, 0, 1, 0)
    assert redrive(world) == (0, 0, 1, 0)
    assert world.rows() == {(0, 0): "0/0", (0, 1): "cold"}
    assert world.ledger.positions() == before
    delete_row(world, 1)
    assert store_of(world).store(again(world, ".pd")) == Replayed(stored=1, present=1, dead=1)
    assert world.ledger.row_count() == len(world.rows())


def test_a_discarded_letter_stays_without_a_row(world: LedgerWorld) -> None:
    drained(world, "pdl")
    assert discard(world) == 3
    drop_constraint(world)
    assert redrive(world) == (0, 0, 0, 0)
    assert store_of(world).store(again(world, "pdl")) == Replayed(dead=3)
    assert world.rows() == {}
    assert len(world.letters()) == 3


def test_a_row_that_is_there_settles_its_letter(world: LedgerWorld) -> None:
    drained(world, "d")
    world.plant((1, 0, 0, None, "mended", 1.0, DECODE(good())[2]))
    assert redrive(world, lambda value: DECODE(good("late"))) == (0, 1, 0, 0)
    assert world.rows() == {(0, 0): "mended"}


def test_a_letter_is_redriven_by_the_rules_of_the_drain(world: LedgerWorld) -> None:
    """One larger than MAX_RECORD_BYTES stays refused, and so does a tombstone that was refused."""
    session = world.owning("run")
    rules = RecordRules(max_record_bytes=1000, dead_letter_max_bytes=1 << 20, tombstones="dead-letter")
    refused: list[Message] = [message(0, 0, LONG), tombstone(0, 1)]
    batch = decode_batch(refused, {}, session.positions, decode=DECODE, rules=rules)
    assert batch is not None
    session.write(batch)
    session.connection.close()
    letters = letters_of(world)
    drop_constraint(world)
    assert letters.redrive(ALL, DECODE, rules).refused == 2
    assert world.letters()[0, 1][1] == "a tombstone: the record has no value"
    assert letters.redrive(ALL, DECODE).stored == 1, "with a larger limit it is a row"


@pytest.mark.parametrize(
    ("letter_filter", "discarded"),
    [
        (LetterFilter(stage="decode"), [1]),
        (LetterFilter(sqlstate="23514"), [0, 2]),
        (LetterFilter(reason="above_zero"), [0, 2]),
        (LetterFilter(reason="above_zero", stage="decode"), []),
        (ALL, [0, 1, 2]),
    ],
)
def test_a_filter_selects_letters(world: LedgerWorld, letter_filter: LetterFilter, discarded: list[int]) -> None:
    session = world.owning("run")
    values = [good("a", COLDEST), BAD, good("b", COLDEST)]
    session.write(make_batch(session.positions, [message(0, offset, value) for offset, value in enumerate(values)]))
    session.connection.close()
    letters = letters_of(world)
    assert letters.discard(letter_filter) == len(discarded)
    drop_constraint(world)
    redriven = letters.redrive(ALL, lambda _: JsonDecoder(READING).decode(good("c")))
    assert redriven.stored == 3 - len(discarded)
    assert [offset for _, offset in world.rows()] == [offset for offset in range(3) if offset not in discarded]


def dropping(outcomes: str) -> list[Message]:
    """ "." good, "-" one that a trigger drops."""
    values = {".": None, "-": good(DROPPED)}
    return [message(0, offset, values[kind]) for offset, kind in enumerate(outcomes)]


def test_a_replay_says_what_a_trigger_drops(world: LedgerWorld) -> None:
    session = world.owning("run")
    session.write(make_batch(session.positions, dropping(".-.-")))
    session.connection.close()
    delete_row(world, 0)
    delete_row(world, 1)
    world.drop_rows()
    batch = make_batch({0: Position(0, 1, NextOffset(0))}, dropping(".-.-"))
    assert store_of(world).store(batch) == Replayed(stored=1, present=2, skipped=1)
    assert [offset for _, offset in world.rows()] == [0, 2, 3]


def test_a_letter_is_redriven_only_with_its_row(world: LedgerWorld) -> None:
    session = world.owning("run")
    session.write(make_batch(session.positions, [message(0, 0, BAD), message(0, 1, BAD)]))
    session.connection.close()
    world.drop_rows()

    def decode(value: bytes) -> Any:
        (_, *rest) = DECODE(good())
        return (DROPPED, *rest)

    assert redrive(world, decode) == (0, 0, 2, 0)
    assert redrive(world, decode) == (0, 0, 2, 0)
    assert world.rows() == {}
    assert {(stage, reason) for stage, reason, *_ in world.letters().values()} == {
        ("insert", "a trigger of the table drops the row")
    }
    world.keep_rows()
    assert redrive(world, decode) == (2, 0, 0, 0)
    assert len(world.rows()) == 2
