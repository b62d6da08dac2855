"""Clocks a day ahead and a day behind: every wait keeps its maximum, and launches do not repeat at every tick."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ingest_pipeline.orchestration.sensor.decide import ENDING_SECONDS, GHOST_SECONDS, decide
from ingest_pipeline.orchestration.view import START_GRACE_SECONDS, STARTING_SECONDS, Decision, Launch, RunView
from ingest_pipeline_tests.unit.dagster_model import NEVER, DagsterModel
from ingest_pipeline_tests.unit.test_decide import LAUNCH, NOW, OTHER, OWNED, RUN, WHOLE, failed, run, view

DAY = 86_400.0
SKEWS = [-DAY, -600.0, 0.0, 600.0, DAY]


def next_tries(decision: Decision) -> list[float]:
    return [float(seconds) for text in decision.skip_reasons for seconds in re.findall(r"next try in (\d+) s", text)]


def decisions_of(seconds: float, runs: dict[str, Any], first_now: float = NOW) -> list[Decision]:
    """Ticks every 5 s with the same runs. A tick has the memory of the tick before."""
    decisions: list[Decision] = []
    memory: dict[str, Any] = {}
    for number in range(int(seconds // 5) + 1):
        now = first_now + 5 * number
        decision = decide(view(now=now, **{"lag": {0: 1000}, **runs, **memory}))
        decisions.append(decision)
        memory = {"ghosts_seen": decision.ghosts_seen, "last_statuses": decision.last_statuses, "runs_read_at": now}
    return decisions


def first_launch(decisions: list[Decision]) -> int | None:
    """Seconds until the first launch."""
    return next((5 * number for number, decision in enumerate(decisions) if decision.launches), None)


class TestSensorClockSetBack:
    """Times of Dagster and of the ledger lie in the future."""

    @pytest.mark.parametrize("ahead", [60.0, DAY, 1000 * DAY])
    def test_a_back_off_ends(self, ahead: float) -> None:
        for count, wait in ((1, 5), (3, 20), (12, 300)):
            rows = [failed(-ahead + number * 400) for number in range(count)]
            decisions = decisions_of(wait + 5, {"recent": rows})
            assert max(next_tries(decisions[0])) <= wait
            assert first_launch(decisions) == wait, count

    def test_a_run_that_never_starts_is_replaced(self) -> None:
        starting = run(status="STARTING", started_at=NOW + DAY)
        assert first_launch(decisions_of(60, {"active": [starting]})) == STARTING_SECONDS

    def test_a_dead_run_is_reported_in_time(self) -> None:
        decisions = decisions_of(60, {"active": [run(started_at=NOW + DAY)], "lag": {0: 0}, "begun": {0}})
        (reported,) = [5 * number for number, decision in enumerate(decisions) if decision.failed_ghosts][:1]
        assert START_GRACE_SECONDS + GHOST_SECONDS <= reported <= START_GRACE_SECONDS + GHOST_SECONDS + 10

    def test_a_ghost_first_seen_in_the_future_is_reported(self) -> None:
        memory = {"active": [run()], "lag": {0: 0}, "begun": {0}}
        decision = decide(view(ghosts_seen={RUN: NOW + DAY}, **memory))
        assert (decision.failed_ghosts, decision.ghosts_seen) == ([], {RUN: NOW})
        assert decide(view(now=NOW + 8, ghosts_seen=decision.ghosts_seen, **memory)).failed_ghosts == [RUN]

    def test_a_dead_run_with_an_end_reason_is_reported(self) -> None:
        ending = {"active": [run(started_at=NOW + DAY, ended="age")], "lag": {0: 0}, "begun": {0}}
        decisions = decisions_of(ENDING_SECONDS + 60, ending)
        assert any(decision.failed_ghosts for decision in decisions)

    def test_the_owner_gets_a_successor_at_its_age_by_the_sensors_clock(self) -> None:
        owned = {"active": [run(started_at=NOW + DAY)], "run_max_seconds": 600, **OWNED}
        assert first_launch(decisions_of(620, owned)) == 590


class TestRunHostsWithAnotherClock:
    @pytest.mark.parametrize("ahead", SKEWS)
    def test_the_stream_is_drained_without_a_gap(self, ahead: float) -> None:
        model = DagsterModel(hosts_ahead=ahead, starting=30.0)
        model.go(15)
        before = model.owned_seconds
        model.go(2400)
        assert model.owned_seconds - before == 2400
        assert len(model.launched_at) <= 6
        assert model.failed == []

    @pytest.mark.parametrize("ahead", SKEWS)
    @pytest.mark.parametrize("outcome", [("FAILURE", "failed:SchemaMismatch"), ("SUCCESS", "superseded")])
    def test_setbacks_back_off(self, ahead: float, outcome: tuple[str, str]) -> None:
        model = DagsterModel(hosts_ahead=ahead, outcome=outcome)
        model.go(3600)
        assert 12 <= len(model.launched_at) <= 18
        waits = [float(wait) for text in model.skip_reasons for wait in re.findall(r"next try in (\d+) s", text)]
        assert max(waits) <= 300

    @pytest.mark.parametrize("ahead", SKEWS)
    def test_runs_that_never_start_do_not_pile_up(self, ahead: float) -> None:
        model = DagsterModel(hosts_ahead=ahead, start=NEVER, starting=30.0)
        model.go(300)
        assert 3 <= len(model.launched_at) <= 4


class TestSensorClockSetDuringRuns:
    @pytest.mark.parametrize("step", [-DAY, -600.0, 600.0, DAY])
    def test_the_stream_is_drained_with_one_short_gap(self, step: float) -> None:
        model = DagsterModel(starting=30.0)
        model.go(300)
        model.sensor_ahead = step
        before = model.owned_seconds
        model.go(2400)
        assert model.owned_seconds - before >= 2400 - 30, "one hand-over may have a gap"
        assert len(model.launched_at) <= 8

    @pytest.mark.parametrize("step", [-DAY, -600.0, 600.0, DAY])
    def test_setbacks_still_back_off(self, step: float) -> None:
        model = DagsterModel(outcome=("FAILURE", "failed:SchemaMismatch"))
        model.go(1200)
        launched = len(model.launched_at)
        model.sensor_ahead = step
        model.go(2400)
        assert 7 <= len(model.launched_at) - launched <= 12


def test_a_run_unknown_to_the_earlier_tick_is_new() -> None:
    old: RunView = run(OTHER, "STARTING", started_at=NOW - DAY)
    assert decide(view(active=[old], runs_read_at=NOW - 5)).launches == []
    assert decide(view(active=[old])).launches == LAUNCH, "without an earlier tick Dagster's time counts"


def test_a_new_owner_gets_no_successor_for_its_age() -> None:
    aged = {"active": [run(started_at=NOW - DAY)], "run_max_seconds": 600, **OWNED}
    assert decide(view(runs_read_at=NOW - 5, **aged)).launches == []
    assert decide(view(**aged)).launches == [Launch(WHOLE, "age")]
