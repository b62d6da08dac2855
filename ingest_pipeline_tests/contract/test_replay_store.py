"""What a replay stores and what a redrive does: the real ones and the in-memory ones, by the same words."""

from collections.abc import Iterator
from typing import Any

import pytest

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.ledger import LetterFilter, Redriven, Replayed
from ingest_pipeline.core.record import Message
from ingest_pipeline.core.rows import RecordRules, decode_batch
from ingest_pipeline_tests.contract.ledger_worlds import COLDEST, CONSTRAINT, DROPPED, LedgerWorld, ledger_world
from ingest_pipeline_tests.samples import BAD, READING, good, message, tombstone

ALL = LetterFilter()
DECODE = JsonDecoder(READING).decode
LONG = good("x" * 2000, COLDEST)
"""More than the 1,024 bytes that these tests' letters keep of a value."""


@pytest.fixture(params=["memory", "copy"])
def world(request: pytest.FixtureRequest) -> Iterator[LedgerWorld]:
    with ledger_world(request) as made:
        yield made


def values(outcomes: str) -> list[bytes | None]:
    """ "." good, "d" refused by the decoder, "p" by the database, "l" by the database and cut short in its letter."""
    kinds = {".": None, "d": BAD, "p": good("cold", COLDEST), "l": LONG, "-": good(DROPPED)}
    return [kinds[kind] for kind in outcomes]


def drained(world: LedgerWorld, outcomes: str) -> None:
    keep_bytes(world.session, 1024)
    world.write(*values(outcomes))


def keep_bytes(session: Any, count: int) -> None:
    """Of a refused row the ledger itself makes the letter."""
    if hasattr(session, "_writer"):
        session._writer._dead_letter_max_bytes = count
    else:
        session._dead_letter_max_bytes = count


def test_what_is_missing_is_stored_and_what_is_there_stays(world: LedgerWorld) -> None:
    drained(world, ".....")
    for offset in (1, 3):
        world.delete(offset)
    before = world.ledger.positions()
    assert world.replay(*values(".....")) == Replayed(stored=2, present=3)
    assert world.rows() == {(0, offset): f"0/{offset}" for offset in range(5)}
    assert world.replay(*values("..."), start=2) == Replayed(present=3)
    assert world.ledger.positions() == before


def test_records_with_a_letter_are_left_to_redrive(world: LedgerWorld) -> None:
    drained(world, ".dp.")
    world.drop_check(CONSTRAINT)
    assert world.replay(*values(".dp.")) == Replayed(present=2, dead=2)
    assert set(world.rows()) == {(0, 0), (0, 3)}


def test_an_unstorable_record_without_a_letter_is_refused(world: LedgerWorld) -> None:
    drained(world, "...")
    for offset in (0, 1, 2):
        world.delete(offset)
    assert world.replay(*values("dp.")) == Replayed(stored=1, refused=2)
    assert world.letters() == {}


def test_a_letter_cut_short_is_tried_and_settled_with_its_row(world: LedgerWorld) -> None:
    drained(world, ".l.")
    assert world.redrive() == Redriven(truncated=1)
    assert world.replay(*values(".l.")) == Replayed(present=2, dead=1)
    world.drop_check(CONSTRAINT)
    assert world.replay(*values(".l.")) == Replayed(stored=1, present=2)
    assert world.redrive() == Redriven()
    assert world.replay(*values(".l.")) == Replayed(present=3)


def test_a_redriven_letter_has_its_row_and_is_tried_no_more(world: LedgerWorld) -> None:
    drained(world, ".pd")
    before = world.ledger.positions()
    assert world.redrive() == Redriven(refused=2)
    world.drop_check(CONSTRAINT)
    assert world.redrive() == Redriven(stored=1, refused=1)
    assert world.redrive() == Redriven(refused=1)
    assert world.rows() == {(0, 0): "0/0", (0, 1): "cold"}
    assert world.ledger.positions() == before
    world.delete(1)
    assert world.replay(*values(".pd")) == Replayed(stored=1, present=1, dead=1)
    assert world.ledger.row_count() == len(world.rows())


def test_a_discarded_letter_stays_without_a_row(world: LedgerWorld) -> None:
    drained(world, "pdl")
    before = world.ledger.positions()
    assert world.dead_letters.discard(ALL) == 3
    assert world.ledger.positions() == before
    world.drop_check(CONSTRAINT)
    assert world.redrive() == Redriven()
    assert world.replay(*values("pdl")) == Replayed(dead=3)
    assert world.rows() == {}
    assert len(world.letters()) == 3


def test_a_row_that_is_there_settles_its_letter(world: LedgerWorld) -> None:
    drained(world, "d")
    world.plant((1, 0, 0, None, "mended", 1.0, DECODE(good())[2]))
    assert world.dead_letters.redrive(ALL, lambda value: DECODE(good("late"))) == Redriven(present=1)
    assert world.rows() == {(0, 0): "mended"}


def test_a_letter_is_redriven_by_the_rules_of_the_drain(world: LedgerWorld) -> None:
    """One larger than MAX_RECORD_BYTES stays refused, and so does a tombstone that was refused."""
    rules = RecordRules(max_record_bytes=1000, dead_letter_max_bytes=1 << 20, tombstones="dead-letter")
    refused: list[Message] = [message(0, 0, LONG), tombstone(0, 1)]
    batch = decode_batch(refused, {}, world.session.positions, decode=DECODE, rules=rules)
    assert batch is not None
    world.session.write(batch)
    letters = world.dead_letters
    world.drop_check(CONSTRAINT)
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
    drained(world, "pdp")
    letters = world.dead_letters
    assert letters.discard(letter_filter) == len(discarded)
    world.drop_check(CONSTRAINT)
    redriven = letters.redrive(ALL, lambda _: JsonDecoder(READING).decode(good("c")))
    assert redriven.stored == 3 - len(discarded)
    assert [offset for _, offset in world.rows()] == [offset for offset in range(3) if offset not in discarded]


def test_a_replay_says_what_a_trigger_drops(world: LedgerWorld) -> None:
    drained(world, ".-.-")
    world.delete(0)
    world.delete(1)
    world.drop_rows()
    assert world.replay(*values(".-.-")) == Replayed(stored=1, present=2, skipped=1)
    assert [offset for _, offset in world.rows()] == [0, 2, 3]


def test_a_letter_is_redriven_only_with_its_row(world: LedgerWorld) -> None:
    drained(world, "dd")
    world.drop_rows()

    def decode(value: bytes) -> Any:
        (_, *rest) = DECODE(good())
        return (DROPPED, *rest)

    assert world.dead_letters.redrive(ALL, decode) == Redriven(refused=2)
    assert world.dead_letters.redrive(ALL, decode) == Redriven(refused=2)
    assert world.rows() == {}
    assert {(stage, reason) for stage, reason, *_ in world.letters().values()} == {
        ("insert", "a trigger of the table drops the row")
    }
    world.keep_rows()
    assert world.dead_letters.redrive(ALL, decode) == Redriven(stored=2)
    assert len(world.rows()) == 2
