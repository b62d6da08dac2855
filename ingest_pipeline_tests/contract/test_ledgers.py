"""What core.ledger_ports.Ledgers promises, of PostgreSQL and in memory: several ledgers, read together."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from ingest_pipeline.core.ledger import LedgerSnapshot
from ingest_pipeline.core.loss import Loss, LossCause
from ingest_pipeline_tests.contract.ledger_worlds import LedgerWorld, ledger_world
from ingest_pipeline_tests.contract.stream_worlds import WORLDS, begin
from ingest_pipeline_tests.samples import READING

PRESSURE = replace(READING, name="pressure", topic="pressure", table="pressure")
UNBEGUN = replace(READING, name="unbegun", topic="unbegun", table="unbegun")
STREAMS = (READING, PRESSURE, UNBEGUN)


@pytest.fixture(params=WORLDS[:2])
def world(request: pytest.FixtureRequest) -> Iterator[LedgerWorld]:
    with ledger_world(request) as made:
        made.ledger_of(PRESSURE).prepare()
        begin(made.ledger_of(PRESSURE), 0)
        yield made


def without_now(snapshot: Any) -> LedgerSnapshot:
    assert isinstance(snapshot, LedgerSnapshot)
    return replace(snapshot, state=replace(snapshot.state, now=None))


def test_each_stream_gets_its_own_facts(world: LedgerWorld) -> None:
    world.owning("run", 1)
    world.new_session("waiting")
    world.ledger_of(PRESSURE).pause("rebuild", "ann")
    incarnation = world.ledger_of(PRESSURE).positions()[0].incarnation
    loss = Loss(
        partition=0,
        incarnation=incarnation,
        next_offset=0,
        cause=LossCause.RETENTION,
        description="deleted",
        low=3,
        high=9,
    )
    world.ledger_of(PRESSURE).note_loss(loss)
    snapshots = world.ledgers(*STREAMS).snapshots()
    for stream in STREAMS:
        assert without_now(snapshots[stream.name]) == without_now(world.ledger_of(stream).snapshot())
    reading, pressure, unbegun = (without_now(snapshots[stream.name]) for stream in STREAMS)
    assert {p: holder.run_id for p, holder in reading.owners.holders.items()} == {1: "run"}
    assert (pressure.owners.holders, unbegun.positions) == ({}, {})
    assert {"run", "waiting"} <= set(pressure.owners.present)
    assert (reading.state.paused, pressure.state.paused) == (False, True)
    assert ([*map(len, (reading.losses, pressure.losses))], [*pressure.positions]) == ([0, 1], [0])


def test_prepared_streams_can_be_read(world: LedgerWorld) -> None:
    world.ledgers(*STREAMS).prepare()
    world.ledgers(*STREAMS).prepare()
    snapshots = world.ledgers(*STREAMS).snapshots()
    assert [len(without_now(snapshots[stream.name]).positions) for stream in STREAMS] == [2, 1, 0]


def test_the_ticks_of_some_streams_are_noted(world: LedgerWorld) -> None:
    world.ledgers(*STREAMS).note_ticks(["reading", "unbegun"])
    noted = [world.ledger_of(stream).state().ticked_at is not None for stream in STREAMS]
    assert noted == [True, False, True]


def test_the_waits_of_some_streams_are_noted(world: LedgerWorld) -> None:
    world.ledgers(*STREAMS).note_waiting({"reading": {0: (1, 5, 1000.5)}, "pressure": {0: (2, 0, 7.0)}})
    world.ledgers(*STREAMS).note_waiting({"pressure": {}})
    waiting = [world.ledger_of(stream).state().waiting for stream in STREAMS]
    assert waiting == [{"0": [1, 5, 1000.5]}, {}, None]


@pytest.mark.parametrize("world", ["copy"], indirect=True)  # the memory ledger stores no broken position
def test_the_broken_position_of_one_stream_leaves_the_others_readable(world: LedgerWorld) -> None:
    world.sql("UPDATE ingest.position SET first_offset = -1001, absent = 1001 WHERE stream = 'pressure'")
    snapshots = world.ledgers(*STREAMS).snapshots()
    assert "its position begins at -1001" in str(snapshots["pressure"])
    assert [*without_now(snapshots["reading"]).positions] == [0, 1]
