"""The record source on a scripted client."""

import logging

import pytest
from confluent_kafka import KafkaError

from ingest_pipeline.core.errors import DataLoss, KafkaUnavailable, NotPermitted, TopicMissing, UnknownFault
from ingest_pipeline.core.record import Chunk, NextOffset
from ingest_pipeline_tests.unit.scripted_kafka import TOPIC, Stage, end, event, record


@pytest.fixture
def stage() -> Stage:
    return Stage(TOPIC)


class TestEvents:
    def test_an_error_comes_behind_the_records_and_stops_the_topic(self, stage: Stage) -> None:
        stage.topics.starts, stage.topics.ends = {0: NextOffset(20)}, {0: NextOffset(30)}
        (chunks,) = stage.read_all([record(0, partition=1), event(KafkaError._AUTO_OFFSET_RESET)])
        assert [message.partition() for message in chunks[TOPIC].messages] == [1]
        loss = chunks[TOPIC].error
        assert isinstance(loss, DataLoss)
        assert loss.where["cause"] == "retention"
        assert (loss.partition, loss.offset) == (0, 5)
        assert stage.client.unassigned == [[(TOPIC, 0), (TOPIC, 1)]]
        assert stage.read_all([event(KafkaError._AUTO_OFFSET_RESET)]) == [{}]

    def test_a_loss_is_returned_once_the_brokers_tell_its_bounds(self, stage: Stage) -> None:
        stage.topics.away = True
        assert stage.read([event(KafkaError._AUTO_OFFSET_RESET)]) == [Chunk()]
        stage.topics.away, stage.topics.ends = False, {0: NextOffset(3)}
        stage.read_until_retried()
        with pytest.raises(DataLoss) as lost:
            stage.read([event(KafkaError._AUTO_OFFSET_RESET)])
        assert lost.value.where["cause"] == "truncated"

    def test_an_offset_below_the_high_watermark_is_not_truncated(self, stage: Stage) -> None:
        """An open transaction holds back the end for a read_committed reader. The log ends later."""
        stage.topics.ends, stage.topics.highs = {0: NextOffset(3)}, {0: NextOffset(9)}
        with pytest.raises(DataLoss) as lost:
            stage.read([event(KafkaError._AUTO_OFFSET_RESET)])
        assert (lost.value.where["cause"], lost.value.where["high"]) == ("rewritten", 9)

    def test_a_loss_with_a_silent_leader_is_retried_and_then_names_the_partition(self, stage: Stage) -> None:
        stage.topics.silent = {0}
        chunks = stage.read([event(KafkaError._AUTO_OFFSET_RESET)], [record(0, partition=1)])
        assert [len(chunk.messages) for chunk in chunks] == [0, 1]
        with pytest.raises(KafkaUnavailable, match="partition 0: its leader does not answer"):
            stage.read(*[[event(KafkaError._AUTO_OFFSET_RESET)]] * 400)

    def test_a_partition_that_a_broker_does_not_know_yet_is_retried(self, stage: Stage) -> None:
        chunks = stage.read([event(KafkaError._UNKNOWN_PARTITION, partition=1)], [record(0, partition=1)])
        assert [len(chunk.messages) for chunk in chunks] == [0, 1]

    def test_a_partition_that_the_topic_lacks_stops_the_stream(self, stage: Stage) -> None:
        stage.topics.partitions = 1
        with pytest.raises(TopicMissing):
            stage.read([event(KafkaError._UNKNOWN_PARTITION, partition=1)])

    def test_an_unknown_error_stops_the_stream_by_its_name(self, stage: Stage) -> None:
        with pytest.raises(UnknownFault, match="_PARTIAL"):
            stage.read([event(KafkaError._PARTIAL)])

    def test_the_source_waits_for_a_moving_leader(self, stage: Stage) -> None:
        chunks = stage.read([event(KafkaError.LEADER_NOT_AVAILABLE)], [], [record(5)])
        assert [len(chunk.messages) for chunk in chunks] == [0, 0, 1]

    @pytest.mark.parametrize("code", [KafkaError._AUTHENTICATION, KafkaError._FATAL, KafkaError._PARTIAL])
    def test_a_permanent_error_is_raised(self, stage: Stage, code: int) -> None:
        with pytest.raises((NotPermitted, UnknownFault), match=KafkaError(code).name()):
            stage.read(stage.client.complain(code), [])

    def test_a_missing_right_on_the_group_stops_only_commits(
        self, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        denied = event(KafkaError.GROUP_AUTHORIZATION_FAILED, topic=None)
        with caplog.at_level(logging.WARNING):
            chunks = stage.read([denied], [denied], [record(5)])
        assert [len(chunk.messages) for chunk in chunks] == [0, 0, 1]
        assert len([line for line in caplog.messages if "GROUP_AUTHORIZATION_FAILED" in line]) == 1
        stage.source.acknowledge(TOPIC, {0: NextOffset(6)})
        assert stage.client.commits == []


class TestRevokedRight:
    """The client stops reading until the partitions are assigned again."""

    DENIED = event(KafkaError.TOPIC_AUTHORIZATION_FAILED)

    def test_a_right_that_is_granted_again_costs_nothing(self, stage: Stage) -> None:
        (chunk,) = stage.read([record(5), self.DENIED])
        assert [message.offset() for message in chunk.messages] == [5]
        stage.read_until_retried()
        assert stage.client.assigned[-1] == {(TOPIC, 0): 6}
        stage.read([self.DENIED])
        stage.read_until_retried()
        assert stage.client.assigned[-1] == {(TOPIC, 0): 6}
        chunks = stage.read([record(6)], [end(7)])
        assert [[message.offset() for message in chunk.messages] for chunk in chunks] == [[6], []]
        assert chunks[-1].ends == {0: NextOffset(7, 1)}
        assert stage.client.unassigned == [[(TOPIC, 0)], [(TOPIC, 0)]]

    def test_a_right_that_stays_revoked_is_raised_after_the_retries(self, stage: Stage) -> None:
        with pytest.raises(NotPermitted, match="Grant Read") as denied:
            stage.read(*[[self.DENIED]] * 400)
        assert stage.clock.monotonic() >= 20
        assert len(stage.client.assigned) < 20, "the waits between the retries grow"
        assert (denied.value.partition, denied.value.offset) == (0, 5)

    def test_every_revocation_gets_the_full_time_for_retries(self, stage: Stage) -> None:
        for offset in range(5, 15):
            stage.read([self.DENIED])
            stage.read_until_retried()
            stage.read([record(offset)])
            stage.clock.advance(20)


class TestCorruptBatch:
    CORRUPT = event(KafkaError._BAD_COMPRESSION)

    def test_a_batch_that_only_the_network_damaged_costs_nothing(self, stage: Stage) -> None:
        stage.read([self.CORRUPT])
        stage.read_until_retried()
        assert stage.client.assigned[-1] == {(TOPIC, 0): 5}
        (chunk,) = stage.read([record(5)])
        assert len(chunk.messages) == 1

    @pytest.mark.parametrize("code", [KafkaError._BAD_COMPRESSION, KafkaError._BAD_MSG, KafkaError.INVALID_MSG])
    def test_a_batch_that_stays_corrupt_is_a_loss_while_other_partitions_continue(
        self, stage: Stage, code: int
    ) -> None:
        """After a batch with a wrong checksum the client also requests an invalid offset and reports that error."""
        stage.topics.ends = {0: NextOffset(30)}
        errors = [event(code), event(KafkaError._AUTO_OFFSET_RESET)]
        with pytest.raises(DataLoss, match="offset 5 is corrupt") as lost:
            for offset in range(400):
                stage.read([*errors, record(offset, partition=1)], [])
        assert lost.value.where["cause"] == "unreadable"
        assert (lost.value.partition, lost.value.offset) == (0, 5)
        assert stage.clock.monotonic() >= 20


class TestUnavailableBrokers:
    def test_lasting_trouble_is_raised(self, stage: Stage) -> None:
        stage.topics.away = True
        stage.read(stage.client.complain(KafkaError._ALL_BROKERS_DOWN))
        stage.clock.advance(29.0)
        stage.read([])
        stage.clock.advance(1.0)
        with pytest.raises(KafkaUnavailable):
            stage.read([])

    def test_an_answer_from_one_leader_is_enough(self, stage: Stage) -> None:
        stage.topics.silent = {0}
        for _ in range(3):
            stage.read(stage.client.complain(KafkaError._TRANSPORT))
            stage.clock.advance(31.0)
            stage.read([])
        stage.topics.silent = {0, 1}
        stage.read(stage.client.complain(KafkaError._TRANSPORT))
        stage.clock.advance(31.0)
        with pytest.raises(KafkaUnavailable, match="partitions 0, 1: their leaders do not answer"):
            stage.read([])

    def test_any_message_ends_the_trouble(self, stage: Stage) -> None:
        stage.topics.away = True
        for arrived in ([record(5)], [end(6)]):
            stage.read(stage.client.complain(KafkaError._TRANSPORT))
            stage.clock.advance(29.0)
            stage.read(arrived)
            stage.clock.advance(29.0)
            stage.read([])

    def test_an_answer_about_the_ends_ends_the_trouble(self, stage: Stage) -> None:
        stage.read(stage.client.complain(KafkaError._TRANSPORT))
        stage.clock.advance(31.0)
        stage.read([])
        assert stage.topics.questions == 1
        stage.clock.advance(31.0)
        stage.read([])
        assert stage.topics.questions == 1
