"""Ends of partitions on a scripted client."""

from collections.abc import Iterable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from ingest_pipeline.core.record import NextOffset
from ingest_pipeline.kafka.partition_ends import Partition
from ingest_pipeline_tests.unit.scripted_kafka import TOPIC, Stage, end, record


@pytest.fixture
def stage() -> Stage:
    return Stage(TOPIC)


class TestEnds:
    def test_an_end_after_the_last_record_has_the_records_epoch(self, stage: Stage) -> None:
        (chunk,) = stage.read([record(5, epoch=3), end(6)])
        assert chunk.ends == {0: NextOffset(6, 3)}
        assert stage.topics.questions == 0

    def test_an_end_at_the_assigned_offset_has_the_assigned_epoch(self, stage: Stage) -> None:
        (chunk,) = stage.read([end(5)])
        assert chunk.ends == {0: NextOffset(5, 1)}
        assert stage.topics.questions == 0

    def test_an_end_beyond_the_last_record_has_the_brokers_epoch(self, stage: Stage) -> None:
        stage.topics.ends = {0: NextOffset(12, 7)}
        first, second = stage.read([record(5, epoch=3), end(9)], [])
        assert (len(first.messages), first.ends) == (1, {})
        assert second.ends == {0: NextOffset(9, 7)}

    def test_a_read_is_short_while_an_answer_is_expected(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        answers = {(TOPIC, 0): Future[Any](), (TOPIC, 1): Future[Any]()}
        monkeypatch.setattr(stage.topics, "ask_ends", lambda keys: {key: answers[key] for key in keys})
        stage.read([end(9), end(9, partition=1)])
        before = stage.clock.monotonic()
        answers[TOPIC, 1].set_result(SimpleNamespace(offset=9, leader_epoch=2))
        first, second = stage.read([], [])
        assert (first.ends, second.ends) == ({1: NextOffset(9, 2)}, {})
        assert stage.clock.monotonic() - before == pytest.approx(0.04)

    def test_an_answer_to_an_earlier_report_does_not_count(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        """The leader may have changed between the reports, and the epoch of the answer would be too old."""
        asked: list[Future[Any]] = []

        def ask(keys: Iterable[Partition]) -> dict[Partition, Future[Any]]:
            asked.append(Future[Any]())
            return dict.fromkeys(keys, asked[-1])

        monkeypatch.setattr(stage.topics, "ask_ends", ask)
        stage.read([end(9)], [end(12)])
        asked[0].set_result(SimpleNamespace(offset=9, leader_epoch=2))
        assert stage.read([])[0].ends == {}
        asked[1].set_result(SimpleNamespace(offset=12, leader_epoch=3))
        assert stage.read([])[0].ends == {0: NextOffset(12, 3)}

    def test_an_end_waits_for_an_absent_broker(self, stage: Stage) -> None:
        stage.topics.away = True
        first, second, third = stage.read([record(5), end(9)], [], [])
        assert [len(first.messages), first.ends, second.ends, third.ends] == [1, {}, {}, {}]
        assert stage.topics.questions == 1
        stage.topics.away, stage.topics.ends = False, {0: NextOffset(9, 2)}
        stage.clock.advance(5.0)
        chunks = stage.read([], [], [])
        assert [chunk.ends for chunk in chunks] == [{}, {0: NextOffset(9, 2)}, {}]

    def test_an_end_waits_for_its_silent_leader_and_the_others_do_not(self, stage: Stage) -> None:
        stage.topics.silent, stage.topics.ends = {0}, {1: NextOffset(7, 3)}
        first, second = stage.read([end(9), end(7, partition=1)], [])
        assert (first.ends, second.ends) == ({}, {1: NextOffset(7, 3)})
        stage.topics.silent, stage.topics.ends = set(), {0: NextOffset(9, 4)}
        stage.clock.advance(5.0)
        third, fourth = stage.read([], [])
        assert (third.ends, fourth.ends) == ({}, {0: NextOffset(9, 4)})

    @pytest.mark.parametrize("offset", [-1001, -1, -2])
    def test_a_negative_number_is_no_end(self, stage: Stage, offset: int) -> None:
        (chunk,) = stage.read([end(offset)])
        assert chunk.ends == {}
        assert stage.topics.questions == 0

    def test_without_a_position_the_assigned_offset_counts(self, stage: Stage) -> None:
        stage.client.positions[TOPIC, 0] = TopicPartition(TOPIC, 0, -1001, "", -1)
        (chunk,) = stage.read([end(5)])
        assert chunk.ends == {0: NextOffset(5, 1)}

    def test_an_end_before_later_records_is_dropped(self, stage: Stage) -> None:
        (chunk,) = stage.read([record(5), end(6), record(6), record(7)])
        assert [message.offset() for message in chunk.messages] == [5, 6, 7]
        assert chunk.ends == {}

    def test_an_assignment_drops_pending_ends(self, stage: Stage) -> None:
        stage.topics.away = True
        stage.read([end(9)])
        stage.topics.away = False
        stage.source.assign(TOPIC, {1: NextOffset(0)})
        (chunk,) = stage.read([])
        assert chunk.ends == {}
