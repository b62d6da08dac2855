"""Starts of many runs at once."""

from __future__ import annotations

from ingest_pipeline.orchestration.sensor.start_queue import RESERVED_SECONDS, StartQueue, starting_runs
from ingest_pipeline.orchestration.tags import Shard
from ingest_pipeline.orchestration.view import START_GRACE_SECONDS, STARTING_SECONDS, Launch, Patience, View
from ingest_pipeline.testing import SettableClock
from ingest_pipeline_tests.unit.test_decide import NEW, NOW, OTHER, RUN, by_hand, run

ONLY = [Launch(Shard(0, 1))]


def queue(limit: int = 2) -> tuple[StartQueue, SettableClock]:
    clock = SettableClock()
    return StartQueue(clock, limit), clock


def test_a_few_shards_of_a_job_start_first_and_the_rest_later() -> None:
    starts, clock = queue()
    launches = [Launch(Shard(index, 4)) for index in range(4)]
    assert starts.admit("a", launches, starting=0) == launches[:2]
    assert starts.admit("a", launches[2:], starting=0) == []  # the tick may not have seen the new runs
    clock.advance(6)
    assert starts.admit("a", launches[2:], starting=2) == []
    assert starts.admit("a", launches[2:], starting=1) == launches[2:3]
    clock.advance(6)
    assert starts.admit("a", launches[3:], starting=0) == launches[3:]


def test_the_longest_waiting_job_is_the_first() -> None:
    starts, clock = queue(limit=1)
    assert starts.admit("first", ONLY, starting=1) == []
    clock.advance(5)
    assert starts.admit("second", ONLY, starting=1) == []
    clock.advance(5)
    assert starts.admit("second", ONLY, starting=0) == []
    assert starts.admit("first", ONLY, starting=0) == ONLY
    clock.advance(6)
    assert starts.admit("second", ONLY, starting=0) == ONLY


def test_a_job_that_needs_no_run_any_more_gives_its_turn_back() -> None:
    starts, _ = queue(limit=1)
    assert starts.admit("first", ONLY, starting=1) == []
    assert starts.admit("first", [], starting=0) == []
    assert starts.admit("second", ONLY, starting=0) == ONLY


def test_a_sensor_that_does_not_tick_keeps_its_turn_for_a_while() -> None:
    starts, clock = queue(limit=1)
    assert starts.admit("silent", ONLY, starting=1) == []
    clock.advance(RESERVED_SECONDS - 1)
    assert starts.admit("other", ONLY, starting=0) == []
    clock.advance(1)
    assert starts.admit("other", ONLY, starting=0) == ONLY


def test_starting_runs_are_those_without_a_session_yet() -> None:
    young = NOW - 1
    runs = [
        run("queued", "QUEUED", started_at=NOW - 9_999),
        run("starting", "STARTING", started_at=young),
        run("opening", started_at=young),
        run("dead", "STARTING", started_at=NOW - STARTING_SECONDS),
        run("ghost", started_at=NOW - START_GRACE_SECONDS),
        run("ending", "CANCELING", started_at=young),
        by_hand(OTHER, started_at=young),
    ]
    view = View(
        NOW, 1, NEW, [], connected={RUN}, recorded_owners=(), active=[run(RUN)], elsewhere=runs, patience=Patience()
    )
    assert starting_runs(view, STARTING_SECONDS) == 3
