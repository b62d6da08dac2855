"""What a tick decides, as a table: what it sees → the runs it launches, the words it says, the ghosts it fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from ingest_pipeline.orchestration.sensor.decide import ENDING_SECONDS, GHOST_SECONDS, UNBEGUN_SECONDS, decide
from ingest_pipeline.orchestration.setbacks import backoff_seconds
from ingest_pipeline.orchestration.tags import Shard, shard_of, shards
from ingest_pipeline.orchestration.view import AGE, START_GRACE_SECONDS, Decision, Launch, RunView, View

NOW = 1_000_000.0
LONG_AGO = NOW - 300
WHOLE = Shard(0, 1)
OLD, NEW = "definition-1", "definition-2"
RUN, OTHER = "1a2b3c4d-0000", "5e6f7a8b-0000"


def run(run_id: str = RUN, status: str = "STARTED", **changes: Any) -> RunView:
    """A sensor's run of the only shard, with today's definition, started long ago."""
    return RunView(
        **{**dict(run_id=run_id, status=status, shard=WHOLE, definition=NEW, started_at=LONG_AGO), **changes}
    )


def by_hand(run_id: str = RUN, status: str = "STARTED", **changes: Any) -> RunView:
    return run(run_id, status, shard=None, definition="", **changes)


def failed(ended_ago: float, started_ago: float | None = None, **changes: Any) -> RunView:
    ended_at = NOW - ended_ago
    started_at = NOW - (started_ago if started_ago is not None else ended_ago + 1)
    return run(f"failed-{ended_ago}", "FAILURE", started_at=started_at, ended_at=ended_at, **changes)


def view(**changes: Any) -> View:
    """Two partitions with 1,234 records of lag, begun, owned by nobody, nothing running."""
    usual = dict(
        now=NOW,
        parallelism=1,
        definition=NEW,
        lag={0: 1000, 1: 234},
        begun={0, 1},
        owners={},
        present=(),
        named=(),
        active=(),
    )
    return View(**{**usual, **changes})


@dataclass(frozen=True)
class Case:
    """`launches` and `said` are compared whole."""

    name: str
    view: View
    launches: Sequence[Launch] = ()
    said: Sequence[str] = field(default=())


LAUNCH = [Launch(WHOLE)]
OWNED: dict[str, Any] = dict(owners={0: RUN, 1: RUN}, present={RUN})
SILENT = "partition 1: its leader does not answer, its state is unknown"
CASES = [
    Case("lag and nobody there", view(), LAUNCH),
    Case("one record of lag", view(lag={0: 0, 1: 1}), LAUNCH),
    Case("caught up", view(lag={0: 0, 1: 0}), said=["caught up: lag 0"]),
    Case("no lag, but the stream has not begun", view(lag={0: 0, 1: 0}, begun=()), LAUNCH),
    Case("no lag, but a partition was added", view(lag={0: 0, 1: 0}, begun={0}), LAUNCH),
    Case("a topic without partitions", view(lag={}), said=["the topic has no partition for this shard"]),
    Case(
        "a leader is away and the rest is caught up",
        view(lag={0: 0}, unanswered=[1]),
        said=[f"caught up: lag 0; {SILENT}"],
    ),
    Case("a leader is away and the rest has lag", view(lag={0: 5}, unanswered=[1]), LAUNCH),
    Case("a leader is away before the stream has begun", view(lag={0: 0}, unanswered=[1], begun=()), LAUNCH),
    Case("every leader is away", view(lag={}, unanswered=[1]), said=[f"lag unknown; {SILENT}"]),
    Case(
        "a leader is away and a run drains the rest",
        view(lag={0: 5}, unanswered=[1], active=[run()], **OWNED),
        said=[f"run 1a2b3c4d is draining; lag 5; {SILENT}"],
    ),
    Case(
        "the partition of a leader that is away has an owner",
        view(lag={0: 5}, unanswered=[1], active=[by_hand()], owners={1: RUN}, present={RUN}),
        said=[f"run 1a2b3c4d is draining; lag 5; {SILENT}"],
    ),
    Case(
        "a leader is away: the other shard goes on",
        view(lag={0: 5}, unanswered=[1], parallelism=2),
        [Launch(Shard(0, 2))],
        [f"shard 1/2: lag unknown; {SILENT}"],
    ),
    Case(
        "a leader is back, and its partition has not begun",
        view(begun={0}, active=[run()], owners={0: RUN}, present={RUN}),
        [Launch(WHOLE, "partitions")],
    ),
    Case(
        "a leader is back just after a run has begun without it",
        view(begun={0}, active=[run(started_at=NOW - UNBEGUN_SECONDS + 1)], owners={0: RUN}, present={RUN}),
        said=["run 1a2b3c4d is draining; lag 1,234"],
    ),
    Case(
        "a leader is back, and a run by hand drains the rest",
        view(begun={0}, active=[by_hand()], owners={0: RUN}, present={RUN}),
        said=["run 1a2b3c4d is draining; lag 1,234"],
    ),
    Case("paused", view(paused="rebuild (ann)"), said=["paused: rebuild (ann); lag 1,234"]),
    Case(
        "paused, its run is ending",
        view(paused="rebuild (ann)", active=[run()], **OWNED),
        said=["paused: rebuild (ann); lag 1,234"],
    ),
    Case("draining", view(active=[run()], **OWNED), said=["run 1a2b3c4d is draining; lag 1,234"]),
    Case(
        "draining, caught up", view(lag={0: 0, 1: 0}, active=[run()], **OWNED), said=["run 1a2b3c4d is draining; lag 0"]
    ),
    Case("the owner is no run that Dagster knows", view(**OWNED), said=["run 1a2b3c4d is draining; lag 1,234"]),
    Case(
        "two owners by hand",
        view(owners={0: RUN, 1: OTHER}, present={RUN, OTHER}, active=[by_hand(RUN), by_hand(OTHER)]),
        said=["runs 1a2b3c4d and 5e6f7a8b are draining; lag 1,234"],
    ),
    Case(
        "one partition owned by hand",
        view(owners={1: RUN}, active=[by_hand()], present={RUN}),
        said=["run 1a2b3c4d is draining; lag 1,234"],
    ),
    *(
        Case(
            f"a run is {status.lower()}",
            view(active=[run(status=status, started_at=NOW - 1)]),
            said=[f"run 1a2b3c4d is {word}; lag 1,234"],
        )
        for status, word in [
            ("NOT_STARTED", "not started"),
            ("QUEUED", "queued"),
            ("STARTING", "starting"),
            ("CANCELING", "canceling"),
        ]
    ),
    Case(
        "just started",
        view(active=[run(started_at=NOW - START_GRACE_SECONDS + 1)]),
        said=["run 1a2b3c4d is starting; lag 1,234"],
    ),
    Case(
        "started for long, with a session: it waits or is ending",
        view(active=[run()], present={RUN}),
        said=["run 1a2b3c4d is starting; lag 1,234"],
    ),
    Case(
        "started for longer than the grace, without a session",
        view(active=[run(started_at=NOW - START_GRACE_SECONDS)]),
        LAUNCH,
    ),
    Case(
        "just started, had its session already, and has none any more",
        view(active=[run(started_at=NOW - 1)], named={RUN}),
        LAUNCH,
    ),
    Case(
        "just started and draining",
        view(active=[run(started_at=NOW - 1)], named={RUN}, present={RUN}, owners={0: RUN, 1: RUN}),
        said=["run 1a2b3c4d is draining; lag 1,234"],
    ),
    Case(
        "queued for long is no ghost",
        view(active=[run(status="QUEUED", started_at=LONG_AGO)]),
        said=["run 1a2b3c4d is queued; lag 1,234"],
    ),
    Case("a run by hand that owns nothing does not hinder", view(active=[by_hand()]), LAUNCH),
    Case(
        "the owner's age nears its end",
        view(active=[run(started_at=NOW - 590)], run_max_seconds=600, **OWNED),
        [Launch(WHOLE, AGE)],
    ),
    Case(
        "the owner is young",
        view(active=[run(started_at=NOW - 580)], run_max_seconds=600, **OWNED),
        said=["run 1a2b3c4d is draining; lag 1,234"],
    ),
    Case(
        "its successor waits already",
        view(active=[run(started_at=NOW - 590), run(OTHER, started_at=NOW)], run_max_seconds=600, **OWNED),
        said=["run 1a2b3c4d is draining; lag 1,234; run 5e6f7a8b is to take over"],
    ),
    Case(
        "nobody succeeds a run launched by hand",
        view(active=[by_hand()], run_max_seconds=600, **OWNED),
        said=["run 1a2b3c4d is draining; lag 1,234"],
    ),
    Case(
        "Kafka lost what is next, and going on is wanted",
        view(lag={0: 0, 1: 0}, lost=True),
        LAUNCH,
    ),
    Case(
        "a run whose start was cut off",
        view(active=[run(OTHER, "STARTING", started_at=NOW - 31)]),
        LAUNCH,
    ),
    Case(
        "a run that was created and never submitted",
        view(active=[run(OTHER, "NOT_STARTED", started_at=NOW - 31)]),
        LAUNCH,
    ),
    Case(
        "a run that takes long to start",
        view(active=[run(OTHER, "STARTING", started_at=NOW - 29)]),
        said=["run 5e6f7a8b is starting; lag 1,234"],
    ),
    Case(
        "an operator has acted since the last failure",
        view(recent=[failed(2)], acted_at=NOW - 1),
        LAUNCH,
    ),
    Case(
        "new code is tried at once",
        view(recent=[failed(2, definition=OLD)]),
        LAUNCH,
    ),
    Case("the definition changed", view(active=[run(definition=OLD)], **OWNED), [Launch(WHOLE, "definition")]),
    Case(
        "the definition changed and the successor is there",
        view(active=[run(definition=OLD), run(OTHER, "QUEUED")], **OWNED),
        said=["run 1a2b3c4d is draining; lag 1,234; run 5e6f7a8b is to take over"],
    ),
    Case(
        "the definition changed again while a successor of the one before waits",
        view(
            active=[run(definition="definition-0"), run(OTHER, definition=OLD)],
            owners={0: RUN, 1: RUN},
            present={RUN, OTHER},
        ),
        [Launch(WHOLE, "definition")],
    ),
    Case(
        "a run by hand is drained out, whatever its definition",
        view(active=[by_hand()], **OWNED),
        said=["run 1a2b3c4d is draining; lag 1,234"],
    ),
    Case(
        "more shards: each new one asks the old owner to yield",
        view(parallelism=2, active=[run()], **OWNED),
        [Launch(Shard(0, 2), "reshard"), Launch(Shard(1, 2), "reshard")],
    ),
    Case(
        "fewer shards",
        view(
            active=[run(shard=Shard(0, 2)), run(OTHER, shard=Shard(1, 2))],
            owners={0: RUN, 1: OTHER},
            present={RUN, OTHER},
        ),
        [Launch(WHOLE, "reshard")],
    ),
    Case(
        "more shards, one successor on its way",
        view(
            parallelism=2,
            active=[run(definition=OLD), run(OTHER, "STARTING", shard=Shard(1, 2), started_at=NOW - 1)],
            **OWNED,
        ),
        [Launch(Shard(0, 2), "reshard")],
        ["shard 1/2: run 1a2b3c4d is draining; lag 234; run 5e6f7a8b is to take over"],
    ),
    Case(
        "every shard by itself",
        view(
            parallelism=3,
            lag={0: 5, 1: 0, 2: 7},
            begun={0, 1, 2},
            owners={2: RUN},
            present={RUN},
            active=[run(shard=Shard(2, 3))],
        ),
        [Launch(Shard(0, 3))],
        ["shard 1/3: caught up: lag 0", "shard 2/3: run 1a2b3c4d is draining; lag 7"],
    ),
    Case(
        "more shards than partitions",
        view(parallelism=3),
        [Launch(Shard(0, 3)), Launch(Shard(1, 3))],
        ["shard 2/3: the topic has no partition for this shard"],
    ),
    Case(
        "the last run failed",
        view(recent=[failed(1.0, ended="failed:DatabaseUnavailable")]),
        said=["backing off: the last 1 run failed without progress (DatabaseUnavailable); next try in 4 s; lag 1,234"],
    ),
    Case(
        "three failed, the last one was killed",
        view(recent=[failed(2.0), failed(30.0), failed(60.0)]),
        said=["backing off: the last 3 runs failed without progress (killed); next try in 18 s; lag 1,234"],
    ),
    Case("the back-off is over", view(recent=[failed(5.0)]), LAUNCH),
    Case(
        "it had moved a position before it failed", view(recent=[failed(1.0, 50.0)], progress_at={0: NOW - 2}), LAUNCH
    ),
    Case(
        "failures before the last progress do not count",
        view(recent=[failed(1.0), failed(60.0, 90.0)], progress_at={0: NOW - 99, 1: NOW - 70}),
        said=["backing off: the last 1 run failed without progress (killed); next try in 4 s; lag 1,234"],
    ),
    Case(
        "another shard's progress does not count",
        view(parallelism=2, lag={0: 5, 1: 0}, recent=[failed(1.0, shard=Shard(0, 2))], progress_at={1: NOW}),
        said=[
            "shard 0/2: backing off: the last 1 run failed without progress (killed); next try in 4 s; lag 5",
            "shard 1/2: caught up: lag 0",
        ],
    ),
    Case("a success ends the row of failures", view(recent=[run(OTHER, "SUCCESS"), failed(1.0)]), LAUNCH),
    Case("a canceled run is no failure", view(recent=[run(OTHER, "CANCELED"), failed(1.0)]), LAUNCH),
    Case("runs by hand do not back off the sensor", view(recent=[by_hand(OTHER, "FAILURE", ended_at=NOW)]), LAUNCH),
    Case("another shard's failures are its own", view(recent=[failed(1.0, shard=Shard(1, 2))]), LAUNCH),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_decision(case: Case) -> None:
    decision = decide(case.view)
    assert decision.launches == list(case.launches)
    assert decision.said == list(case.said)
    assert decision.failed_ghosts == []


class TestGhosts:
    def look(self, ghosts_seen: dict[str, float], now: float = NOW, **changes: Any) -> Decision:
        return decide(view(now=now, ghosts_seen=ghosts_seen, **{"active": [run()], **changes}))

    def test_one_is_failed_when_it_is_seen_a_second_time(self) -> None:
        first = self.look({})
        assert (first.failed_ghosts, first.ghosts_seen) == ([], {RUN: NOW})
        soon = self.look(first.ghosts_seen, NOW + GHOST_SECONDS - 1)
        assert (soon.failed_ghosts, soon.ghosts_seen) == ([], {RUN: NOW})
        later = self.look(soon.ghosts_seen, NOW + GHOST_SECONDS, lag={0: 0, 1: 0})
        assert (later.failed_ghosts, later.ghosts_seen) == ([RUN], {})

    def test_one_that_said_how_it_ended_is_left_to_end(self) -> None:
        ending = {"active": [run(ended="age")], "lag": {0: 0, 1: 0}}
        assert self.look({RUN: NOW}, NOW + ENDING_SECONDS - 1, **ending).failed_ghosts == []
        assert self.look({RUN: NOW}, NOW + ENDING_SECONDS, **ending).failed_ghosts == [RUN]

    def test_none_is_failed_by_a_tick_that_launches(self) -> None:
        """Dagster's storage may refuse the report, again and again, and each time the launch would be gone with it."""
        late = self.look({RUN: NOW}, NOW + GHOST_SECONDS)
        assert (late.launches, late.failed_ghosts, late.ghosts_seen) == (LAUNCH, [], {RUN: NOW})
        after = self.look(late.ghosts_seen, NOW + 59, active=[run(), run(OTHER, "STARTING", started_at=NOW + 30)])
        assert (after.launches, after.failed_ghosts, after.ghosts_seen) == ([], [RUN], {})

    def test_one_that_shows_life_between_is_seen_for_the_first_time_again(self) -> None:
        alive = self.look({RUN: NOW - 60}, present={RUN})
        assert (alive.failed_ghosts, alive.ghosts_seen) == ([], {})

    def test_a_run_by_hand_is_none(self) -> None:
        """It may be at an asset that is not ours, for hours."""
        assert self.look({RUN: LONG_AGO}, active=[by_hand()]).failed_ghosts == []

    def test_a_shard_is_not_kept_waiting_by_one(self) -> None:
        assert self.look({}).launches == LAUNCH

    def test_one_that_was_never_submitted_is(self) -> None:
        created = run(status="NOT_STARTED", started_at=NOW)
        assert self.look({}, NOW + 29, active=[created]).ghosts_seen == {}
        assert self.look({RUN: NOW + 30}, NOW + 30 + GHOST_SECONDS, lag={0: 0}, active=[created]).failed_ghosts == [RUN]

    def test_one_that_dagster_still_has_in_hand_is_none(self) -> None:
        for status in ("QUEUED", "STARTING", "CANCELING"):
            assert self.look({RUN: LONG_AGO}, active=[run(status=status)]).failed_ghosts == []


class TestBackoff:
    def test_it_grows_to_five_minutes(self) -> None:
        assert [backoff_seconds(failures) for failures in range(9)] == [0, 5, 10, 20, 40, 80, 160, 300, 300]
        assert backoff_seconds(10_000) == 300

    def test_each_failure_in_a_row_doubles_the_wait(self) -> None:
        for count in range(1, 9):
            rows = [failed(number * 400.0 + 3) for number in range(count)]
            wait = backoff_seconds(count)
            early = view(recent=rows, now=NOW - 3 + wait - 0.5)
            assert decide(early).launches == [], count
            assert decide(view(recent=rows, now=NOW - 3 + wait)).launches == LAUNCH, count


class TestShards:
    def test_each_partition_has_one(self) -> None:
        for count in (1, 2, 3, 5):
            owned = [partition for shard in shards(count) for partition in shard.partitions(range(7))]
            assert sorted(owned) == list(range(7))

    def test_the_tag_is_read_back(self) -> None:
        assert [shard_of({"ingest/shard": str(shard)}) for shard in shards(3)] == shards(3)

    @pytest.mark.parametrize("text", ["", "1", "a/b", "0/0", "/", "1/", "-1/2"])
    def test_a_tag_of_another_shape_is_no_shard(self, text: str) -> None:
        assert shard_of({"ingest/shard": text}) is None
        assert shard_of({}) is None
