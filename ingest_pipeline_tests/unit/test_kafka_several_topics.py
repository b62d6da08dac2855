"""A record source of several topics on a scripted client: the error of a topic leaves the others alone."""

import pytest
from confluent_kafka import KafkaError

from ingest_pipeline.core.errors import KafkaUnavailable, NotPermitted
from ingest_pipeline.core.record import NextOffset
from ingest_pipeline_tests.unit.scripted_kafka import TOPIC, Stage, event, record


@pytest.fixture
def stage() -> Stage:
    return Stage(TOPIC, "site")


def test_a_partition_waits_for_its_retry_and_other_topics_do_not(stage: Stage) -> None:
    denied = event(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    seconds, calls = stage.clock.monotonic(), len(stage.client.assigned)
    chunks = stage.read_all([denied, record(5, topic="site")], [record(6, topic="site")])
    assert [len(chunk["site"].messages) for chunk in chunks] == [1, 1]
    assert stage.clock.monotonic() - seconds == pytest.approx(0.2), "only the reads take time"
    while len(stage.client.assigned) == calls:
        stage.read_all([])
    assert stage.client.assigned[-1] == {(TOPIC, 0): 5}
    with pytest.raises(NotPermitted):
        for offset in range(400):
            stage.read([denied, record(offset, topic="site")])


def test_an_answer_about_one_topic_is_enough(stage: Stage) -> None:
    stage.source.assign("site", {0: NextOffset(5, 1)})
    stage.topics.silent = {0}
    stage.read_all(stage.client.complain(KafkaError._TRANSPORT))
    stage.clock.advance(31.0)
    assert stage.read_all([]) == [{}]
    assert stage.topics.questions == 1
    stage.topics.silent = {0, 1}
    stage.read_all(stage.client.complain(KafkaError._TRANSPORT))
    stage.clock.advance(31.0)
    with pytest.raises(KafkaUnavailable, match="no leader of a partition of 2 topics answers"):
        stage.read_all([])


def test_metadata_is_requested_for_every_topic_before_the_first_read(stage: Stage) -> None:
    assert stage.client.asked == []
    stage.read_all([], [])
    assert sorted(stage.client.asked) == [TOPIC, "site"]


def test_epochs_of_a_known_topic_are_checked_by_a_seek(stage: Stage) -> None:
    stage.read_all([])
    assert stage.client.sought == []
    stage.client.early = 3
    stage.source.assign(TOPIC, {0: NextOffset(9, 2), 1: NextOffset(4)})
    assert stage.client.sought == [((TOPIC, 0), 9)]
