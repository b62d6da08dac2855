"""What the sensor tells of a topic, and how seldom: on the in-memory broker and ledger."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg
import pytest

from ingest_pipeline.core.errors import KafkaUnavailable
from ingest_pipeline.core.record import NextOffset
from ingest_pipeline.orchestration.sensor.topic_observation import (
    OBSERVE_SECONDS,
    TABLE_ROWS,
    LastLook,
    PartitionFigures,
    observe,
    read_figures,
)
from ingest_pipeline.testing import MemoryBroker, MemoryDatabase, MemoryLedger, MemoryTopic
from ingest_pipeline_tests.samples import READING

KEY = dg.AssetKey(["kafka", "reading"])
START = 1_800_000_000.0


class World:
    """A topic with positions at 2 in each of its partitions, of which each holds 5 records."""

    def __init__(self, partitions: int = 2) -> None:
        self.broker = MemoryBroker({"reading": partitions})
        self.topic = MemoryTopic(self.broker, "reading")
        self.ledger = MemoryLedger(MemoryDatabase(), READING)
        for partition in range(partitions):
            self.append(partition, 5)
        self.last = LastLook()

    def begin(self) -> World:
        identity = self.topic.identity()
        self.ledger.begin(identity, {partition: NextOffset(2) for partition in range(identity.partitions)}, first=True)
        return self

    def append(self, partition: int, count: int = 1) -> None:
        for _ in range(count):
            self.broker.append("reading", partition, b"{}")

    def observe(self, seconds: float) -> list[dg.AssetObservation]:
        """So many seconds after the start."""
        observations, self.last = observe(self.topic, self.ledger, KEY, self.last, now=START + seconds)
        return observations


def figures(observations: list[dg.AssetObservation]) -> dict[str, object]:
    (observation,) = observations
    assert observation.asset_key == KEY
    return {name: value.value for name, value in observation.metadata.items() if name != "partitions"}


def test_lag_headroom_and_partitions_are_reported() -> None:
    world = World().begin()
    world.broker.delete_records("reading", 1, 1)
    world.append(1)
    observations = world.observe(0)
    assert figures(observations) == {"lag": 7, "headroom_records": 1, "blocked_records": 0}
    assert observations[0].description == (
        "lag 7; retention may delete 1 records of a partition before it reaches one not stored"
    )
    table = observations[0].metadata["partitions"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [dict(record.data) for record in table.records] == [
        {"partition": 0, "position": 2, "start": 0, "end": 5, "lag": 3, "headroom": 2, "blocked": 0},
        {"partition": 1, "position": 2, "start": 1, "end": 6, "lag": 4, "headroom": 1, "blocked": 0},
    ]


def test_records_behind_an_open_transaction_are_reported_until_it_ends() -> None:
    world = World().begin()
    world.broker.begin_transaction("reading", 0)
    world.append(0, 3)
    observations = world.observe(0)
    assert figures(observations) == {"lag": 6, "headroom_records": 2, "blocked_records": 3}
    assert str(observations[0].description).endswith("; 3 records are held back by an open transaction")
    world.broker.end_transaction("reading", 0, commit=True)
    observations = world.observe(OBSERVE_SECONDS)
    assert figures(observations) == {"lag": 10, "headroom_records": 2, "blocked_records": 0}
    assert "transaction" not in str(observations[0].description)


def test_a_stream_that_has_not_begun_has_no_headroom() -> None:
    world = World()
    world.broker.delete_records("reading", 0, 4)
    assert figures(world.observe(0)) == {"lag": 6, "blocked_records": 0}


def test_there_is_one_in_five_minutes_however_much_changes() -> None:
    world = World().begin()
    seconds = [tick for tick in range(0, 1200, 4) if [world.append(0), world.observe(tick)][1]]
    assert seconds == [0, 300, 600, 900]


def test_an_unchanged_state_is_not_reported_again() -> None:
    world = World().begin()
    assert len(world.observe(0)) == 1
    assert world.observe(OBSERVE_SECONDS) == []
    assert world.observe(2 * OBSERVE_SECONDS) == []
    world.append(0)
    assert world.observe(2 * OBSERVE_SECONDS + 4) == []
    assert figures(world.observe(3 * OBSERVE_SECONDS))["lag"] == 7


def test_no_server_is_asked_before_a_look_is_due() -> None:
    world = World().begin()
    world.observe(0)
    world.broker.set_unavailable(True)
    assert world.observe(OBSERVE_SECONDS - 1) == []
    with pytest.raises(KafkaUnavailable):
        world.observe(OBSERVE_SECONDS)
    world.broker.set_unavailable(False)
    assert world.observe(OBSERVE_SECONDS + 4) == []


def test_a_clock_that_was_set_back_puts_nothing_off() -> None:
    world = World().begin()
    world.observe(3600)
    world.append(0)
    assert len(world.observe(0)) == 1


def test_what_is_written_during_the_look_is_not_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World().begin()
    for question in ("identity", "start_offsets", "end_offsets", "high_watermarks"):
        answer = getattr(world.topic, question)

        def ask(*partitions: object, answer: Callable[..., object] = answer) -> object:
            world.append(0)
            return answer(*partitions)

        monkeypatch.setattr(world.topic, question, ask)
    assert [partition.blocked for partition in read_figures(world.topic, world.ledger)[0]] == [0, 0]


def test_of_many_partitions_those_with_the_most_lag_are_shown() -> None:
    world = World(TABLE_ROWS + 50).begin()
    for partition in range(20, 20 + TABLE_ROWS):
        world.append(partition)
    observations = world.observe(0)
    table = observations[0].metadata["partitions"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [record.data["partition"] for record in table.records] == list(range(20, 20 + TABLE_ROWS))
    assert figures(observations)["lag"] == 3 * (TABLE_ROWS + 50) + TABLE_ROWS


def test_the_keys_and_columns_are_for_ever() -> None:
    """A renamed key begins a new plot and ends the old one."""
    world = World().begin()
    assert set(figures(world.observe(0))) == {"lag", "headroom_records", "blocked_records"}
    columns = ("partition", "position", "start", "end", "lag", "headroom", "blocked")
    assert PartitionFigures.__slots__ == columns
