"""A tick's decisions for a job of several streams."""

from typing import Any

import pytest

from ingest_pipeline.core.errors import DataLoss
from ingest_pipeline.orchestration.sensor.decide import decide, summary
from ingest_pipeline.orchestration.tags import Shard, shards
from ingest_pipeline.orchestration.view import AGE, Launch, RunView, StreamView, View
from ingest_pipeline_tests.unit.test_decide import LAUNCH, NEW, NOW, OLD, OTHER, RUN, WHOLE, by_hand, failed, run

LONG_AGO = NOW - 10_000


def stream(name: str, *lags: int, **changes: Any) -> StreamView:
    """A stream whose first partition has begun.

    Args:
        lags: of the partitions. By default one partition without lag.
    """
    lag = dict(enumerate(lags or (0,)))
    return StreamView(**{**dict(name=name, lag=lag, begun={0}, progress_at={0: LONG_AGO}), **changes})


def decision(*streams: StreamView, **changes: Any) -> tuple[list[Launch], list[str]]:
    numbered = [
        StreamView(**{**{name: getattr(item, name) for name in StreamView.__slots__}, "number": number})
        for number, item in enumerate(streams)
    ]
    usual = dict(now=NOW, parallelism=1, definition=NEW, streams=numbered, connected=(), recorded_owners=(), active=())
    decided = decide(View(**{**usual, **changes}))
    return decided.launches, decided.skip_reasons


OWNED = {"owners": {0: RUN}}
DRAINING: dict[str, Any] = dict(active=[run()], connected={RUN})


def test_lag_of_one_stream_launches_one_run() -> None:
    assert decision(stream("a"), stream("b", 5), stream("c")) == (LAUNCH, [])


def test_all_caught_up() -> None:
    assert decision(stream("a"), stream("b")) == ([], ["2 caught up"])


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ({"paused": "rebuild (ann)"}, "a paused: rebuild (ann)"),
        ({"trouble": "the topic is gone"}, "a the topic is gone"),
        ({"trouble": "the topic is missing", "lag": {}}, "a the topic is missing"),
    ],
)
def test_a_stream_that_cannot_be_drained_does_not_count(trouble: dict[str, Any], words: str) -> None:
    in_trouble = stream("a", **{"lag": {0: 7}, **trouble})
    assert decision(in_trouble, stream("b")) == ([], [f"1 caught up; {words}"])
    assert decision(in_trouble, stream("b", 5)) == (LAUNCH, [])


def test_a_live_run_of_the_shard_gets_no_second_run() -> None:
    """The run itself takes up streams that become free."""
    reasons = ["1 draining, lag 3; 1 waiting, lag 5; run 1a2b3c4d is draining"]
    assert decision(stream("a", 3, **OWNED), stream("b", 5), **DRAINING) == ([], reasons)
    starting = dict(active=[run(started_at=NOW - 1)])
    assert decision(stream("a", 3), stream("b"), **starting) == (
        [],
        ["1 caught up; 1 waiting, lag 3; run 1a2b3c4d is starting"],
    )


def test_a_run_that_owns_only_a_paused_stream_is_the_drainer() -> None:
    streams = (stream("a", 3, paused="x", **OWNED), stream("b", 5))
    assert decision(*streams, **DRAINING)[0] == []
    assert decision(*streams, active=[run(definition=OLD)], connected={RUN})[0] == [Launch(WHOLE, "definition")]


@pytest.mark.parametrize("active", [[by_hand()], []], ids=["by hand", "of another job"])
def test_a_foreign_owner_of_one_stream_leaves_the_others_to_a_new_run(active: list[RunView]) -> None:
    owned = stream("a", 3, **OWNED)
    assert decision(owned, stream("b", 5), active=active, connected={RUN}) == (LAUNCH, [])
    reasons = ["1 caught up; 1 draining, lag 3; run 1a2b3c4d is draining"]
    assert decision(owned, stream("b"), active=active, connected={RUN}) == ([], reasons)


def test_the_only_stream_with_a_foreign_owner_waits_for_it() -> None:
    partly = stream("a", 3, 4, begun={0, 1}, **OWNED)
    assert decision(partly, connected={RUN}) == ([], ["run 1a2b3c4d is draining; lag 7"])


def test_the_owner_gets_successors() -> None:
    streams = (stream("a", 3, **OWNED), stream("b", 5))
    old = dict(active=[run(definition=OLD)], connected={RUN})
    assert decision(*streams, **old) == ([Launch(WHOLE, "definition")], [])
    assert decision(*streams, **DRAINING, run_max_seconds=300) == ([Launch(WHOLE, AGE)], [])
    waiting = dict(active=[run(definition=OLD), run(OTHER)], connected={RUN, OTHER})
    assert decision(*streams, **waiting)[1] == [
        "1 draining, lag 3; 1 waiting, lag 5; run 1a2b3c4d is draining; run 5e6f7a8b will take over"
    ]


def test_an_added_partition_gets_a_successor_unless_its_stream_is_stopped_or_new() -> None:
    owned = stream("a", **OWNED)
    assert decision(owned, stream("b", 0, 4), **DRAINING)[0] == [Launch(WHOLE, "partitions")]
    assert decision(owned, stream("b", 0, 4, stopped_at=NOW - 1), **DRAINING)[0] == []
    assert decision(owned, stream("b", 0, 4, begun=()), **DRAINING)[0] == []


class TestBackoff:
    """Only the failures of a stream, and of whole runs, delay a launch for its lag."""

    FAILED = failed(1.0, failed_streams=("a",), ended="failed:DataLoss")

    def test_a_failed_stream_waits(self) -> None:
        stopped = stream("a", 3, stopped_at=NOW - 1, failure="too many dead letters")
        assert decision(stopped, stream("b"), recent=[self.FAILED]) == (
            [],
            [
                "1 caught up; a stopped: too many dead letters; backing off: the last 1 run failed without progress"
                f" ({DataLoss.__name__}), next try in 4 s"
            ],
        )

    def test_another_stream_does_not_wait(self) -> None:
        stopped = stream("a", 3, stopped_at=NOW - 1, failure="too many dead letters")
        assert decision(stopped, stream("b", 5), recent=[self.FAILED]) == (LAUNCH, [])

    def test_an_operator_who_acted_ends_the_wait(self) -> None:
        assert decision(stream("a", 3, acted_at=NOW - 0.5), stream("b"), recent=[self.FAILED]) == (LAUNCH, [])

    def test_a_failure_of_the_whole_run_delays_all(self) -> None:
        launches, (reason,) = decision(
            stream("a", 3), stream("b", 5), recent=[failed(1.0, ended="failed:NotPermitted")]
        )
        assert launches == []
        assert reason.endswith("the last 1 run failed without progress (NotPermitted), next try in 4 s")

    def test_progress_of_the_stream_with_lag_counts(self) -> None:
        whole = [failed(1.0, 50.0)]
        progressed = dict(progress_at={0: NOW - 2})
        assert decision(stream("a", 3, **progressed), stream("b"), recent=whole) == (LAUNCH, [])
        assert decision(stream("a", 3), stream("b", **progressed), recent=whole)[0] == []


class TestShards:
    def test_single_partitions_are_spread_over_all_shards(self) -> None:
        for count in (1, 2, 3):
            shares = [[n for n in range(7) if shard.partitions([0], n)] for shard in shards(count)]
            assert sorted(number for share in shares for number in share) == list(range(7))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1

    def test_each_shard_decides_on_its_own_streams(self) -> None:
        streams = (stream("a", 3), stream("b"), stream("c", 5))
        assert decision(*streams, parallelism=2) == ([Launch(Shard(0, 2))], ["shard 1/2: 1 caught up"])
        assert decision(*streams, parallelism=4) == (
            [Launch(Shard(0, 4)), Launch(Shard(2, 4))],
            ["shard 1/4: 1 caught up", "shard 3/4: no partition for this shard"],
        )

    def test_a_stream_without_its_topic_is_named_once(self) -> None:
        streams = (stream("a"), stream("b", lag={}, begun=(), trouble="waiting for its topic"))
        assert decision(*streams, parallelism=2)[1] == ["shard 0/2: 1 caught up", "shard 1/2: b waiting for its topic"]


def test_a_summary_of_a_hundred_streams_names_three() -> None:
    streams = [
        *(stream(f"idle_{number}") for number in range(83)),
        stream("busy_1", 1_000, **OWNED),
        stream("busy_2", 204, **OWNED),
        *(stream(f"pressure_{n}", 1, stopped_at=NOW, failure="its table is gone") for n in range(2)),
        *(stream(f"paused_{n}", paused="a test (ann)") for n in range(13)),
    ]
    view = View(NOW, 1, NEW, streams, connected=(), recorded_owners=(), active=())
    assert summary(view.shares(WHOLE)) == (
        "83 caught up; 2 draining, lag 1,204; pressure_0 stopped: its table is gone; pressure_1 stopped: its table is"
        " gone; paused_0 paused: a test (ann); and 12 more"
    )
