"""Slow starts, runs that never start, fruitless runs, and clocks that are a day off."""

import re
from typing import Any

import pytest

from ingest_pipeline.orchestration.patience import learned_patience, max_runtime, successor_seconds
from ingest_pipeline.orchestration.sensor.decide import ENDING_SECONDS, GHOST_SECONDS, decide, superseded
from ingest_pipeline.orchestration.tags import Shard
from ingest_pipeline.orchestration.view import (
    LEAD_SECONDS,
    START_GRACE_SECONDS,
    STARTING_SECONDS,
    Decision,
    Launch,
    Patience,
    RunView,
)
from ingest_pipeline_tests.unit.dagster_model import NEVER, DagsterModel
from ingest_pipeline_tests.unit.test_decide import (
    LAUNCH,
    NOW,
    OLD,
    OTHER,
    OWNED,
    RUN,
    WHOLE,
    by_hand,
    failed,
    run,
    view,
)


class TestSlowStarts:
    @pytest.mark.parametrize("start", [2.0, 40.0, 185.0, 290.0])
    def test_the_first_start_is_waited_for(self, start: float) -> None:
        model = DagsterModel(start=start)
        model.go(start + 100)
        assert len(model.launched_at) == 1
        assert model.owner is not None

    @pytest.mark.parametrize("opening", [1.0, 15.0])
    @pytest.mark.parametrize("start", [2.0, 40.0, 185.0, 290.0])
    def test_one_successor_takes_over_without_a_gap(self, start: float, opening: float) -> None:
        model = DagsterModel(start=start, opening=opening)
        model.go(start + opening + 10)
        first = model.owner
        assert first is not None
        before = model.owned_seconds
        model.go(3000)
        assert model.owned_seconds - before == 3000, "a run owned the stream at every second"
        handovers = sum(run.ended == "age" for run in model.runs)
        assert handovers >= 4
        assert len(model.launched_at) <= 1 + handovers + 1, "one run a handover, and the run that starts now"
        assert model.most_active == 2
        assert model.failed == []

    def test_slower_starts_are_learned(self) -> None:
        model = DagsterModel(start=3.0, starting=STARTING_SECONDS)
        model.go(1000)
        model.start = 185.0
        model.go(3000)
        launched = len(model.launched_at)
        model.go(3000)
        assert len(model.launched_at) - launched <= 6, "again one run a handover"

    @pytest.mark.parametrize("starting", [STARTING_SECONDS, 300.0])
    def test_launches_do_not_pile_up_where_no_run_starts(self, starting: float) -> None:
        model = DagsterModel(start=NEVER, starting=starting)
        model.go(10 * starting)
        assert model.most_starting == 1, "a run that is waited for no longer is canceled"
        gaps = [later - sooner for sooner, later in zip(model.launched_at, model.launched_at[1:], strict=False)]
        assert gaps == [starting, 2 * starting, 4 * starting]
        assert (
            f"backing off: 2 runs have not started, 00000001 the last, next try in {starting:.0f} s; lag 5"
            in model.skip_reasons
        )

    def test_time_in_the_queue_is_no_start(self) -> None:
        waits = run(status="QUEUED", started_at=NOW - 5000)
        assert decide(view(active=[waits])).launches == []
        now_starting = {"last_statuses": {RUN: decide(view(active=[waits])).last_statuses[RUN]}, "runs_read_at": NOW}
        later = view(now=NOW + 5, active=[run(status="STARTING", started_at=NOW - 5000)], **now_starting)
        assert decide(later).launches == [], "the run left the queue a moment ago"


class TestSupersededStarts:
    """A run is canceled before its start, when another run takes its task."""

    def canceled(self, *active: RunView, **changes: object) -> tuple[list[Launch], list[str]]:
        now = view(active=active, **changes)
        launches = decide(now).launches
        return launches, superseded(now, launches)

    @pytest.mark.parametrize("status", ["QUEUED", "STARTING"])
    def test_a_run_for_another_definition_is_replaced_at_once(self, status: str) -> None:
        assert self.canceled(run(status=status, definition=OLD, started_at=NOW - 1)) == (LAUNCH, [RUN])

    def test_a_successor_for_another_definition_is_replaced_at_once(self) -> None:
        waiting = run(OTHER, "STARTING", definition=OLD, started_at=NOW - 1)
        assert self.canceled(run(definition=OLD), waiting, **OWNED) == ([Launch(WHOLE, "definition")], [OTHER])

    def test_a_run_for_another_number_of_shards_is_canceled(self) -> None:
        waiting = run(status="QUEUED", shard=Shard(1, 2), started_at=NOW - 1)
        assert self.canceled(waiting) == (LAUNCH, [RUN])

    def test_an_overdue_run_is_canceled_with_its_replacement(self) -> None:
        assert self.canceled(run(status="STARTING", started_at=NOW - STARTING_SECONDS)) == (LAUNCH, [RUN])

    def test_a_run_that_may_still_start_is_waited_for(self) -> None:
        assert self.canceled(run(status="STARTING", started_at=NOW - STARTING_SECONDS + 1)) == ([], [])
        assert self.canceled(run(status="QUEUED", started_at=NOW - 5000)) == ([], [])

    def test_a_run_whose_process_has_started_is_never_canceled(self) -> None:
        assert self.canceled(run(definition=OLD, started_at=NOW - 1))[1] == []
        assert self.canceled(by_hand(status="QUEUED"))[1] == []


class TestSuccessorsThatFail:
    """A successor ends at once while the owner drains on. The next successor is not launched at the next tick."""

    def launches(self, *recent: RunView, now: float = NOW) -> list[Launch]:
        owner = run(definition=OLD)
        return decide(view(now=now, active=[owner], recent=recent, progress_at={0: now}, **OWNED)).launches

    def test_failed_successors_back_off(self) -> None:
        assert self.launches() == [Launch(WHOLE, "definition")]
        assert self.launches(failed(1.0)) == []
        assert self.launches(failed(5.0)) == [Launch(WHOLE, "definition")]
        assert self.launches(failed(9.0), failed(20.0)) == []
        assert self.launches(failed(10.0), failed(20.0)) == [Launch(WHOLE, "definition")]

    def test_the_skip_reason_names_the_back_off(self) -> None:
        reasons = decide(view(active=[run(definition=OLD)], recent=[failed(2.0)], **OWNED)).skip_reasons
        expected = "backing off: the last 1 run failed without progress (killed), next try in 3 s"
        assert reasons == [f"run 1a2b3c4d is draining; lag 1,234; {expected}"]

    def test_failures_before_the_owner_began_do_not_count(self) -> None:
        assert self.launches(failed(301.0, 302.0)) == [Launch(WHOLE, "definition")]

    def test_a_second_successor_that_does_not_start_is_waited_for(self) -> None:
        def overdue(run_id: str, age: float) -> RunView:
            return run(run_id, "STARTING", started_at=NOW - age)

        first = view(active=[run(definition=OLD), overdue(OTHER, 31)], **OWNED)
        assert decide(first).launches == [Launch(WHOLE, "definition")]
        both = [run(definition=OLD), overdue(OTHER, 80), overdue("third", 40)]
        assert decide(view(active=both, **OWNED)).launches == []


def fruitless(ended_ago: float, ended: str = "superseded", **changes: object) -> RunView:
    ended_at = NOW - ended_ago
    return run(f"ended-{ended_ago}", "SUCCESS", started_at=ended_at - 1, ended_at=ended_at, ended=ended, **changes)


class TestFruitless:
    """Runs that are SUCCESS in Dagster, but move no position."""

    @pytest.mark.parametrize("ended", ["superseded", "surplus", "signal", "other-definition"])
    def test_fruitless_runs_back_off_like_failures(self, ended: str) -> None:
        rows = [fruitless(2.0, ended), fruitless(30.0, ended), fruitless(60.0, ended)]
        decision = decide(view(recent=rows))
        assert decision.launches == []
        expected = f"backing off: the last 3 runs ended without progress ({ended}), next try in 18 s; lag 1,234"
        assert decision.skip_reasons == [expected]
        assert decide(view(recent=rows, now=NOW + 18)).launches == LAUNCH

    def test_progress_ends_the_back_off(self) -> None:
        assert decide(view(recent=[fruitless(2.0)], progress_at={1: NOW - 2.5})).launches == LAUNCH

    def test_a_useful_end_reason_ends_the_back_off(self) -> None:
        for ended in ("caught-up", "age", "batches", "yielded", "paused", "partitions-added"):
            assert decide(view(recent=[fruitless(1.0, ended), fruitless(2.0)])).launches == LAUNCH, ended

    def test_failures_count_too(self) -> None:
        reasons = decide(view(recent=[fruitless(2.0), failed(30.0)])).skip_reasons
        expected = "backing off: the last 2 runs ended without progress (superseded), next try in 8 s; lag 1,234"
        assert reasons == [expected]

    def test_the_third_fruitless_run_is_reported(self) -> None:
        rows = [fruitless(2.0), fruitless(30.0)]
        assert decide(view(recent=rows)).fruitless is None
        message = "it ended without progress (superseded), and so did the 2 runs before it"
        assert decide(view(recent=[*rows, fruitless(60.0)])).fruitless == message
        assert decide(view(recent=[failed(1.0), *rows, fruitless(60.0)])).fruitless is None, (
            "the failure has its own line"
        )

    def test_another_shard_or_definition_does_not_count(self) -> None:
        assert decide(view(recent=[fruitless(1.0, shard=Shard(1, 2))])).launches == LAUNCH
        assert decide(view(recent=[fruitless(1.0, definition=OLD)])).launches == LAUNCH

    def test_an_hour_has_few_launches(self) -> None:
        model = DagsterModel(outcome=("SUCCESS", "superseded"))
        model.go(3600)
        assert len(model.launched_at) <= 18


class TestPatience:
    def started(self, launch: float, opening: float | None = None) -> RunView:
        return run(launch_seconds=launch, opening_seconds=opening)

    def test_without_earlier_starts_the_defaults_apply(self) -> None:
        assert learned_patience([run()], STARTING_SECONDS, 600) == Patience(
            STARTING_SECONDS, START_GRACE_SECONDS, LEAD_SECONDS
        )

    def test_the_slowest_of_the_newest_five_counts(self) -> None:
        runs = [self.started(launch) for launch in (3, 100, 5, 4, 3, 200)]
        assert learned_patience(runs, STARTING_SECONDS, 600).starting == 200
        assert learned_patience(runs, STARTING_SECONDS, 600).lead == 110

    def test_every_wait_is_bounded_with_wrong_clocks(self) -> None:
        bounded = learned_patience([self.started(86_400, 86_400), self.started(-86_400, -5)], STARTING_SECONDS, 600)
        assert bounded == Patience(3600, 300, 300)
        assert learned_patience([self.started(-86_400)], STARTING_SECONDS, 600) == Patience()

    def test_dagster_lets_a_successor_wait_and_drain(self) -> None:
        for run_max in (10, 60, 600, 86_400):
            slow = learned_patience([self.started(3600)], STARTING_SECONDS, run_max)
            assert successor_seconds(run_max) >= slow.lead - LEAD_SECONDS
            assert max_runtime(run_max, slow.lead) >= run_max + successor_seconds(run_max)
        assert max_runtime(600, LEAD_SECONDS) == 1260

    def test_a_slow_session_is_waited_for(self) -> None:
        opened = view(active=[run(started_at=NOW - 40)], patience=Patience(opening=60))
        assert decide(opened).launches == []
        assert decide(opened).skip_reasons == ["run 1a2b3c4d is starting; lag 1,234"]


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
