"""Who owns partitions, who is told, and who is fenced: of the real ledger and of the in-memory one."""

import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import pytest

from ingest_pipeline.core.errors import Superseded
from ingest_pipeline.core.ledger import Account, HandoverRequest, LetterCount
from ingest_pipeline.core.loss import noted_loss
from ingest_pipeline.core.record import NextOffset, OwnerRequests
from ingest_pipeline_tests.contract.ledger_worlds import (
    COLDEST,
    LedgerWorld,
    ledger_world,
    own_within,
    requests_to,
    untouched,
)
from ingest_pipeline_tests.contract.stream_worlds import WORLDS
from ingest_pipeline_tests.samples import BAD, IDENTITY, READING, good, make_batch, message, messages, tombstone
from ingest_pipeline_tests.waiting import wait_for


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> Iterator[LedgerWorld]:
    with ledger_world(request) as made:
        yield made


# --- ownership ------------------------------------------------------------------------------------------------------


def test_owning_names_the_run_in_the_positions(world: LedgerWorld) -> None:
    session = world.owning("run", 1)
    assert list(session.positions) == [1]
    assert {p: position.run_id for p, position in world.ledger.positions().items()} == {0: None, 1: "run"}
    assert {p: holder.run_id for p, holder in world.ledger.owners((0, 1)).holders.items()} == {1: "run"}
    assert set(world.ledger.owners((0, 1)).present) == {"run"}
    owner = world.ledger.owners((0, 1)).holders[1]
    assert owner.since is not None
    assert not owner.frozen


def test_exact_takes_all_or_none(world: LedgerWorld) -> None:
    world.owning("first", 1)
    second = world.new_session("second")
    missing = second.own((0, 1), exact=True)
    assert set(missing) == {0, 1}
    assert missing[1].run_id == "first"
    assert second.positions == {}
    assert set(world.ledger.owners((0, 1)).holders) == {1}


def test_without_exact_it_takes_what_is_free(world: LedgerWorld) -> None:
    world.owning("first", 1)
    second = world.new_session("second")
    assert {p: holder.run_id for p, holder in second.own((0, 1), exact=False).items()} == {1: "first"}
    second.write(make_batch(second.positions, [message(0, 0)]))
    assert world.ledger.positions()[1].run_id == "first"


def test_waiting_ends_on_request(world: LedgerWorld) -> None:
    world.owning("first")
    second = world.new_session("second")
    missing = own_within(second, (0, 1), 60.0, stop=lambda: "terminated")
    assert {holder.run_id for holder in missing.values()} == {"first"}


@pytest.mark.parametrize(
    ("announced", "seen"),
    [
        (HandoverRequest.AT_MAXIMUM_AGE, OwnerRequests(successor_waits=True)),
        (HandoverRequest.NOW, OwnerRequests(yield_now=True)),
    ],
)
def test_the_owner_sees_who_waits_and_hands_over(
    world: LedgerWorld, announced: HandoverRequest, seen: OwnerRequests
) -> None:
    first, second = world.owning("first"), world.new_session("second")
    first.write(make_batch(first.positions, messages(0, range(3))))
    assert requests_to(first) == OwnerRequests()
    missing: list[object] = []
    waiting = threading.Thread(target=lambda: missing.append(own_within(second, (0, 1), 30.0, request=announced)))
    waiting.start()
    wait_for("the announcement", lambda: requests_to(first) == seen)
    first.connection.close()
    waiting.join(120.0)
    assert missing == [{}]
    assert second.positions[0].resume_at == NextOffset(3, 0)
    assert requests_to(second) == OwnerRequests(), "the announcement is withdrawn"


def test_who_waits_for_another_partition_is_not_seen(world: LedgerWorld) -> None:
    owner_of_0, owner_of_1, third = world.owning("zero", 0), world.owning("one", 1), world.new_session("third")
    stop = threading.Event()
    waiting = threading.Thread(
        target=lambda: own_within(
            third, (1,), 30.0, request=HandoverRequest.AT_MAXIMUM_AGE, stop=lambda: "stop" if stop.is_set() else None
        )
    )
    waiting.start()
    wait_for("the announcement", lambda: requests_to(owner_of_1).successor_waits)
    assert not requests_to(owner_of_0).successor_waits
    stop.set()
    waiting.join(120.0)
    assert not requests_to(owner_of_1).successor_waits


# --- fencing --------------------------------------------------------------------------------------------------------


@pytest.fixture
def overtaken(world: LedgerWorld) -> Any:
    """A ledger that lost its locks without noticing, to a run that took the positions and wrote nothing yet."""
    session = world.owning("first")
    world.free(session)
    world.owning("second")
    return session


def test_an_overtaken_run_writes_nothing(world: LedgerWorld, overtaken: Any) -> None:
    with pytest.raises(Superseded):
        overtaken.write(make_batch(overtaken.positions, [message(0, 0), message(0, 1, BAD)]))
    assert untouched(world)


def test_an_overtaken_run_recovers_nothing(world: LedgerWorld, overtaken: Any) -> None:
    with pytest.raises(Superseded):
        overtaken.recover(make_batch(overtaken.positions, [message(0, 0)]))
    assert untouched(world)


def test_a_run_superseded_by_an_ended_run_recovers_nothing(world: LedgerWorld) -> None:
    first = world.owning("first")
    world.free(first)
    world.owning("second").connection.close()
    with pytest.raises(Superseded):
        first.recover(None)


def test_a_run_does_not_claim_the_progress_of_another_run(world: LedgerWorld) -> None:
    first = world.owning("first")
    batch = make_batch(first.positions, [message(0, 0)])
    world.free(first)
    second = world.owning("second")
    second.write(batch)
    second.connection.close()
    with pytest.raises(Superseded):
        first.recover(batch)


# --- the ledger -------------------------------------------------------------------------------------------------------


def test_pause_is_seen_by_the_next_write_and_heartbeat(world: LedgerWorld) -> None:
    session = world.owning("run")
    world.ledger.pause("flood", "ann")
    assert requests_to(session).paused == "flood (ann)"
    written = session.write(make_batch(session.positions, [message(0, 0)]))
    assert written.requests is not None
    assert written.requests.paused == "flood (ann)"
    state = world.ledger.state()
    assert (state.paused, state.reason, state.paused_by) == (True, "flood", "ann")
    world.ledger.resume()
    assert requests_to(session) == OwnerRequests()
    assert not world.ledger.state().paused


def test_a_stream_begins_once(world: LedgerWorld) -> None:
    unchanged = world.ledger.begin(IDENTITY, {0: NextOffset(7), 1: NextOffset(7)}, first=True)
    assert unchanged == world.ledger.positions()
    assert {p: position.next_offset for p, position in unchanged.items()} == {0: 0, 1: 0}
    assert world.ledger.begin(IDENTITY, {1: NextOffset(9), 2: NextOffset(5, 1)}, first=False).keys() == {0, 1, 2}
    begun = {p: (position.first_offset, position.leader_epoch) for p, position in world.ledger.positions().items()}
    assert begun == {0: (0, None), 1: (0, None), 2: (5, 1)}
    assert len({position.incarnation for position in world.ledger.positions().values()}) == 1


def test_a_snapshot_holds_what_the_single_questions_answer(world: LedgerWorld) -> None:
    world.owning("run", 1)
    world.ledgers(READING).note_ticks([READING.name])
    world.ledger.note_loss(noted_loss(cause="truncated", partition=0, incarnation=1, expected=0, low=0, high=7))
    snapshot = world.ledger.snapshot()
    assert snapshot.positions == world.ledger.positions()
    assert snapshot.losses == world.ledger.losses()
    assert snapshot.owners == world.ledger.owners((0, 1))
    assert replace(snapshot.state, now=None) == replace(world.ledger.state(), now=None)
    assert snapshot.state.ticked_at is not None


def test_accounts_compare_counters_with_what_is_kept(world: LedgerWorld) -> None:
    session = world.owning("run")
    session.write(
        make_batch(session.positions, [message(0, 0), message(0, 1, BAD), tombstone(0, 2)], {0: NextOffset(5)})
    )
    account = Account(
        partition=0,
        incarnation=1,
        first_offset=0,
        next_offset=5,
        rows=1,
        dead_letters=1,
        skipped=1,
        absent=2,
        lost=0,
        letters_kept=1,
        gaps_kept=0,
    )
    first, second = world.ledger.accounting()
    assert first == account
    assert (second.partition, second.incarnation) == (1, 1)
    assert not any(value for name, value in asdict(second).items() if name not in ("partition", "incarnation"))
    assert (account.accounted, replace(account, letters_kept=0).accounted) == (True, False)


def test_open_letters_are_counted_by_stage_and_class(world: LedgerWorld) -> None:
    session = world.owning("run")
    session.write(
        make_batch(session.positions, [message(0, 0, BAD), message(0, 1, BAD), message(1, 0, good("a", COLDEST))])
    )
    decoded, inserted = world.ledger.open_letters()
    assert decoded == LetterCount(0, "decode", "", 2)
    assert inserted == LetterCount(1, "insert", "23", 1)


def test_the_topic_was_awaited_only_after_the_note(world: LedgerWorld) -> None:
    assert not world.ledger.state().awaited
    world.ledger.await_topic()
    assert world.ledger.state().awaited


def test_the_last_failure_and_the_waiting_records_are_noted(world: LedgerWorld) -> None:
    world.ledger.note_failure("the server is away", stops=False)
    world.ledgers(READING).note_waiting({READING.name: {1: (1, 0, 1000.5)}})
    state = world.ledger.state()
    assert (state.failure, state.failure_stops, state.waiting) == ("the server is away", False, {"1": [1, 0, 1000.5]})
    assert state.failed_at is not None
