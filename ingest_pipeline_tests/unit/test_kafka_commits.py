"""Commits of groups on a scripted client."""

import logging

import pytest
from confluent_kafka import KafkaError, TopicPartition

from ingest_pipeline.core.record import NextOffset
from ingest_pipeline_tests.unit.scripted_kafka import TOPIC, Stage, record


@pytest.fixture
def stage() -> Stage:
    return Stage(TOPIC)


class TestCommits:
    def test_at_most_one_commit_a_second_with_the_newest_offsets(self, stage: Stage) -> None:
        stage.source.acknowledge(TOPIC, {0: NextOffset(6, 1)})
        stage.client.answer()
        for offset in range(7, 20):
            stage.source.acknowledge(TOPIC, {0: NextOffset(offset, 1)})
        assert [commit[0].offset for commit in stage.client.commits] == [6]
        stage.clock.advance(1.0)
        stage.read([])
        assert [commit[0].offset for commit in stage.client.commits] == [6, 19]
        assert stage.client.commits[-1][0].metadata == "ingest-ledger:ledger"

    def test_commits_do_not_overlap(self, stage: Stage) -> None:
        stage.source.acknowledge(TOPIC, {0: NextOffset(6)})
        stage.clock.advance(5.0)
        stage.source.acknowledge(TOPIC, {0: NextOffset(7)})
        assert len(stage.client.commits) == 1
        stage.client.answer(KafkaError._WAIT_COORD)
        stage.source.acknowledge(TOPIC, {1: NextOffset(3)})
        assert [(commit.partition, commit.offset) for commit in stage.client.commits[1]] == [(0, 7), (1, 3)]

    def test_a_refused_commit_has_no_consequence(self, stage: Stage) -> None:
        stage.client.refusal = KafkaError._STATE
        stage.source.acknowledge(TOPIC, {0: NextOffset(6)})
        (chunk,) = stage.read([record(5)])
        assert len(chunk.messages) == 1

    def test_the_group_is_asked_once_before_the_first_commit(self, stage: Stage) -> None:
        stage.committed_before = [
            TopicPartition(TOPIC, 0, 70, metadata="ingest-ledger:ledger"),
            TopicPartition(TOPIC, 1, 80, metadata="ingest-ledger:another"),
        ]
        assert stage.source.earlier_commits(TOPIC) == {}
        for offset in (6, 7):
            stage.source.acknowledge(TOPIC, {0: NextOffset(offset)})
            stage.client.answer()
            stage.clock.advance(1.0)
        assert stage.source.earlier_commits(TOPIC) == {0: 70}
        assert [commit[0].offset for commit in stage.client.commits] == [6, 7]
        assert len(stage.consumers) == 2

    def test_a_question_without_an_answer_delays_no_later_commit(self, stage: Stage) -> None:
        stage.refusal = KafkaError._WAIT_COORD
        stage.source.acknowledge(TOPIC, {0: NextOffset(6)})
        assert stage.source.earlier_commits(TOPIC) == {}
        assert [commit[0].offset for commit in stage.client.commits] == [6]


class TestCommitsOfSeveralGroups:
    """Each request has a consumer of its own."""

    def test_requests_are_spread(self) -> None:
        stage = Stage(*(f"t{number}" for number in range(20)))
        for _ in range(30):
            for number in range(20):
                stage.source.acknowledge(f"t{number}", {0: NextOffset(6)})
            stage.read_all([])
        assert len(stage.committing) == pytest.approx(30 * 0.1 / 0.25, abs=2)
        groups = [consumer.config["group.id"] for consumer in stage.committing]
        assert len(set(groups)) == len(groups), "the topic that waits longest is next"

    def test_a_group_has_at_most_one_request_a_second(self) -> None:
        stage = Stage(TOPIC, "site")
        for offset in range(30):
            stage.source.acknowledge(TOPIC, {0: NextOffset(offset)})
            stage.read_all([])
        assert [consumer.config["group.id"] for consumer in stage.committing] == [f"group-{TOPIC}"] * 3
        assert all(consumer.closed for consumer in stage.consumers[1:])

    def test_a_failure_is_logged_once_for_each_group(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        stage = Stage(TOPIC, "site")
        stage.refusal = KafkaError._WAIT_COORD
        with caplog.at_level(logging.WARNING):
            for _ in range(50):
                for topic in (TOPIC, "site"):
                    stage.source.acknowledge(topic, {0: NextOffset(6)})
                stage.read_all([])
        assert len(stage.consumers) > 4
        assert sorted("group-site" in line for line in caplog.messages) == [False, True]
