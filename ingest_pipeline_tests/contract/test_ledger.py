"""What core.ledger_ports.Ledger promises, of the real ledger and of the in-memory one."""

from collections.abc import Iterator

import pytest

from ingest_pipeline.core.errors import DatabaseUnavailable, LedgerConflict, Superseded
from ingest_pipeline.core.record import NextOffset, OwnerRequests
from ingest_pipeline.testing import Fault
from ingest_pipeline_tests.contract.ledger_worlds import (
    COLDEST,
    CONSTRAINT,
    DROPPED,
    LedgerWorld,
    ledger_world,
    requests_to,
    stale,
    untouched,
)
from ingest_pipeline_tests.contract.stream_worlds import WORLDS, counters
from ingest_pipeline_tests.samples import BAD, good, make_batch, message, messages, tombstone


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> Iterator[LedgerWorld]:
    with ledger_world(request) as made:
        yield made


# --- write ----------------------------------------------------------------------------------------------------------


def test_rows_dead_letters_and_positions_are_stored_together(world: LedgerWorld) -> None:
    session = world.owning("run")
    records = [message(0, 0), tombstone(0, 1), message(0, 2, BAD), message(0, 5), message(1, 0)]
    written = session.write(make_batch(session.positions, records, {0: NextOffset(8, 3)}))
    assert world.rows() == {(0, 0): "0/0", (0, 5): "0/5", (1, 0): "1/0"}
    assert {key: letter[3] for key, letter in world.letters().items()} == {(0, 2): BAD}
    assert counters(world, 0) == (8, 2, 1, 1, 4)
    assert counters(world, 1) == (1, 1, 0, 0, 0)
    assert {p: n for p, n in written.rows.items() if n} == {0: 2, 1: 1}
    assert {p: n for p, n in written.dead_letters.items() if n} == {0: 1}
    assert list(written.reasons) == [letter[1] for letter in world.letters().values()]
    assert world.ledger.row_count() == 3
    assert {p: position.resume_at for p, position in session.positions.items()} == {
        0: NextOffset(8, 3),
        1: NextOffset(1, 0),
    }
    assert world.ledger.positions()[0].leader_epoch == 3


def test_a_batch_without_records_moves_the_position(world: LedgerWorld) -> None:
    session = world.owning("run")
    session.write(make_batch(session.positions, [], {1: NextOffset(3, 0)}))
    assert counters(world, 1) == (3, 0, 0, 0, 3)
    assert counters(world, 0) == (0, 0, 0, 0, 0)


def test_a_refused_row_costs_itself_alone(world: LedgerWorld) -> None:
    session = world.owning("run")
    cold = good("cold", COLDEST)
    records = [message(0, 0), message(0, 1, cold), message(0, 2), message(0, 3, BAD), message(1, 0, cold)]
    written = session.write(make_batch(session.positions, records))
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


def test_a_batch_is_not_written_twice(world: LedgerWorld) -> None:
    session = world.owning("run")
    batch = make_batch(session.positions, messages(0, range(3)))
    session.write(batch)
    with pytest.raises(Superseded):
        session.write(batch)
    assert counters(world, 0) == (3, 3, 0, 0, 0)


def test_one_stale_position_refuses_the_whole_batch(world: LedgerWorld) -> None:
    session = world.owning("run")
    session.write(make_batch(session.positions, messages(1, range(2))))
    batch = make_batch(session.positions, [message(0, 0), message(1, 2)])
    with pytest.raises(Superseded):
        session.write(stale(batch, 1))
    assert list(world.rows()) == [(1, 0), (1, 1)]
    assert counters(world, 0) == (0, 0, 0, 0, 0)


def test_a_row_that_the_ledger_does_not_know_stops_the_stream(world: LedgerWorld) -> None:
    session = world.owning("run")
    batch = make_batch(session.positions, [message(0, 0, BAD), message(0, 1), message(0, 2)])
    world.plant(batch.rows[1])
    with pytest.raises(LedgerConflict):
        session.write(batch)
    assert list(world.rows()) == [(0, 2)]
    assert world.letters() == {}
    assert counters(world, 0) == (0, 0, 0, 0, 0)


def test_a_dead_letter_that_the_ledger_does_not_know_stops_the_stream(world: LedgerWorld) -> None:
    session = world.owning("run")
    batch = make_batch(session.positions, [message(0, 0, BAD), message(0, 1)])
    session.write(batch)
    session.connection.close()
    world.rewind()
    again = world.owning("again")
    with pytest.raises(LedgerConflict):
        again.write(make_batch(again.positions, [message(0, 0, BAD)]))
    assert counters(world, 0) == (0, 0, 0, 0, 0)


@pytest.mark.parametrize("fault", [None, *Fault])
def test_rows_that_a_trigger_drops_are_skipped(world: LedgerWorld, fault: Fault | None) -> None:
    world.drop_rows()
    session = world.owning("run")
    dropped = good(DROPPED)
    records = [message(0, 0), message(0, 1, dropped), message(0, 2, BAD), message(0, 3, good("cold", COLDEST)),
               message(1, 0, dropped), message(1, 1, dropped)]  # fmt: skip
    batch = make_batch(session.positions, [*records, tombstone(1, 3)])
    written = None
    if fault is not None:
        world.break_write(session, fault)
        with pytest.raises(DatabaseUnavailable):
            session.write(batch)
        written = session.recover(batch)
    written = written or session.write(batch)
    assert {p: n for p, n in written.dropped.items() if n} == {0: 1, 1: 2}
    assert {p: n for p, n in written.rows.items() if n} == {0: 1}
    assert list(world.rows()) == [(0, 0)]
    assert list(world.letters()) == [(0, 2), (0, 3)]
    assert (counters(world, 0), counters(world, 1)) == ((4, 1, 2, 1, 0), (4, 0, 0, 3, 1))


# --- faults ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", Fault)
def test_after_a_fault_recovery_tells_what_was_written(world: LedgerWorld, fault: Fault) -> None:
    session = world.owning("run")
    records = [message(0, 0), message(0, 1, BAD), message(0, 2, good("cold", COLDEST)), message(1, 0)]
    batch = make_batch(session.positions, records)
    world.break_write(session, fault)
    with pytest.raises(DatabaseUnavailable):
        session.write(batch)
    written = session.recover(batch)
    if fault is Fault.AFTER_COMMIT:
        assert written is not None
    else:
        assert written is None
        assert untouched(world)
        written = session.write(batch)
    assert {p: n for p, n in written.rows.items() if n} == {0: 1, 1: 1}
    assert {p: n for p, n in written.dead_letters.items() if n} == {0: 2}
    assert (counters(world, 0), counters(world, 1)) == ((3, 1, 2, 0, 0), (1, 1, 0, 0, 0))
    session.write(make_batch(session.positions, [message(0, 3), message(1, 1)]))
    assert list(world.rows()) == [(0, 0), (0, 3), (1, 0), (1, 1)]


def test_a_lost_session_is_noticed_by_the_heartbeat(world: LedgerWorld) -> None:
    session = world.owning("run")
    world.end_session(session)
    with pytest.raises(DatabaseUnavailable):
        requests_to(session)
    assert session.recover(None) is None
    assert requests_to(session) == OwnerRequests()
    assert set(world.new_session("second").own((0, 1), exact=True)) == {0, 1}, "it owns its partitions again"
    session.write(make_batch(session.positions, [message(0, 0)]))
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
