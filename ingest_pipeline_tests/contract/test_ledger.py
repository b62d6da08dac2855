"""What core.ports.Ledger promises, of the real ledger and of the in-memory one."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ingest_pipeline.core.errors import DatabaseUnavailable, LedgerConflict, Superseded
from ingest_pipeline.core.record import Place, Requests
from ingest_pipeline.testing import Fault
from ingest_pipeline_tests.contract.ledger_worlds import (
    COLDEST,
    CONSTRAINT,
    Ledger,
    LedgerWorld,
    MemoryWorld,
    PostgresWorld,
    begin,
    stale,
    wait_for,
)
from ingest_pipeline_tests.samples import BAD, IDENTITY, good, make_batch, message, messages, tombstone


@pytest.fixture(params=["memory", "copy", "executemany"])
def world(request: pytest.FixtureRequest) -> Iterator[LedgerWorld]:
    """The in-memory ledger; PostgreSQL written by COPY and by executemany. Two partitions have begun at offset 0."""
    made: LedgerWorld
    if request.param == "memory":
        made = MemoryWorld()
    else:
        made = PostgresWorld(request.getfixturevalue("database_url"), request.param)
    begin(made.book, 0, 1)
    yield made
    made.close()


def counters(world: LedgerWorld, partition: int) -> tuple[int, ...]:
    """(next_offset, rows, dead_letters, skipped, absent)."""
    at = world.book.positions()[partition]
    assert at.next_offset - at.first_offset == at.rows + at.dead_letters + at.skipped + at.absent + at.lost
    return at.next_offset, at.rows, at.dead_letters, at.skipped, at.absent


def untouched(world: LedgerWorld) -> bool:
    return not world.rows() and not world.letters() and counters(world, 0) == counters(world, 1) == (0, 0, 0, 0, 0)


# --- write ----------------------------------------------------------------------------------------------------------


def test_rows_dead_letters_and_positions_are_stored_together(world: LedgerWorld) -> None:
    ledger = world.owning("run")
    records = [message(0, 0), tombstone(0, 1), message(0, 2, BAD), message(0, 5), message(1, 0)]
    written = ledger.write(make_batch(ledger.positions, records, {0: Place(8, 3)}))
    assert world.rows() == {(0, 0): "0/0", (0, 5): "0/5", (1, 0): "1/0"}
    assert {key: letter[3] for key, letter in world.letters().items()} == {(0, 2): BAD}
    assert counters(world, 0) == (8, 2, 1, 1, 4)
    assert counters(world, 1) == (1, 1, 0, 0, 0)
    assert {p: n for p, n in written.rows.items() if n} == {0: 2, 1: 1}
    assert {p: n for p, n in written.dead_letters.items() if n} == {0: 1}
    assert list(written.reasons) == [letter[1] for letter in world.letters().values()]
    assert {p: at.place for p, at in ledger.positions.items()} == {0: Place(8, 3), 1: Place(1, 0)}
    assert world.book.positions()[0].leader_epoch == 3


def test_a_batch_without_records_moves_the_position(world: LedgerWorld) -> None:
    ledger = world.owning("run")
    ledger.write(make_batch(ledger.positions, [], {1: Place(3, 0)}))
    assert counters(world, 1) == (3, 0, 0, 0, 3)
    assert counters(world, 0) == (0, 0, 0, 0, 0)


def test_a_refused_row_costs_itself_alone(world: LedgerWorld) -> None:
    ledger = world.owning("run")
    cold = good("cold", COLDEST)
    records = [message(0, 0), message(0, 1, cold), message(0, 2), message(0, 3, BAD), message(1, 0, cold)]
    written = ledger.write(make_batch(ledger.positions, records))
    assert list(world.rows()) == [(0, 0), (0, 2)]
    reason = f"check violation (23514), constraint {CONSTRAINT}"
    refused = ("insert", reason, "23514", cold)
    letters = world.letters()
    assert (letters[0, 1], letters[1, 0]) == (refused, refused)
    assert letters[0, 3][0] == "decode"
    assert counters(world, 0) == (4, 2, 2, 0, 0)
    assert counters(world, 1) == (1, 0, 1, 0, 0)
    assert written.rows == {0: 2, 1: 0} or written.rows == {0: 2}
    assert written.dead_letters == {0: 2, 1: 1}
    assert sorted(written.reasons) == sorted(letter[1] for letter in letters.values())


def test_batches_chain(world: LedgerWorld) -> None:
    ledger = world.owning("run")
    for start in (0, 10, 20):
        ledger.write(make_batch(ledger.positions, messages(0, range(start, start + 10))))
    assert list(world.rows()) == [(0, offset) for offset in range(30)]
    assert counters(world, 0) == (30, 30, 0, 0, 0)


def test_a_batch_is_not_written_twice(world: LedgerWorld) -> None:
    ledger = world.owning("run")
    batch = make_batch(ledger.positions, messages(0, range(3)))
    ledger.write(batch)
    with pytest.raises(Superseded):
        ledger.write(batch)
    assert counters(world, 0) == (3, 3, 0, 0, 0)


def test_one_stale_position_refuses_the_whole_batch(world: LedgerWorld) -> None:
    ledger = world.owning("run")
    ledger.write(make_batch(ledger.positions, messages(1, range(2))))
    batch = make_batch(ledger.positions, [message(0, 0), message(1, 2)])
    with pytest.raises(Superseded):
        ledger.write(stale(batch, 1))
    assert list(world.rows()) == [(1, 0), (1, 1)]
    assert counters(world, 0) == (0, 0, 0, 0, 0)


def test_a_row_that_the_ledger_does_not_know_stops_the_stream(world: LedgerWorld) -> None:
    ledger = world.owning("run")
    batch = make_batch(ledger.positions, [message(0, 0, BAD), message(0, 1), message(0, 2)])
    world.plant(batch.rows[1])
    with pytest.raises(LedgerConflict):
        ledger.write(batch)
    assert list(world.rows()) == [(0, 2)]
    assert world.letters() == {}
    assert counters(world, 0) == (0, 0, 0, 0, 0)


def test_a_dead_letter_that_the_ledger_does_not_know_stops_the_stream(world: LedgerWorld) -> None:
    ledger = world.owning("run")
    batch = make_batch(ledger.positions, [message(0, 0, BAD), message(0, 1)])
    ledger.write(batch)
    ledger.close()
    world.rewind()
    again = world.owning("again")
    with pytest.raises(LedgerConflict):
        again.write(make_batch(again.positions, [message(0, 0, BAD)]))
    assert counters(world, 0) == (0, 0, 0, 0, 0)


# --- ownership ------------------------------------------------------------------------------------------------------


def test_owning_names_the_run_in_the_positions(world: LedgerWorld) -> None:
    ledger = world.owning("run", 1)
    assert list(ledger.positions) == [1]
    assert {p: at.run_id for p, at in world.book.positions().items()} == {0: None, 1: "run"}
    assert {p: holder.run_id for p, holder in world.book.owners((0, 1)).holders.items()} == {1: "run"}
    assert set(world.book.owners((0, 1)).present) == {"run"}


def test_exact_takes_all_or_none(world: LedgerWorld) -> None:
    world.owning("first", 1)
    second = world.ledger("second")
    missing = second.own((0, 1), exact=True)
    assert set(missing) == {0, 1}
    assert missing[1].run_id == "first"
    assert second.positions == {}
    assert set(world.book.owners((0, 1)).holders) == {1}


def test_without_exact_it_takes_what_is_free(world: LedgerWorld) -> None:
    world.owning("first", 1)
    second = world.ledger("second")
    assert {p: holder.run_id for p, holder in second.own((0, 1), exact=False).items()} == {1: "first"}
    second.write(make_batch(second.positions, [message(0, 0)]))
    assert world.book.positions()[1].run_id == "first"


def test_closing_frees_the_partitions(world: LedgerWorld) -> None:
    world.owning("first").close()
    second = world.ledger("second")
    assert second.own((0, 1), exact=True, wait_seconds=10.0) == {}


def test_waiting_ends_when_told_to(world: LedgerWorld) -> None:
    world.owning("first")
    second = world.ledger("second")
    missing = second.own((0, 1), exact=True, wait_seconds=60.0, stop=lambda: "terminated")
    assert {holder.run_id for holder in missing.values()} == {"first"}


@pytest.mark.parametrize(
    ("announced", "seen"),
    [("wait", Requests(successor_waits=True)), ("wait-now", Requests(yield_now=True))],
)
def test_the_owner_sees_who_waits_and_hands_over(world: LedgerWorld, announced: str, seen: Requests) -> None:
    first, second = world.owning("first"), world.ledger("second")
    first.write(make_batch(first.positions, messages(0, range(3))))
    assert first.heartbeat() == Requests()
    missing: list[object] = []
    waiting = threading.Thread(
        target=lambda: missing.append(second.own((0, 1), exact=True, announce=announced, wait_seconds=30.0))
    )
    waiting.start()
    wait_for("the announcement", lambda: first.heartbeat() == seen)
    first.close()
    waiting.join(30.0)
    assert missing == [{}]
    assert second.positions[0].place == Place(3, 0)
    assert second.heartbeat() == Requests(), "the announcement is withdrawn"


def test_who_waits_for_another_partition_is_not_seen(world: LedgerWorld) -> None:
    zero, one, third = world.owning("zero", 0), world.owning("one", 1), world.ledger("third")
    stop = threading.Event()
    waiting = threading.Thread(
        target=lambda: third.own(
            (1,), exact=True, announce="wait", wait_seconds=30.0, stop=lambda: "stop" if stop.is_set() else None
        )
    )
    waiting.start()
    wait_for("the announcement", lambda: one.heartbeat().successor_waits)
    assert not zero.heartbeat().successor_waits
    stop.set()
    waiting.join(30.0)
    assert not one.heartbeat().successor_waits


# --- fencing --------------------------------------------------------------------------------------------------------


@pytest.fixture
def overtaken(world: LedgerWorld) -> Ledger:
    """A ledger that lost its locks without noticing, to a run that took the positions and wrote nothing yet."""
    ledger = world.owning("first")
    world.free(ledger)
    world.owning("second")
    return ledger


def test_an_overtaken_run_writes_nothing(world: LedgerWorld, overtaken: Ledger) -> None:
    with pytest.raises(Superseded):
        overtaken.write(make_batch(overtaken.positions, [message(0, 0), message(0, 1, BAD)]))
    assert untouched(world)


def test_an_overtaken_run_recovers_nothing(world: LedgerWorld, overtaken: Ledger) -> None:
    with pytest.raises(Superseded):
        overtaken.recover(make_batch(overtaken.positions, [message(0, 0)]))
    assert untouched(world)


def test_a_run_overtaken_by_one_that_has_left_recovers_nothing(world: LedgerWorld) -> None:
    first = world.owning("first")
    world.free(first)
    world.owning("second").close()
    with pytest.raises(Superseded):
        first.recover(None)


def test_a_run_does_not_take_another_ones_progress_for_its_own(world: LedgerWorld) -> None:
    first = world.owning("first")
    batch = make_batch(first.positions, [message(0, 0)])
    world.free(first)
    second = world.owning("second")
    second.write(batch)
    second.close()
    with pytest.raises(Superseded):
        first.recover(batch)


# --- faults ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", Fault)
def test_after_a_fault_recovery_tells_what_was_written(world: LedgerWorld, fault: Fault) -> None:
    ledger = world.owning("run")
    records = [message(0, 0), message(0, 1, BAD), message(0, 2, good("cold", COLDEST)), message(1, 0)]
    batch = make_batch(ledger.positions, records)
    world.break_write(ledger, fault)
    with pytest.raises(DatabaseUnavailable):
        ledger.write(batch)
    written = ledger.recover(batch)
    if fault is Fault.AFTER_COMMIT:
        assert written is not None
    else:
        assert written is None
        assert untouched(world)
        written = ledger.write(batch)
    assert {p: n for p, n in written.rows.items() if n} == {0: 1, 1: 1}
    assert {p: n for p, n in written.dead_letters.items() if n} == {0: 2}
    assert (counters(world, 0), counters(world, 1)) == ((3, 1, 2, 0, 0), (1, 1, 0, 0, 0))
    ledger.write(make_batch(ledger.positions, [message(0, 3), message(1, 1)]))
    assert list(world.rows()) == [(0, 0), (0, 3), (1, 0), (1, 1)]


def test_a_lost_session_is_noticed_by_the_heartbeat(world: LedgerWorld) -> None:
    ledger = world.owning("run")
    world.end_session(ledger)
    with pytest.raises(DatabaseUnavailable):
        ledger.heartbeat()
    assert ledger.recover(None) is None
    assert ledger.heartbeat() == Requests()
    assert set(world.ledger("second").own((0, 1), exact=True)) == {0, 1}, "it owns its partitions again"
    ledger.write(make_batch(ledger.positions, [message(0, 0)]))
    assert counters(world, 0) == (1, 1, 0, 0, 0)


def test_a_lost_session_frees_the_partitions_for_another(world: LedgerWorld) -> None:
    first = world.owning("first")
    batch = make_batch(first.positions, [message(0, 0)])
    world.break_write(first, Fault.BEFORE_COMMIT)
    with pytest.raises(DatabaseUnavailable):
        first.write(batch)
    second = world.owning("second")
    second.write(batch)
    with pytest.raises(Superseded):
        first.recover(batch)
    assert counters(world, 0) == (1, 1, 0, 0, 0)


# --- the book -------------------------------------------------------------------------------------------------------


def test_pause_is_seen_by_the_next_write_and_heartbeat(world: LedgerWorld) -> None:
    ledger = world.owning("run")
    world.book.pause("flood", "ann")
    assert ledger.heartbeat().paused == "flood (ann)"
    written = ledger.write(make_batch(ledger.positions, [message(0, 0)]))
    assert written.requests is not None
    assert written.requests.paused == "flood (ann)"
    state = world.book.state()
    assert (state.paused, state.reason, state.paused_by) == (True, "flood", "ann")
    world.book.resume()
    assert ledger.heartbeat() == Requests()
    assert not world.book.state().paused


def test_a_stream_begins_once(world: LedgerWorld) -> None:
    assert not world.book.begin(IDENTITY, {0: Place(7), 1: Place(7)}, first=True)
    assert {p: at.next_offset for p, at in world.book.positions().items()} == {0: 0, 1: 0}
    assert world.book.begin(IDENTITY, {1: Place(9), 2: Place(5, 1)}, first=False)
    found = {p: (at.first_offset, at.leader_epoch) for p, at in world.book.positions().items()}
    assert found == {0: (0, None), 1: (0, None), 2: (5, 1)}
    assert len({at.incarnation for at in world.book.positions().values()}) == 1
