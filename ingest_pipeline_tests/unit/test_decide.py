"""A tick's decisions as a table: view → launched runs, skip reasons, ghosts reported failed."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import pytest

from ingest_pipeline.orchestration.sensor.decide import ENDING_SECONDS, GHOST_SECONDS, UNBEGUN_SECONDS, decide
from ingest_pipeline.orchestration.setbacks import backoff_seconds
from ingest_pipeline.orchestration.tags import Shard, shard_of, shards
from ingest_pipeline.orchestration.view import AGE, START_GRACE_SECONDS, Decision, Launch, RunView, StreamView, View

NOW = 1_000_000.0
LONG_AGO = NOW - 300
WHOLE = Shard(0, 1)
OLD, NEW = "definition-1", "definition-2"
STREAM_FIELDS = {field.name for field in fields(StreamView)}
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


def stream(name: str = "price", **changes: Any) -> StreamView:
    return StreamView(**{**dict(name=name, lag={0: 1000, 1: 234}, begun={0, 1}), **changes})


def view(**changes: Any) -> View:
    """One stream with two begun partitions and 1,234 records of lag. No owners and no runs."""
    usual = dict(
        now=NOW,
        parallelism=1,
        definition=NEW,
        streams=[stream(**{name: changes.pop(name) for name in STREAM_FIELDS & changes.keys()})],
        connected=(),
        recorded_owners=(),
        active=(),
    )
    return View(**{**usual, **changes})


@dataclass(frozen=True)
class Case:
    """Expected are exactly these launches and skip reasons."""

    name: str
    view: View
    launches: Sequence[Launch] = ()
    skip_reasons: Sequence[str] = field(default=())


LAUNCH = [Launch(WHOLE)]
OWNED: dict[str, Any] = dict(owners={0: RUN, 1: RUN}, connected={RUN})
SILENT = "partition 1: its leader does not answer, its state is unknown"
CASES = [
    Case("lag without a run", view(), LAUNCH),
    Case("one record of lag", view(lag={0: 0, 1: 1}), LAUNCH),
    Case("caught up", view(lag={0: 0, 1: 0}), skip_reasons=["caught up: lag 0"]),
    Case("no lag, but the stream has not begun", view(lag={0: 0, 1: 0}, begun=()), LAUNCH),
    Case("no lag, but a partition was added", view(lag={0: 0, 1: 0}, begun={0}), LAUNCH),
    Case("a topic without partitions", view(lag={}), skip_reasons=["the topic has no partition for this shard"]),
    Case(
        "a leader is away and the rest is caught up",
        view(lag={0: 0}, unanswered=[1]),
        skip_reasons=[f"caught up: lag 0; {SILENT}"],
    ),
    Case("a leader is away and the rest has lag", view(lag={0: 5}, unanswered=[1]), LAUNCH),
    Case("a leader is away before the stream has begun", view(lag={0: 0}, unanswered=[1], begun=()), LAUNCH),
    Case("every leader is away", view(lag={}, unanswered=[1]), skip_reasons=[f"lag unknown; {SILENT}"]),
    Case(
        "a leader is away and a run drains the rest",
        view(lag={0: 5}, unanswered=[1], active=[run()], **OWNED),
        skip_reasons=[f"run 1a2b3c4d is draining; lag 5; {SILENT}"],
    ),
    Case(
        "the partition of a leader that is away has an owner",
        view(lag={0: 5}, unanswered=[1], active=[by_hand()], owners={1: RUN}, connected={RUN}),
        skip_reasons=[f"run 1a2b3c4d is draining; lag 5; {SILENT}"],
    ),
    Case(
        "a leader is away: the other shard gets a run",
        view(lag={0: 5}, unanswered=[1], parallelism=2),
        [Launch(Shard(0, 2))],
        [f"shard 1/2: lag unknown; {SILENT}"],
    ),
    Case(
        "a leader is back, and its partition has not begun",
        view(begun={0}, active=[run()], owners={0: RUN}, connected={RUN}),
        [Launch(WHOLE, "partitions")],
    ),
    Case(
        "a leader is back just after a run has begun without it",
        view(begun={0}, active=[run(started_at=NOW - UNBEGUN_SECONDS + 1)], owners={0: RUN}, connected={RUN}),
        skip_reasons=["run 1a2b3c4d is draining; lag 1,234"],
    ),
    Case(
        "a leader is back, and a run by hand drains the rest",
        view(begun={0}, active=[by_hand()], owners={0: RUN}, connected={RUN}),
        skip_reasons=["run 1a2b3c4d is draining; lag 1,234"],
    ),
    Case("paused", view(paused="rebuild (ann)"), skip_reasons=["paused: rebuild (ann); lag 1,234"]),
    Case(
        "paused, its run is ending",
        view(paused="rebuild (ann)", active=[run()], **OWNED),
        skip_reasons=["paused: rebuild (ann); lag 1,234"],
    ),
    Case("draining", view(active=[run()], **OWNED), skip_reasons=["run 1a2b3c4d is draining; lag 1,234"]),
    Case(
        "draining, caught up",
        view(lag={0: 0, 1: 0}, active=[run()], **OWNED),
        skip_reasons=["run 1a2b3c4d is draining; lag 0"],
    ),
    Case("the owner is no run that Dagster knows", view(**OWNED), skip_reasons=["run 1a2b3c4d is draining; lag 1,234"]),
    Case(
        "two owners by hand",
        view(owners={0: RUN, 1: OTHER}, connected={RUN, OTHER}, active=[by_hand(RUN), by_hand(OTHER)]),
        skip_reasons=["runs 1a2b3c4d and 5e6f7a8b are draining; lag 1,234"],
    ),
    Case(
        "one partition owned by hand",
        view(owners={1: RUN}, active=[by_hand()], connected={RUN}),
        skip_reasons=["run 1a2b3c4d is draining; lag 1,234"],
    ),
    *(
        Case(
            f"a run is {status.lower()}",
            view(active=[run(status=status, started_at=NOW - 1)]),
            skip_reasons=[f"run 1a2b3c4d is {word}; lag 1,234"],
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
        skip_reasons=["run 1a2b3c4d is starting; lag 1,234"],
    ),
    Case(
        "started long ago, with a session: the run waits or ends",
        view(active=[run()], connected={RUN}),
        skip_reasons=["run 1a2b3c4d is starting; lag 1,234"],
    ),
    Case(
        "started for longer than the grace, without a session",
        view(active=[run(started_at=NOW - START_GRACE_SECONDS)]),
        LAUNCH,
    ),
    Case(
        "just started, and its session is lost",
        view(active=[run(started_at=NOW - 1)], recorded_owners={RUN}),
        LAUNCH,
    ),
    Case(
        "just started and draining",
        view(active=[run(started_at=NOW - 1)], recorded_owners={RUN}, connected={RUN}, owners={0: RUN, 1: RUN}),
        skip_reasons=["run 1a2b3c4d is draining; lag 1,234"],
    ),
    Case(
        "a run queued long ago is no ghost",
        view(active=[run(status="QUEUED", started_at=LONG_AGO)]),
        skip_reasons=["run 1a2b3c4d is queued; lag 1,234"],
    ),
    Case("a run by hand without a partition does not prevent a launch", view(active=[by_hand()]), LAUNCH),
    Case(
        "the owner nears its maximum age",
        view(active=[run(started_at=NOW - 590)], run_max_seconds=600, **OWNED),
        [Launch(WHOLE, AGE)],
    ),
    Case(
        "the owner is young",
        view(active=[run(started_at=NOW - 580)], run_max_seconds=600, **OWNED),
        skip_reasons=["run 1a2b3c4d is draining; lag 1,234"],
    ),
    Case(
        "the owner's successor waits already",
        view(active=[run(started_at=NOW - 590), run(OTHER, started_at=NOW)], run_max_seconds=600, **OWNED),
        skip_reasons=["run 1a2b3c4d is draining; lag 1,234; run 5e6f7a8b will take over"],
    ),
    Case(
        "a run by hand gets no successor",
        view(active=[by_hand()], run_max_seconds=600, **OWNED),
        skip_reasons=["run 1a2b3c4d is draining; lag 1,234"],
    ),
    Case(
        "Kafka lost the next records, and the settings allow to continue",
        view(lag={0: 0, 1: 0}, lost=True),
        LAUNCH,
    ),
    Case(
        "a run with an interrupted start",
        view(active=[run(OTHER, "STARTING", started_at=NOW - 31)]),
        LAUNCH,
    ),
    Case(
        "a run created long ago and never submitted",
        view(active=[run(OTHER, "NOT_STARTED", started_at=NOW - 31)]),
        LAUNCH,
    ),
    Case(
        "a run with a slow start",
        view(active=[run(OTHER, "STARTING", started_at=NOW - 29)]),
        skip_reasons=["run 5e6f7a8b is starting; lag 1,234"],
    ),
    Case(
        "an operator acted after the last failure",
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
        skip_reasons=["run 1a2b3c4d is draining; lag 1,234; run 5e6f7a8b will take over"],
    ),
    Case(
        "the definition changed again while an older successor waits",
        view(
            active=[run(definition="definition-0"), run(OTHER, definition=OLD)],
            owners={0: RUN, 1: RUN},
            connected={RUN, OTHER},
        ),
        [Launch(WHOLE, "definition")],
    ),
    Case(
        "a run by hand drains on with any definition",
        view(active=[by_hand()], **OWNED),
        skip_reasons=["run 1a2b3c4d is draining; lag 1,234"],
    ),
    Case(
        "more shards: every new shard gets a successor of the old owner",
        view(parallelism=2, active=[run()], **OWNED),
        [Launch(Shard(0, 2), "reshard"), Launch(Shard(1, 2), "reshard")],
    ),
    Case(
        "fewer shards",
        view(
            active=[run(shard=Shard(0, 2)), run(OTHER, shard=Shard(1, 2))],
            owners={0: RUN, 1: OTHER},
            connected={RUN, OTHER},
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
        ["shard 1/2: run 1a2b3c4d is draining; lag 234; run 5e6f7a8b will take over"],
    ),
    Case(
        "every shard has its own decision",
        view(
            parallelism=3,
            lag={0: 5, 1: 0, 2: 7},
            begun={0, 1, 2},
            owners={2: RUN},
            connected={RUN},
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
        skip_reasons=[
            "backing off: the last 1 run failed without progress (DatabaseUnavailable), next try in 4 s; lag 1,234"
        ],
    ),
    Case(
        "three runs failed, the last was killed",
        view(recent=[failed(2.0), failed(30.0), failed(60.0)]),
        skip_reasons=["backing off: the last 3 runs failed without progress (killed), next try in 18 s; lag 1,234"],
    ),
    Case("the back-off is over", view(recent=[failed(5.0)]), LAUNCH),
    Case("the failed run had moved a position", view(recent=[failed(1.0, 50.0)], progress_at={0: NOW - 2}), LAUNCH),
    Case(
        "failures before the last progress do not count",
        view(recent=[failed(1.0), failed(60.0, 90.0)], progress_at={0: NOW - 99, 1: NOW - 70}),
        skip_reasons=["backing off: the last 1 run failed without progress (killed), next try in 4 s; lag 1,234"],
    ),
    Case(
        "another shard's progress does not count",
        view(parallelism=2, lag={0: 5, 1: 0}, recent=[failed(1.0, shard=Shard(0, 2))], progress_at={1: NOW}),
        skip_reasons=[
            "shard 0/2: backing off: the last 1 run failed without progress (killed), next try in 4 s; lag 5",
            "shard 1/2: caught up: lag 0",
        ],
    ),
    Case("a success ends the row of failures", view(recent=[run(OTHER, "SUCCESS"), failed(1.0)]), LAUNCH),
    Case("a canceled run is no failure", view(recent=[run(OTHER, "CANCELED"), failed(1.0)]), LAUNCH),
    Case("runs by hand do not back off the sensor", view(recent=[by_hand(OTHER, "FAILURE", ended_at=NOW)]), LAUNCH),
    Case("another shard's failures do not count", view(recent=[failed(1.0, shard=Shard(1, 2))]), LAUNCH),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_decision(case: Case) -> None:
    decision = decide(case.view)
    assert decision.launches == list(case.launches)
    assert decision.skip_reasons == list(case.skip_reasons)
    assert decision.failed_ghosts == []


class TestGhosts:
    def decide(self, ghosts_seen: dict[str, float], now: float = NOW, **changes: Any) -> Decision:
        return decide(view(now=now, ghosts_seen=ghosts_seen, **{"active": [run()], **changes}))

    def test_a_ghost_is_reported_failed_after_ghost_seconds(self) -> None:
        first = self.decide({})
        assert (first.failed_ghosts, first.ghosts_seen) == ([], {RUN: NOW})
        soon = self.decide(first.ghosts_seen, NOW + GHOST_SECONDS - 1)
        assert (soon.failed_ghosts, soon.ghosts_seen) == ([], {RUN: NOW})
        later = self.decide(soon.ghosts_seen, NOW + GHOST_SECONDS, lag={0: 0, 1: 0})
        assert (later.failed_ghosts, later.ghosts_seen) == ([RUN], {})

    def test_a_run_with_an_end_reason_gets_more_time(self) -> None:
        ending = {"active": [run(ended="age")], "lag": {0: 0, 1: 0}}
        assert self.decide({RUN: NOW}, NOW + ENDING_SECONDS - 1, **ending).failed_ghosts == []
        assert self.decide({RUN: NOW}, NOW + ENDING_SECONDS, **ending).failed_ghosts == [RUN]

    def test_a_tick_with_a_launch_reports_no_ghost(self) -> None:
        """Dagster's storage may refuse every report, and an error would lose the tick's launches."""
        late = self.decide({RUN: NOW}, NOW + GHOST_SECONDS)
        assert (late.launches, late.failed_ghosts, late.ghosts_seen) == (LAUNCH, [], {RUN: NOW})
        after = self.decide(late.ghosts_seen, NOW + 59, active=[run(), run(OTHER, "STARTING", started_at=NOW + 30)])
        assert (after.launches, after.failed_ghosts, after.ghosts_seen) == ([], [RUN], {})

    def test_a_run_with_a_session_again_is_forgotten(self) -> None:
        alive = self.decide({RUN: NOW - 60}, connected={RUN})
        assert (alive.failed_ghosts, alive.ghosts_seen) == ([], {})

    def test_a_run_by_hand_is_no_ghost(self) -> None:
        """The run may work on another asset for hours."""
        assert self.decide({RUN: LONG_AGO}, active=[by_hand()]).failed_ghosts == []

    def test_a_run_never_submitted_is_a_ghost(self) -> None:
        created = run(status="NOT_STARTED", started_at=NOW)
        assert self.decide({}, NOW + 29, active=[created]).ghosts_seen == {}
        assert self.decide({RUN: NOW + 30}, NOW + 30 + GHOST_SECONDS, lag={0: 0}, active=[created]).failed_ghosts == [
            RUN
        ]

    def test_a_queued_starting_or_canceling_run_is_no_ghost(self) -> None:
        for status in ("QUEUED", "STARTING", "CANCELING"):
            assert self.decide({RUN: LONG_AGO}, active=[run(status=status)]).failed_ghosts == []


class TestBackoff:
    def test_the_wait_grows_to_five_minutes(self) -> None:
        assert [backoff_seconds(failures) for failures in range(9)] == [0, 5, 10, 20, 40, 80, 160, 300, 300]
        assert backoff_seconds(10_000) == 300

    def test_every_failure_in_a_row_doubles_the_wait(self) -> None:
        for count in range(1, 9):
            rows = [failed(number * 400.0 + 3) for number in range(count)]
            wait = backoff_seconds(count)
            early = view(recent=rows, now=NOW - 3 + wait - 0.5)
            assert decide(early).launches == [], count
            assert decide(view(recent=rows, now=NOW - 3 + wait)).launches == LAUNCH, count


class TestShards:
    def test_every_partition_has_one_shard(self) -> None:
        for count in (1, 2, 3, 5):
            owned = [partition for shard in shards(count) for partition in shard.partitions(range(7))]
            assert sorted(owned) == list(range(7))

    def test_a_tag_is_parsed(self) -> None:
        assert [shard_of({"ingest/shard": str(shard)}) for shard in shards(3)] == shards(3)

    @pytest.mark.parametrize("text", ["", "1", "a/b", "0/0", "/", "1/", "-1/2"])
    def test_a_malformed_tag_is_no_shard(self, text: str) -> None:
        assert shard_of({"ingest/shard": text}) is None
        assert shard_of({}) is None
