"""The dead-letter limit, and going on after a loss: of the real ledger and of the in-memory one."""

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from ingest_pipeline.core.dead_letter_limit import WINDOW, LetterLimits
from ingest_pipeline.core.errors import DatabaseUnavailable, DeadLetterLimit, Superseded
from ingest_pipeline.core.loss import Acceptance, Loss, noted_loss
from ingest_pipeline.core.record import Message, NextOffset, Position, TopicIdentity
from ingest_pipeline.testing import Fault
from ingest_pipeline_tests.contract.ledger_worlds import COLDEST, LedgerWorld, ledger_world, untouched
from ingest_pipeline_tests.contract.stream_worlds import WORLDS, counters
from ingest_pipeline_tests.samples import BAD, IDENTITY, good, make_batch, message, messages
from ingest_pipeline_tests.waiting import wait_for


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> Iterator[LedgerWorld]:
    with ledger_world(request) as made:
        made.limits = LetterLimits(max_ratio=1.0, max_consecutive=3)
        yield made


def batch_of(session: Any, outcomes: str, partition: int = 0) -> Any:
    """Records behind the position: "." good, "d" refused by the decoder, "p" by the database."""
    first = session.positions[partition].resume_at.next_offset
    values = {".": None, "d": BAD, "p": good("cold", COLDEST)}
    records: list[Message] = [message(partition, first + i, values[kind]) for i, kind in enumerate(outcomes)]
    return make_batch(session.positions, records)


@pytest.mark.parametrize("outcomes", ["dddd", "pppp", "..dpdp", "p" * 50])
def test_beyond_the_limit_nothing_is_committed(world: LedgerWorld, outcomes: str) -> None:
    session = world.owning("run")
    with pytest.raises(DeadLetterLimit, match="4 records in a row were refused"):
        session.write(batch_of(session, outcomes))
    assert untouched(world)
    session.write(batch_of(session, "dpd.ddd."))
    assert counters(world, 0) == (8, 2, 6, 0, 0)


def test_the_window_goes_over_batches(world: LedgerWorld) -> None:
    session = world.owning("run")
    session.write(batch_of(session, ".dp"))
    session.write(batch_of(session, "d", partition=1))
    with pytest.raises(DeadLetterLimit):
        session.write(batch_of(session, "p"))
    session.write(batch_of(session, ".ddd"))
    with pytest.raises(DeadLetterLimit):
        session.write(batch_of(session, "d"))


def test_the_window_goes_over_runs(world: LedgerWorld) -> None:
    """A quiet stream whose every run brings one bad record trips it too."""
    for number in range(3):
        session = world.owning(f"run-{number}")
        session.write(batch_of(session, "d", partition=number % 2))
        session.connection.close()
    last = world.owning("run-3")
    with pytest.raises(DeadLetterLimit):
        last.write(batch_of(last, "p"))
    last.write(batch_of(last, ".ddd"))


@pytest.mark.parametrize("fault", list(Fault))
def test_the_window_is_right_after_a_lost_connection(world: LedgerWorld, fault: Fault) -> None:
    session = world.owning("run")
    session.write(batch_of(session, ".d"))
    batch = batch_of(session, "dd")
    world.break_write(session, fault)
    with pytest.raises(DatabaseUnavailable):
        session.write(batch)
    if session.recover(batch) is None:
        session.write(batch)
    with pytest.raises(DeadLetterLimit):
        session.write(batch_of(session, "d"))


def test_letters_are_acknowledged(world: LedgerWorld) -> None:
    assert world.ledger.state().acknowledged_at is None
    world.ledger.acknowledge_letters()
    first = world.ledger.state().acknowledged_at
    world.ledger.acknowledge_letters()
    last = world.ledger.state().acknowledged_at
    assert first is not None and last is not None
    assert first <= last


def test_an_allowance_lets_so_many_pass_once(world: LedgerWorld) -> None:
    world.ledger.allow_letters(10)
    session = world.owning("run")
    session.write(batch_of(session, "dddpppd"))
    assert world.ledger.state().letters_allowed == 3
    session.write(batch_of(session, "dddddd"))
    assert world.ledger.state().letters_allowed == 0
    session.connection.close()
    assert counters(world, 0) == (13, 0, 13, 0, 0)
    after = world.owning("run-2")  # the allowed letters are not counted again, the three others are
    with pytest.raises(DeadLetterLimit):
        after.write(batch_of(after, "d"))
    world.ledger.allow_letters(1)
    after.write(batch_of(after, "d"))


def test_what_another_shard_uses_up_meanwhile_is_not_allowed_again(world: LedgerWorld) -> None:
    if world.in_memory:
        pytest.skip("one mutex: nothing happens meanwhile")
    world.ledger.allow_letters(3)
    session, written = world.owning("run"), []
    with psycopg.connect(world.url) as other:
        other.execute("UPDATE ingest.stream_state SET letters_allowed = 1")
        writing = threading.Thread(target=lambda: written.append(session.write(batch_of(session, "dd"))))
        writing.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        wait_for("the writer to wait", lambda: world.sql(waiting) == [(1,)])
    writing.join()
    assert len(written) == 1
    assert world.sql("SELECT count(*) FILTER (WHERE allowed), count(*) FROM ingest.dead_letter") == [(1, 2)]


def test_the_window_holds_records_not_offsets(world: LedgerWorld) -> None:
    """In a log of small transactions half of the offsets, and more, are markers."""
    world.limits = LetterLimits(max_ratio=0.1, max_consecutive=100)
    session = world.owning("run")
    for first in range(0, WINDOW, 100):
        kept = [message(0, 4 * n, None if n % 10 else BAD) for n in range(first, first + 100)]
        session.write(make_batch(session.positions, kept))
    session.connection.close()
    after = world.owning("run-2")
    with pytest.raises(DeadLetterLimit):
        after.write(make_batch(after.positions, [message(0, 4 * (WINDOW + n), BAD) for n in range(2)]))


def test_without_limits_everything_passes(world: LedgerWorld) -> None:
    world.limits = None
    session = world.owning("run")
    session.write(batch_of(session, "d" * 200 + "p" * 20))
    assert counters(world, 0) == (220, 0, 220, 0, 0)


# --- going on after a loss ------------------------------------------------------------------------------------------


def lost(position: Position, cause: str = "retention", low: int = 9, high: int = 20) -> Loss:
    return noted_loss(
        cause=cause,
        partition=position.partition,
        incarnation=position.incarnation,
        expected=position.resume_at.next_offset,
        low=low,
        high=high,
    )


def test_a_gap_is_counted_as_lost(world: LedgerWorld) -> None:
    session = world.owning("run")
    session.write(make_batch(session.positions, messages(0, range(4))))
    session.accept([Acceptance(lost(session.positions[0]), NextOffset(9, 2))], IDENTITY, "ann")
    assert session.positions[0] == Position(0, 1, NextOffset(9, 2))
    position = world.ledger.positions()[0]
    assert (position.next_offset, position.rows, position.lost, position.leader_epoch) == (9, 4, 5, 2)
    session.write(make_batch(session.positions, messages(0, [9])))
    assert counters(world, 0) == (10, 5, 0, 0, 0)


def test_used_offsets_come_again_under_a_new_incarnation(world: LedgerWorld) -> None:
    session = world.owning("run")
    session.write(make_batch(session.positions, messages(0, range(4))))
    identity = TopicIdentity("cluster", "another", 2)
    session.accept([Acceptance(lost(session.positions[0], "truncated", 0, 2), NextOffset(2))], identity, "ann")
    position = world.ledger.positions()[0]
    assert (position.incarnation, position.first_offset, position.next_offset, position.rows, position.topic_id) == (
        2,
        2,
        2,
        0,
        "another",
    )
    assert world.ledger.positions()[1].topic_id == IDENTITY.topic_id
    session.write(make_batch(session.positions, messages(0, [2, 3])))
    assert (session.positions[0].incarnation, world.ledger.positions()[0].rows) == (2, 2)


def test_what_a_new_incarnation_leaves_out_is_counted_as_lost(world: LedgerWorld) -> None:
    session = world.owning("run")
    session.write(make_batch(session.positions, messages(0, range(4))))
    session.accept([Acceptance(lost(session.positions[0], "truncated", 2, 3), NextOffset(9), low=2)], IDENTITY, "ann")
    position = world.ledger.positions()[0]
    assert (position.incarnation, position.first_offset, position.next_offset, position.lost) == (2, 2, 9, 7)
    session.write(make_batch(session.positions, messages(0, [9])))
    assert world.ledger.positions()[0].next_offset == 10


def test_a_partition_that_is_no_more_is_closed(world: LedgerWorld) -> None:
    session = world.owning("run")
    session.write(make_batch(session.positions, messages(1, range(4))))
    session.accept([Acceptance(lost(session.positions[1], "truncated"), None)], IDENTITY, "ann")
    assert list(world.ledger.positions()) == list(session.positions) == [0]


def test_a_partition_that_was_closed_and_is_seen_again_takes_a_new_incarnation(world: LedgerWorld) -> None:
    session = world.owning("run")
    session.write(make_batch(session.positions, messages(1, range(4))))
    session.accept([Acceptance(lost(session.positions[1], "truncated"), None)], IDENTITY, "ann")
    session.connection.close()
    world.ledger.begin(IDENTITY, {1: NextOffset(0), 2: NextOffset(0)}, first=False)
    incarnations = {p: position.incarnation for p, position in world.ledger.positions().items()}
    assert incarnations[0] == incarnations[2] == 1 < incarnations[1]
    again = world.owning("again")
    again.write(make_batch(again.positions, messages(1, range(4))))
    assert counters(world, 1) == (4, 4, 0, 0, 0)
    again.accept([Acceptance(lost(again.positions[1], "truncated"), None)], IDENTITY, "ann")
    assert list(world.ledger.positions()) == [0, 2]


def test_a_partition_that_was_closed_meanwhile_is_superseded(world: LedgerWorld) -> None:
    """Two people accept the same loss while a run goes on that lost its locks unnoticed."""
    frozen = world.owning("frozen")
    batch = batch_of(frozen, "..", partition=1)
    world.free(frozen)
    closing = [Acceptance(lost(frozen.positions[1], "truncated"), None)]
    first = world.owning("first")
    first.accept(closing, IDENTITY, "ann")
    first.connection.close()
    second = world.owning("second", 1)
    assert second.positions == {}
    with pytest.raises(Superseded):
        second.accept(closing, IDENTITY, "bob")
    second.connection.close()
    with pytest.raises(Superseded):
        frozen.write(batch)
    with pytest.raises(Superseded):
        frozen.recover(batch)
    assert list(world.ledger.positions()) == [0]


def test_a_position_that_moved_is_not_accepted(world: LedgerWorld) -> None:
    session = world.owning("run")
    stale = [Acceptance(lost(position), NextOffset(9)) for position in session.positions.values()]
    session.write(make_batch(session.positions, messages(1, [0])))
    with pytest.raises(Superseded):
        session.accept(stale, IDENTITY, "ann")
    assert counters(world, 0) == (0, 0, 0, 0, 0)


def test_what_was_noted_holds_until_the_position_moves(world: LedgerWorld) -> None:
    session = world.owning("run")
    first = lost(session.positions[0], "truncated", 0, 7)
    world.ledger.note_loss(first)
    world.ledger.note_loss(lost(session.positions[0], "truncated", 0, 30))
    assert world.ledger.losses() == [first], "the bounds seen first are kept"
    session.write(make_batch(session.positions, messages(0, [0])))
    assert world.ledger.losses() == []
    world.ledger.note_loss(lost(session.positions[0]))
    session.accept([Acceptance(lost(session.positions[0]), NextOffset(9))], IDENTITY, "ann")
    assert world.ledger.losses() == []
    world.ledger.note_loss(lost(session.positions[0]))
    world.ledger.forget_losses()
    assert world.ledger.losses() == []


def test_what_is_dismissed_is_not_found_again_by_its_leader_epoch(world: LedgerWorld) -> None:
    session = world.owning("run")
    for partition in (0, 1):
        session.write(make_batch(session.positions, [message(partition, 0, epoch=3)]))
        world.ledger.note_loss(lost(session.positions[partition], "rewritten"))
    assert {p: position.leader_epoch for p, position in world.ledger.positions().items()} == {0: 3, 1: 3}
    world.ledger.forget_losses(1)
    assert [loss.partition for loss in world.ledger.losses()] == [0]
    assert {p: position.leader_epoch for p, position in world.ledger.positions().items()} == {0: 3, 1: None}
    world.ledger.forget_losses()
    assert world.ledger.losses() == []
    assert {p: position.leader_epoch for p, position in world.ledger.positions().items()} == {0: None, 1: None}
