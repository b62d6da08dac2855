"""Polls of an idle topic between two sensor ticks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import dagster as dg
import pytest
from dagster._core.instance.ref import InstanceRef

from ingest_pipeline.core.errors import KafkaUnavailable
from ingest_pipeline.orchestration.sensor import idle_poll
from ingest_pipeline.orchestration.sensor.idle_poll import MAX_POLLING_SENSORS, IdlePoll
from ingest_pipeline.testing import MemoryBroker, MemoryTopic, SettableClock

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
