"""Since when records wait, by the sensor's watch and the ledger's clock, and what status makes of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ingest_pipeline.core.ledger import StreamState
from ingest_pipeline.core.record import NextOffset, StoredPosition
from ingest_pipeline.operations.lateness import UNATTENDED_SECONDS, ask_kafka, delays, late, silence, unattended
from ingest_pipeline.operations.partition_status import PartitionStatus
from ingest_pipeline.operations.waiting import Waiting, WaitWatch, waiting_of
from ingest_pipeline.testing import SettableClock
from ingest_pipeline_tests.samples import READING, stored_position

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
EPOCH = NOW.timestamp()
ALLOWED = 300
HOUR = timedelta(hours=1)


def position(next_offset: int = 10, partition: int = 0, incarnation: int = 1, moved: datetime = NOW) -> StoredPosition:
    return stored_position(
        partition=partition,
        incarnation=incarnation,
        topic="t",
        next_offset=next_offset,
        rows=next_offset,
        updated_at=moved,
    )


class Sensor:
    """A watch that looks every 5 s, and the ledger that it writes to. `writes`: how often it wrote."""

    def __init__(self, allowed: float = ALLOWED) -> None:
        self.clock = SettableClock()
        self.watch = WaitWatch(allowed, self.clock)
        self.state = StreamState(ticked_at=NOW, now=NOW)
        self.writes = 0

    def look(
        self, positions: dict[int, StoredPosition], lag: dict[int, int], seconds: float = 5.0
    ) -> dict[int, Waiting]:
        self.clock.advance(seconds)
        now = self.state.now + timedelta(seconds=seconds) if self.state.now else NOW
        self.state = replace(self.state, now=now, ticked_at=now)
        noted = self.watch.look(positions, lag, self.state)
        if noted is not None:
            self.writes += 1
            self.state = replace(self.state, waiting={str(p): list(waits) for p, waits in noted.items()})
        return waiting_of(self.state)


class TestWatch:
    def test_a_partition_that_waits_is_written_once_with_the_time_since_it_was_seen(self) -> None:
        sensor = Sensor()
        for _ in range(20):
            waiting = sensor.look({0: position()}, {0: 7})
        assert waiting == {0: Waiting(1, 10, EPOCH + 5)}
        assert sensor.writes == 1

    def test_one_that_moves_or_wakes_up_for_a_moment_is_not_written(self) -> None:
        sensor = Sensor()
        for number in range(50):
            sensor.look({0: position(number)}, {0: 1_000_000})
            sensor.look({0: position(number), 1: position()}, {0: 0, 1: number % 2})
        assert sensor.writes == 0

    def test_a_stuck_one_among_moving_ones(self) -> None:
        sensor = Sensor()
        for number in range(20):
            waiting = sensor.look({0: position(number), 1: position(3, 1)}, {0: 99, 1: 4})
        assert waiting.keys() == {1}

    def test_it_ends_with_a_move_or_without_lag(self) -> None:
        for after, lag in ((position(11), 6), (position(10), 0), (position(10, incarnation=2), 7)):
            sensor = Sensor()
            for _ in range(5):
                sensor.look({0: position()}, {0: 7})
            assert sensor.look({0: after}, {0: lag}) == {}

    def test_a_new_sensor_process_goes_on_with_what_the_ledger_says(self) -> None:
        sensor = Sensor()
        for _ in range(5):
            sensor.look({0: position()}, {0: 7})
        sensor.watch = WaitWatch(ALLOWED, sensor.clock)
        assert sensor.look({0: position()}, {0: 8}) == {0: Waiting(1, 10, EPOCH + 5)}
        assert sensor.writes == 1

    def test_a_partition_that_cannot_be_asked_for_keeps_what_is_known(self) -> None:
        sensor = Sensor()
        for _ in range(5):
            sensor.look({0: position()}, {0: 7})
        assert sensor.look({0: position()}, {}) == {0: Waiting(1, 10, EPOCH + 5)}

    def test_a_partition_that_has_not_begun_waits_too(self) -> None:
        sensor = Sensor()
        for _ in range(5):
            waiting = sensor.look({0: position()}, {0: 0, 1: 3})
        assert waiting == {1: Waiting(0, 0, EPOCH + 5)}

    def test_a_short_allowance_is_noted_in_time(self) -> None:
        sensor = Sensor(allowed=1)
        sensor.look({0: position()}, {0: 7}, seconds=0.25)
        assert sensor.look({0: position()}, {0: 7}, seconds=0.75).keys() == {0}

    def test_a_database_clock_that_was_set_back_begins_again(self) -> None:
        sensor = Sensor()
        for _ in range(5):
            sensor.look({0: position()}, {0: 7})
        sensor.state = replace(sensor.state, now=NOW - timedelta(days=1))
        waiting = sensor.look({0: position()}, {0: 7})
        assert waiting[0].since == (NOW - timedelta(days=1)).timestamp() + 5


class Clocks:
    """A topic whose records all have one time. `asked`: how often it was asked for times."""

    def __init__(self, time: datetime, ends: dict[int, int]) -> None:
        self._time, self._ends = time, ends
        self.asked = 0

    def offsets_at(self, partitions: list[int], milliseconds: int) -> dict[int, NextOffset]:
        self.asked += 1
        young = self._time.timestamp() * 1000 >= milliseconds
        return {p: NextOffset(0 if young else self._ends[p]) for p in partitions}


def partitions(state: StreamState, positions: dict[int, StoredPosition], ends: dict[int, int]) -> list[PartitionStatus]:
    lag: dict[int, int | None] = {
        p: end - (positions[p].next_offset if p in positions else 0) for p, end in ends.items()
    }
    waited = delays(positions, lag, state, 1)
    return [
        PartitionStatus(
            p, positions[p].next_offset if p in positions else None, end, lag[p], delay=waited[p],
            committed_at=positions[p].updated_at if p in positions else None,
        )
        for p, end in ends.items()
    ]  # fmt: skip


def judged(state: StreamState, topic: Any, positions: dict[int, StoredPosition], ends: dict[int, int]) -> list[str]:
    statuses = partitions(state, positions, ends)
    old = ask_kafka(topic, statuses, (ALLOWED, UNATTENDED_SECONDS), state)
    return [*late(statuses, old[ALLOWED], ALLOWED, state), *unattended(READING, statuses, old[UNATTENDED_SECONDS])]


TIMES = {"two hours ahead": NOW + 2 * HOUR, "of 2020": datetime(2020, 1, 1, tzinfo=UTC), "of now": NOW}


class TestWithASensor:
    """Kafka is not asked for any time."""

    @pytest.mark.parametrize("time", TIMES.values(), ids=TIMES)
    def test_a_stalled_partition_is_late_by_the_ledgers_clock(self, time: datetime) -> None:
        topic = Clocks(time, {0: 110})
        state = StreamState(ticked_at=NOW, now=NOW, waiting={"0": [1, 10, EPOCH - 400]})
        messages = judged(state, topic, {0: position(moved=NOW - HOUR)}, {0: 110})
        assert messages[0] == "the table is 400 s behind, 300 s are allowed"
        assert messages[1].startswith("no run drains, and 100 records wait")
        assert topic.asked == 0

    @pytest.mark.parametrize("time", TIMES.values(), ids=TIMES)
    def test_a_stream_just_woken_up_is_not_late(self, time: datetime) -> None:
        topic = Clocks(time, {0: 110})
        state = StreamState(ticked_at=NOW, now=NOW, waiting={"0": [1, 9, EPOCH - 4000]})
        assert judged(state, topic, {0: position(moved=NOW - 24 * HOUR)}, {0: 110}) == []
        assert topic.asked == 0

    def test_without_lag_nothing_is_late(self) -> None:
        state = StreamState(ticked_at=NOW, now=NOW, waiting={"0": [1, 10, EPOCH - 400]})
        assert judged(state, Clocks(NOW, {0: 10}), {0: position()}, {0: 10}) == []


class TestWithoutASensor:
    """The times in Kafka are all there is, and the ledger's own age bounds what they say."""

    @pytest.mark.parametrize("ticked_at", [None, NOW - HOUR], ids=["never", "an hour ago"])
    @pytest.mark.parametrize("time", ["two hours ahead", "of 2020"])
    def test_a_stalled_partition_is_late(self, ticked_at: datetime | None, time: str) -> None:
        state = StreamState(ticked_at=ticked_at, now=NOW)
        positions = {0: position(moved=NOW - timedelta(seconds=500))}
        messages = judged(state, Clocks(TIMES[time], {0: 110}), positions, {0: 110})
        assert messages[0] == "the table is 500 s behind, 300 s are allowed"
        assert messages[1].startswith("no run drains, and 100 records wait")

    @pytest.mark.parametrize("time", TIMES.values(), ids=TIMES)
    def test_what_has_just_moved_is_not(self, time: datetime) -> None:
        positions = {0: position(moved=NOW - timedelta(seconds=50))}
        assert judged(StreamState(now=NOW), Clocks(time, {0: 110}), positions, {0: 110}) == []

    def test_what_woke_up_just_now_by_honest_clocks_is_not(self) -> None:
        positions = {0: position(moved=NOW - 24 * HOUR)}
        assert judged(StreamState(now=NOW), Clocks(TIMES["of now"], {0: 110}), positions, {0: 110}) == []

    @pytest.mark.parametrize("time", ["two hours ahead", "of 2020"])
    def test_a_stream_that_never_began(self, time: str) -> None:
        messages = judged(StreamState(now=NOW), Clocks(TIMES[time], {0: 100}), {}, {0: 100})
        assert messages[0].startswith("100 records wait, some for more than the 300 s that are allowed, and no row is")
        assert messages[1].startswith("no run drains, and 100 records wait")

    def test_the_sensors_silence_is_judged_by_the_ledgers_clock(self) -> None:
        state = StreamState(ticked_at=NOW - HOUR, now=NOW)
        assert silence(READING, state, 1)[0].startswith("reading_sensor has not looked for 1:00:00")
        assert silence(READING, replace(state, ticked_at=NOW - timedelta(seconds=100)), 1) == []
        assert silence(READING, StreamState(now=NOW), 1) == []
