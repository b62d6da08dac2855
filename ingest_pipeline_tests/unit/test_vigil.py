"""An idle stream's looks between two ticks of Dagster's: how many, for whom, and what they see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg
import pytest
from dagster._core.instance.ref import InstanceRef

from ingest_pipeline.core.errors import KafkaUnavailable
from ingest_pipeline.orchestration.sensor import idle_poll
from ingest_pipeline.orchestration.sensor.idle_poll import SEATS, IdlePoll
from ingest_pipeline.testing import MemoryBroker, MemoryTopic, SettableClock

THREADS = {"use_threads": True, "num_workers": 8}


class WatchedClock(SettableClock):
    """Something may happen while it sleeps; when it woke is kept."""

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
    """A Dagster instance's, with these settings of its sensors."""

    def make(**sensors: object) -> InstanceRef:
        folder = str(tmp_path_factory.mktemp("instance"))
        with dg.DagsterInstance.local_temp(folder, overrides={"sensors": sensors} if sensors else {}) as instance:
            return instance.get_ref()

    yield make


def keep(
    instance: InstanceRef | None,
    poll_seconds: float,
    meanwhile: Callable[[MemoryBroker, float], None] = lambda *_: None,
) -> tuple[bool, list[float]]:
    """(whether there was news, when it looked: seconds after the tick began), of a tick whose own look took 0.3 s."""
    broker = MemoryBroker({"reading": 2})
    topic = MemoryTopic(broker, "reading")
    ends = topic.end_offsets([0, 1])
    clock = WatchedClock(lambda now: meanwhile(broker, now))
    kept = IdlePoll(instance, poll_seconds, clock)
    clock.advance(0.3)
    return kept.sees_news(topic, ends), clock.woke_at


@pytest.mark.parametrize(
    ("poll_seconds", "looks"), [(1, [1, 2, 3, 4]), (2, [2]), (3, []), (4, []), (5, []), (60, []), (300, [])]
)
def test_it_looks_every_poll_seconds_until_the_next_tick_is_as_near(
    reference: Callable[..., InstanceRef], poll_seconds: int, looks: list[float]
) -> None:
    assert keep(reference(**THREADS), poll_seconds) == (False, looks)


def test_a_record_that_comes_ends_it_at_the_next_look(reference: Callable[..., InstanceRef]) -> None:
    def record_at_2(broker: MemoryBroker, now: float) -> None:
        if now == 2:
            broker.append("reading", 1, b"{}")

    assert keep(reference(**THREADS), 1, record_at_2) == (True, [1, 2])


def test_looks_that_a_slow_broker_made_it_miss_are_not_made_up_for(reference: Callable[..., InstanceRef]) -> None:
    broker = MemoryBroker({"reading": 1})
    topic = MemoryTopic(broker, "reading")
    ends = topic.end_offsets([0])
    clock = WatchedClock(lambda now: clock.advance(1.5) if now == 1 else None)
    assert not IdlePoll(reference(**THREADS), 1, clock).sees_news(topic, ends)
    assert clock.woke_at == [1, 3, 4]


def test_a_topic_that_shrinks_is_news(reference: Callable[..., InstanceRef]) -> None:
    broker = MemoryBroker({"reading": 1})
    broker.append("reading", 0, b"{}")
    topic = MemoryTopic(broker, "reading")
    ends = topic.end_offsets([0])
    clock = WatchedClock(lambda _: broker.recreate_topic("reading"))
    assert IdlePoll(reference(**THREADS), 1, clock).sees_news(topic, ends)


@pytest.mark.parametrize(
    "sensors", [{}, {"use_threads": False, "num_workers": 8}, {"use_threads": True, "num_workers": 2 * SEATS - 1}]
)
def test_not_where_other_sensors_would_wait_for_it(
    reference: Callable[..., InstanceRef], sensors: dict[str, object]
) -> None:
    assert keep(reference(**sensors), 1) == (False, [])


def test_nor_where_no_instance_is_known() -> None:
    assert keep(None, 1) == (False, [])


def test_workers_not_numbered_are_enough(reference: Callable[..., InstanceRef]) -> None:
    assert keep(reference(use_threads=True), 1) == (False, [1, 2, 3, 4])


def test_only_so_many_keep_it_at_a_time(reference: Callable[..., InstanceRef]) -> None:
    instance = reference(**THREADS)

    @contextmanager
    def others(number: int) -> Iterator[None]:
        for _ in range(number):
            assert idle_poll._seats.acquire(blocking=False)
        yield
        for _ in range(number):
            idle_poll._seats.release()

    with others(SEATS):
        assert keep(instance, 1) == (False, [])
    with others(SEATS - 1):
        assert keep(instance, 1) == (False, [1, 2, 3, 4])


def test_a_seat_is_given_back_whatever_happens(reference: Callable[..., InstanceRef]) -> None:
    instance = reference(**THREADS)
    for _ in range(SEATS + 1):
        with pytest.raises(KafkaUnavailable):
            keep(instance, 1, lambda broker, _: broker.set_unavailable(True))
