"""Polls of an idle topic between two sensor ticks, and starts of many runs at once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import dagster as dg
import pytest
from dagster._core.instance.ref import InstanceRef

from ingest_pipeline.core.errors import KafkaUnavailable
from ingest_pipeline.orchestration.sensor import idle_poll
from ingest_pipeline.orchestration.sensor.idle_poll import MAX_POLLING_SENSORS, IdlePoll
from ingest_pipeline.orchestration.sensor.start_queue import RESERVED_SECONDS, StartQueue, starting_runs
from ingest_pipeline.orchestration.tags import Shard
from ingest_pipeline.orchestration.view import START_GRACE_SECONDS, STARTING_SECONDS, Launch, Patience, View
from ingest_pipeline.testing import MemoryBroker, MemoryTopic, SettableClock
from ingest_pipeline_tests.unit.test_decide import NEW, NOW, OTHER, RUN, by_hand, run

THREADS = {"use_threads": True, "num_workers": 8}


class WatchedClock(SettableClock):
    """Calls `meanwhile` after every sleep and records the times."""

    def __init__(self, meanwhile: Callable[[float], None]) -> None:
        super().__init__()
        self.woke_at: list[float] = []
        self._meanwhile = meanwhile

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.woke_at.append(self.monotonic())
        self._meanwhile(self.monotonic())


@pytest.fixture
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., InstanceRef]]:
    """References of Dagster instances with these `sensors` settings."""

    def make(**sensors: object) -> InstanceRef:
        folder = str(tmp_path_factory.mktemp("instance"))
        with dg.DagsterInstance.local_temp(folder, overrides={"sensors": sensors} if sensors else {}) as instance:
            return instance.get_ref()

    yield make


def poll(
    instance: InstanceRef | None,
    poll_seconds: float,
    meanwhile: Callable[[MemoryBroker, float], None] = lambda *_: None,
) -> tuple[bool, list[float]]:
    """(whether an end changed, seconds of the polls after the tick's beginning). The tick itself has taken 0.3 s."""
    broker = MemoryBroker({"reading": 2})
    topic = MemoryTopic(broker, "reading")
    ends = topic.end_offsets([0, 1])
    clock = WatchedClock(lambda now: meanwhile(broker, now))
    poller = IdlePoll(instance, poll_seconds, clock)
    clock.advance(0.3)
    return poller.ends_changed(partial(topic.end_offsets, [0, 1]), ends), clock.woke_at


@pytest.mark.parametrize(
    ("poll_seconds", "polls"), [(1, [1, 2, 3, 4]), (2, [2]), (3, []), (4, []), (5, []), (60, []), (300, [])]
)
def test_polls_every_poll_seconds_until_shortly_before_the_next_tick(
    reference: Callable[..., InstanceRef], poll_seconds: int, polls: list[float]
) -> None:
    assert poll(reference(**THREADS), poll_seconds) == (False, polls)


def test_a_new_record_ends_the_polling_at_the_next_poll(reference: Callable[..., InstanceRef]) -> None:
    def record_at_2(broker: MemoryBroker, now: float) -> None:
        if now == 2:
            broker.append("reading", 1, b"{}")

    assert poll(reference(**THREADS), 1, record_at_2) == (True, [1, 2])


def test_polls_missed_behind_a_slow_broker_are_skipped(reference: Callable[..., InstanceRef]) -> None:
    broker = MemoryBroker({"reading": 1})
    topic = MemoryTopic(broker, "reading")
    ends = topic.end_offsets([0])
    clock = WatchedClock(lambda now: clock.advance(1.5) if now == 1 else None)
    assert not IdlePoll(reference(**THREADS), 1, clock).ends_changed(partial(topic.end_offsets, [0]), ends)
    assert clock.woke_at == [1, 3, 4]


def test_a_topic_that_shrinks_is_a_change(reference: Callable[..., InstanceRef]) -> None:
    broker = MemoryBroker({"reading": 1})
    broker.append("reading", 0, b"{}")
    topic = MemoryTopic(broker, "reading")
    ends = topic.end_offsets([0])
    clock = WatchedClock(lambda _: broker.recreate_topic("reading"))
    assert IdlePoll(reference(**THREADS), 1, clock).ends_changed(partial(topic.end_offsets, [0]), ends)


@pytest.mark.parametrize(
    "sensors",
    [{}, {"use_threads": False, "num_workers": 8}, {"use_threads": True, "num_workers": 2 * MAX_POLLING_SENSORS - 1}],
)
def test_no_poll_where_other_sensors_would_wait(
    reference: Callable[..., InstanceRef], sensors: dict[str, object]
) -> None:
    assert poll(reference(**sensors), 1) == (False, [])


def test_no_poll_without_an_instance() -> None:
    assert poll(None, 1) == (False, [])


def test_the_default_number_of_workers_suffices(reference: Callable[..., InstanceRef]) -> None:
    assert poll(reference(use_threads=True), 1) == (False, [1, 2, 3, 4])


def test_only_three_sensors_poll_at_the_same_time(reference: Callable[..., InstanceRef]) -> None:
    instance = reference(**THREADS)

    @contextmanager
    def others(number: int) -> Iterator[None]:
        for _ in range(number):
            assert idle_poll._polling_sensors.acquire(blocking=False)
        yield
        for _ in range(number):
            idle_poll._polling_sensors.release()

    with others(MAX_POLLING_SENSORS):
        assert poll(instance, 1) == (False, [])
    with others(MAX_POLLING_SENSORS - 1):
        assert poll(instance, 1) == (False, [1, 2, 3, 4])


def test_a_failed_poll_makes_room_for_the_next(reference: Callable[..., InstanceRef]) -> None:
    instance = reference(**THREADS)
    for _ in range(MAX_POLLING_SENSORS + 1):
        with pytest.raises(KafkaUnavailable):
            poll(instance, 1, lambda broker, _: broker.set_unavailable(True))


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
