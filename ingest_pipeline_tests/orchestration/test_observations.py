"""What is observed of a topic, and how rarely: Dagster keeps such events for ever."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dagster as dg

from ingest_pipeline.orchestration.decide import View
from ingest_pipeline.orchestration.observations import OBSERVE_SECONDS, observe
from ingest_pipeline.testing import MemoryBroker, MemoryTopic
from ingest_pipeline_tests.orchestration.bench import Bench
from ingest_pipeline_tests.orchestration.records import temperatures

KEY = dg.AssetKey(["kafka", "price"])
NOW = 1_000_000.0


class World:
    """A topic of two partitions of which the ledger has read some."""

    def __init__(self) -> None:
        self.broker = MemoryBroker({"price": 2})
        self.topic = MemoryTopic(self.broker, "price")
        self.positions = {0: 0, 1: 0}

    def append(self, partition: int, count: int) -> None:
        for _ in range(count):
            self.broker.append("price", partition, b"{}")

    def view(self, now: float) -> View:
        ends = {p: place.next_offset for p, place in self.topic.end_offsets([0, 1]).items()}
        lag = {p: ends[p] - self.positions.get(p, 0) for p in ends}
        return View(
            now=now,
            parallelism=1,
            definition="",
            lag=lag,
            begun=set(self.positions),
            owners={},
            present=(),
            active=(),
            positions=self.positions,
            ends=ends,
        )

    def observe(self, before: Any, now: float) -> tuple[dict[str, Any] | None, Any]:
        """(metadata of what is reported, what is remembered)."""
        events, observed = observe(KEY, self.topic, self.view(now), before)
        return ({name: value.value for name, value in events[0].metadata.items()} if events else None), observed


def test_lag_headroom_and_what_a_transaction_holds_back() -> None:
    world = World()
    world.append(0, 10)
    world.append(1, 7)
    world.broker.delete_records("price", 0, 4)
    world.broker.begin_transaction("price", 1)
    world.append(1, 3)
    world.positions = {0: 9, 1: 7}
    found, _ = world.observe([], NOW)
    assert found is not None
    table = found.pop("offsets")
    assert found == {"lag": 1, "headroom": 5, "blocked_by_transaction": 3}
    assert [record.data for record in table.records] == [
        {"partition": 0, "position": 9, "end": 10, "lag": 1, "headroom": 5, "blocked": 0},
        {"partition": 1, "position": 7, "end": 7, "lag": 0, "headroom": 7, "blocked": 3},
    ]


def test_a_stream_that_has_not_begun_has_no_headroom() -> None:
    world = World()
    world.append(0, 2)
    world.positions = {}
    found, _ = world.observe([], NOW)
    assert found is not None
    assert found.keys() == {"lag", "blocked_by_transaction", "offsets"}
    assert found["offsets"].records[0].data == {"partition": 0, "end": 2, "lag": 2, "blocked": 0}


def test_one_in_five_minutes_and_none_without_a_change() -> None:
    world = World()
    first, observed = world.observe([], NOW)
    assert first is not None
    world.append(0, 5)
    soon, observed = world.observe(observed, NOW + OBSERVE_SECONDS - 1)
    assert soon is None
    later, observed = world.observe(observed, NOW + OBSERVE_SECONDS)
    assert later is not None
    assert later["lag"] == 5
    unchanged, observed = world.observe(observed, NOW + 2 * OBSERVE_SECONDS)
    assert unchanged is None
    world.broker.begin_transaction("price", 0)
    world.append(0, 1)
    blocked, _ = world.observe(observed, NOW + 3 * OBSERVE_SECONDS)
    assert blocked is not None
    assert (blocked["lag"], blocked["blocked_by_transaction"]) == (5, 1)


def test_kafka_is_asked_only_when_a_look_is_due() -> None:
    world = World()
    view = replace(world.view(NOW + 1), lag={})
    world.broker.set_unavailable(True)
    before = [NOW, 0, 0, 0]
    assert observe(KEY, world.topic, view, before) == ([], before)


def test_the_sensor_reports_it_and_remembers(bench: Callable[..., Bench]) -> None:
    here = bench()
    here.produce(temperatures(3))
    (event,) = here.tick().asset_events
    assert event.asset_key == dg.AssetKey(["kafka", here.stream.topic.replace("-", "_")])
    assert event.metadata["lag"].value == 3
    assert here.tick().asset_events == []
