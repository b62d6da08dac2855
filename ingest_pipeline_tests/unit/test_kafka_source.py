"""The record source on a scripted client, for events that no broker produces on demand."""

import logging
from collections.abc import Callable, Collection
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from ingest_pipeline.core.errors import DataLoss, KafkaUnavailable, NotPermitted, TopicMissing, UnknownFault
from ingest_pipeline.core.record import NextOffset, TopicIdentity
from ingest_pipeline.kafka.admin import Admin
from ingest_pipeline.kafka.source import KafkaSource
from ingest_pipeline.kafka.topic import KafkaTopic
from ingest_pipeline.testing.clock import SettableClock

TOPIC = "price"


def record(offset: int, epoch: int = 1, partition: int = 0) -> Message:
    return Message(topic=TOPIC, partition=partition, offset=offset, value=b"{}", leader_epoch=epoch)


def event(code: int, offset: int = -1, partition: int = 0, topic: str | None = TOPIC) -> Message:
    return Message(topic=topic, partition=partition, offset=offset, error=KafkaError(code), leader_epoch=0)


def end(offset: int, partition: int = 0) -> Message:
    return event(KafkaError._PARTITION_EOF, offset, partition)


class ScriptedConsumer:
    """Returns the steps of `script`. A callable step runs in place of the client's callback."""

    def __init__(self, config: dict[str, Any], logger: object = None) -> None:
        self.config = config
        self.script: list[list[Message] | Callable[[], None]] = []
        self.positions: dict[int, TopicPartition] = {}
        self.commits: list[list[TopicPartition]] = []
        self.assigned: list[dict[int, int]] = []
        self.closed = False

    def assign(self, partitions: list[TopicPartition]) -> None:
        self.positions = {}
        self.assigned.append({partition.partition: partition.offset for partition in partitions})

    def unassign(self) -> None: ...

    def list_topics(self, topic: str, timeout: float) -> None:
        assert topic == TOPIC and self.assigned, "metadata is requested after the assignment"

    def consume(self, count: int, timeout: float) -> list[Message]:
        step = self.script.pop(0) if self.script else []
        if callable(step):
            step()
            return []
        for message in step:
            if message.error() is None:
                after = TopicPartition(TOPIC, message.partition(), message.offset() + 1, "", message.leader_epoch())
                self.positions[message.partition()] = after
        return step

    def position(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        return [self.positions.get(p.partition, TopicPartition(TOPIC, p.partition)) for p in partitions]

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> None:
        self.commits.append(offsets)

    def poll(self, timeout: float) -> None:
        if self.commits:
            self.answer()

    def answer(self, error: int | None = None) -> None:
        self.config["on_commit"](None if error is None else KafkaError(error), self.commits[-1])

    def complain(self, code: int) -> Callable[[], None]:
        return lambda: self.config["error_cb"](KafkaError(code))

    def close(self) -> None:
        self.closed = True


class ScriptedTopic(KafkaTopic):
    """Answers from dicts. With `away` every question fails. `silent` partitions have no answer."""

    def __init__(self) -> None:
        super().__init__(Admin({"bootstrap.servers": "localhost:9092"}), TOPIC)
        self.ends: dict[int, NextOffset] = {}
        self.starts: dict[int, NextOffset] = {}
        self.highs: dict[int, NextOffset] = {}
        self.away = False
        self.silent: set[int] = set()
        self.partitions = 2
        self.questions = 0

    def end_offsets(self, partitions: Collection[int]) -> dict[int, NextOffset]:
        self.questions += 1
        if self.away:
            raise KafkaUnavailable("away")
        return {p: self.ends.get(p, NextOffset(0, 0)) for p in partitions if p not in self.silent}

    def high_watermarks(self, partitions: Collection[int]) -> dict[int, NextOffset]:
        return self.end_offsets(partitions) | {p: self.highs[p] for p in partitions if p in self.highs}

    def start_offsets(self, partitions: Collection[int]) -> dict[int, NextOffset]:
        return {p: self.starts.get(p, NextOffset(0, 0)) for p in partitions if p not in self.silent}

    def identity(self) -> TopicIdentity:
        return TopicIdentity("cluster", "topic", self.partitions)


class Stage:
    """A source on a scripted client."""

    def __init__(self) -> None:
        self.clock = SettableClock()
        self.topic = ScriptedTopic()
        self.source = KafkaSource(
            {"bootstrap.servers": "localhost:9092"},
            self.topic,
            group_id="g",
            ledger_id="ledger",
            batch_bytes=1 << 20,
            retry_seconds=30.0,
            clock=self.clock,
            client_class=ScriptedConsumer,
        )
        self.client: ScriptedConsumer = self.source._consumer  # type: ignore[assignment]
        self.source.assign({0: NextOffset(5, 1), 1: NextOffset(0, 1)})

    def read(self, *steps: list[Message] | Callable[[], None]) -> list[Any]:
        self.client.script += steps
        return [self.source.read(100, 0.1) for _ in steps]


@pytest.fixture
def stage() -> Stage:
    return Stage()


class TestEnds:
    def test_an_end_after_the_last_record_has_the_records_epoch(self, stage: Stage) -> None:
        (chunk,) = stage.read([record(5, epoch=3), end(6)])
        assert chunk.ends == {0: NextOffset(6, 3)}
        assert stage.topic.questions == 0

    def test_an_end_at_the_assigned_offset_has_the_assigned_epoch(self, stage: Stage) -> None:
        (chunk,) = stage.read([end(5)])
        assert chunk.ends == {0: NextOffset(5, 1)}
        assert stage.topic.questions == 0

    def test_an_end_beyond_the_last_record_has_the_brokers_epoch(self, stage: Stage) -> None:
        stage.topic.ends = {0: NextOffset(12, 7)}
        (chunk,) = stage.read([record(5, epoch=3), end(9)])
        assert chunk.ends == {0: NextOffset(9, 7)}

    def test_an_end_waits_for_an_absent_broker(self, stage: Stage) -> None:
        stage.topic.away = True
        first, second = stage.read([record(5), end(9)], [])
        assert [len(first.messages), first.ends, second.ends] == [1, {}, {}]
        assert stage.topic.questions == 1, "other partitions' records wait while an end is asked for"
        stage.topic.away, stage.topic.ends = False, {0: NextOffset(9, 2)}
        stage.clock.advance(5.0)
        third, fourth = stage.read([], [])
        assert third.ends == {0: NextOffset(9, 2)}
        assert fourth.ends == {}

    def test_an_end_waits_for_its_silent_leader_and_the_others_do_not(self, stage: Stage) -> None:
        stage.topic.silent, stage.topic.ends = {0}, {1: NextOffset(7, 3)}
        (first,) = stage.read([end(9), end(7, partition=1)])
        assert first.ends == {1: NextOffset(7, 3)}
        stage.topic.silent, stage.topic.ends = set(), {0: NextOffset(9, 4)}
        stage.clock.advance(5.0)
        (second,) = stage.read([])
        assert second.ends == {0: NextOffset(9, 4)}

    @pytest.mark.parametrize("offset", [-1001, -1, -2])
    def test_a_negative_number_is_no_end(self, stage: Stage, offset: int) -> None:
        (chunk,) = stage.read([end(offset)])
        assert chunk.ends == {}
        assert stage.topic.questions == 0

    def test_without_a_position_the_assigned_offset_counts(self, stage: Stage) -> None:
        stage.client.positions[0] = TopicPartition(TOPIC, 0, -1001, "", -1)
        (chunk,) = stage.read([end(5)])
        assert chunk.ends == {0: NextOffset(5, 1)}

    def test_an_end_before_later_records_is_dropped(self, stage: Stage) -> None:
        (chunk,) = stage.read([record(5), end(6), record(6), record(7)])
        assert [message.offset() for message in chunk.messages] == [5, 6, 7]
        assert chunk.ends == {}

    def test_an_assignment_drops_pending_ends(self, stage: Stage) -> None:
        stage.topic.away = True
        stage.read([end(9)])
        stage.topic.away = False
        stage.source.assign({1: NextOffset(0)})
        (chunk,) = stage.read([])
        assert chunk.ends == {}


class TestEvents:
    def test_records_are_returned_before_a_later_error_is_raised(self, stage: Stage) -> None:
        stage.topic.starts, stage.topic.ends = {0: NextOffset(20)}, {0: NextOffset(30)}
        (chunk,) = stage.read([record(0, partition=1), event(KafkaError._AUTO_OFFSET_RESET)])
        assert [message.partition() for message in chunk.messages] == [1]
        for _ in range(2):
            with pytest.raises(DataLoss) as lost:
                stage.source.read(100, 0.1)
            assert lost.value.where["cause"] == "retention"
            assert (lost.value.partition, lost.value.offset) == (0, 5)

    def test_a_loss_is_raised_once_the_brokers_tell_its_bounds(self, stage: Stage) -> None:
        stage.topic.away = True
        with pytest.raises(KafkaUnavailable):
            stage.read([event(KafkaError._AUTO_OFFSET_RESET)])
        stage.topic.away, stage.topic.ends = False, {0: NextOffset(3)}
        with pytest.raises(DataLoss) as lost:
            stage.source.read(100, 0.1)
        assert lost.value.where["cause"] == "truncated"

    def test_an_offset_below_the_high_watermark_is_not_truncated(self, stage: Stage) -> None:
        """An open transaction holds back the end for a read_committed reader. The log ends later."""
        stage.topic.ends, stage.topic.highs = {0: NextOffset(3)}, {0: NextOffset(9)}
        with pytest.raises(DataLoss) as lost:
            stage.read([event(KafkaError._AUTO_OFFSET_RESET)])
        assert (lost.value.where["cause"], lost.value.where["high"]) == ("rewritten", 9)

    def test_a_loss_with_a_silent_leader_is_retried_and_then_names_the_partition(self, stage: Stage) -> None:
        stage.topic.silent = {0}
        chunks = stage.read([event(KafkaError._AUTO_OFFSET_RESET)], [record(0, partition=1)])
        assert [len(chunk.messages) for chunk in chunks] == [0, 1]
        with pytest.raises(KafkaUnavailable, match="partition 0: its leader does not answer"):
            stage.read(*[[event(KafkaError._AUTO_OFFSET_RESET)]] * 100)
        stage.topic.silent, stage.topic.ends = set(), {0: NextOffset(3)}
        with pytest.raises(DataLoss):
            stage.read([])

    def test_a_partition_that_a_broker_does_not_know_yet_is_retried(self, stage: Stage) -> None:
        chunks = stage.read([event(KafkaError._UNKNOWN_PARTITION, partition=1)], [record(0, partition=1)])
        assert [len(chunk.messages) for chunk in chunks] == [0, 1]

    def test_a_partition_that_the_topic_lacks_stops_the_stream(self, stage: Stage) -> None:
        stage.topic.partitions = 1
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
        stage.source.acknowledge({0: NextOffset(6)})
        assert stage.client.commits == []


class TestRevokedRight:
    """The client stops reading until the partitions are assigned again."""

    DENIED = event(KafkaError.TOPIC_AUTHORIZATION_FAILED)

    def test_a_right_that_is_granted_again_costs_nothing(self, stage: Stage) -> None:
        chunks = stage.read([record(5), self.DENIED], [], [self.DENIED], [], [record(6)], [end(7)])
        assert [[message.offset() for message in chunk.messages] for chunk in chunks] == [[5], [], [], [], [6], []]
        assert chunks[-1].ends == {0: NextOffset(7, 1)}
        assert stage.client.assigned[-1] == {0: 6, 1: 0}
        assert len(stage.client.assigned) == 3

    def test_a_right_that_stays_revoked_is_raised_after_the_retries(self, stage: Stage) -> None:
        with pytest.raises(NotPermitted, match="Grant Read") as denied:
            stage.read(*[[self.DENIED]] * 100)
        assert stage.clock.monotonic() >= 20
        assert (denied.value.partition, denied.value.offset) == (0, 5)

    def test_every_revocation_gets_the_full_time_for_retries(self, stage: Stage) -> None:
        for offset in range(5, 15):
            stage.read([self.DENIED], [record(offset)])
            stage.clock.advance(20)


class TestCorruptBatch:
    CORRUPT = event(KafkaError._BAD_COMPRESSION)

    def test_a_batch_that_only_the_network_damaged_costs_nothing(self, stage: Stage) -> None:
        chunks = stage.read([self.CORRUPT], [record(5)])
        assert [len(chunk.messages) for chunk in chunks] == [0, 1]
        assert stage.client.assigned[-1] == {0: 5, 1: 0}

    @pytest.mark.parametrize("code", [KafkaError._BAD_COMPRESSION, KafkaError._BAD_MSG, KafkaError.INVALID_MSG])
    def test_a_batch_that_stays_corrupt_is_a_loss_while_other_partitions_continue(
        self, stage: Stage, code: int
    ) -> None:
        """After a batch with a wrong checksum the client also requests an invalid offset and reports that error."""
        stage.topic.ends = {0: NextOffset(30)}
        errors = [event(code), event(KafkaError._AUTO_OFFSET_RESET)]
        with pytest.raises(DataLoss, match="offset 5 is corrupt") as lost:
            for offset in range(200):
                stage.read([*errors, record(offset, partition=1)], [])
        assert lost.value.where["cause"] == "unreadable"
        assert (lost.value.partition, lost.value.offset) == (0, 5)
        assert stage.clock.monotonic() >= 20


class TestUnavailableBrokers:
    def test_lasting_trouble_is_raised(self, stage: Stage) -> None:
        stage.topic.away = True
        stage.read(stage.client.complain(KafkaError._ALL_BROKERS_DOWN))
        stage.clock.advance(29.0)
        stage.read([])
        stage.clock.advance(1.0)
        with pytest.raises(KafkaUnavailable):
            stage.read([])

    def test_an_answer_from_one_leader_is_enough(self, stage: Stage) -> None:
        stage.topic.silent = {0}
        for _ in range(3):
            stage.read(stage.client.complain(KafkaError._TRANSPORT))
            stage.clock.advance(31.0)
            stage.read([])
        stage.topic.silent = {0, 1}
        stage.read(stage.client.complain(KafkaError._TRANSPORT))
        stage.clock.advance(31.0)
        with pytest.raises(KafkaUnavailable, match="partitions 0, 1: their leaders do not answer"):
            stage.read([])

    def test_any_message_ends_the_trouble(self, stage: Stage) -> None:
        stage.topic.away = True
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
        assert stage.topic.questions == 1
        stage.clock.advance(31.0)
        stage.read([])
        assert stage.topic.questions == 1


class TestCommits:
    def test_at_most_one_commit_a_second_with_the_newest_offsets(self, stage: Stage) -> None:
        stage.source.acknowledge({0: NextOffset(6, 1)})
        stage.client.answer()
        for offset in range(7, 20):
            stage.source.acknowledge({0: NextOffset(offset, 1)})
        assert [commit[0].offset for commit in stage.client.commits] == [6]
        stage.clock.advance(1.0)
        stage.read([])
        assert [commit[0].offset for commit in stage.client.commits] == [6, 19]
        assert stage.client.commits[-1][0].metadata == "ingest-ledger:ledger"

    def test_commits_do_not_overlap(self, stage: Stage) -> None:
        stage.source.acknowledge({0: NextOffset(6)})
        stage.clock.advance(5.0)
        stage.source.acknowledge({0: NextOffset(7)})
        assert len(stage.client.commits) == 1
        stage.client.answer(KafkaError._WAIT_COORD)
        stage.source.acknowledge({1: NextOffset(3)})
        assert [(commit.partition, commit.offset) for commit in stage.client.commits[1]] == [(0, 7), (1, 3)]

    def test_closing_sends_the_rest(self, stage: Stage) -> None:
        stage.source.acknowledge({0: NextOffset(6)})
        stage.client.answer()
        stage.source.acknowledge({0: NextOffset(8)})
        stage.source.close()
        assert [commit[0].offset for commit in stage.client.commits] == [6, 8]
        assert stage.client.closed

    def test_a_refused_commit_has_no_consequence(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(**_: object) -> None:
            raise KafkaException(KafkaError(KafkaError._STATE))

        monkeypatch.setattr(stage.client, "commit", refuse)
        stage.source.acknowledge({0: NextOffset(6)})
        (chunk,) = stage.read([record(5)])
        assert len(chunk.messages) == 1
