"""What the record source makes of a client's events, scripted: the rare ones, which no broker brings on demand."""

import logging
from collections.abc import Callable, Collection
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from ingest_pipeline.core.errors import DataLoss, KafkaUnavailable, NotPermitted, UnknownFault
from ingest_pipeline.core.record import Place
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
    """Hands out what the test puts into `script`; a callable is called as the client would call back."""

    def __init__(self, config: dict[str, Any], logger: object = None) -> None:
        self.config = config
        self.script: list[list[Message] | Callable[[], None]] = []
        self.positions: dict[int, TopicPartition] = {}
        self.commits: list[list[TopicPartition]] = []
        self.assigned: list[dict[int, int]] = []
        self.closed = False

    def assign(self, places: list[TopicPartition]) -> None:
        self.positions = {}
        self.assigned.append({place.partition: place.offset for place in places})

    def unassign(self) -> None: ...

    def list_topics(self, topic: str, timeout: float) -> None:
        assert topic == TOPIC and self.assigned, "to be asked once it is assigned"

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

    def position(self, asked: list[TopicPartition]) -> list[TopicPartition]:
        return [self.positions.get(each.partition, TopicPartition(TOPIC, each.partition)) for each in asked]

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
    """Answers about ends from a dict; `away` makes every question fail."""

    def __init__(self) -> None:
        super().__init__(Admin({"bootstrap.servers": "localhost:9092"}), TOPIC)
        self.ends: dict[int, Place] = {}
        self.starts: dict[int, Place] = {}
        self.away = False
        self.asked = 0

    def end_offsets(self, partitions: Collection[int]) -> dict[int, Place]:
        self.asked += 1
        if self.away:
            raise KafkaUnavailable("away")
        return {partition: self.ends.get(partition, Place(0, 0)) for partition in partitions}

    def start_offsets(self, partitions: Collection[int]) -> dict[int, Place]:
        return {partition: self.starts.get(partition, Place(0, 0)) for partition in partitions}


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
            patience_seconds=30.0,
            clock=self.clock,
        )
        self.client: ScriptedConsumer = self.source._consumer  # type: ignore[assignment]
        self.source.assign({0: Place(5, 1), 1: Place(0, 1)})

    def read(self, *steps: list[Message] | Callable[[], None]) -> list[Any]:
        self.client.script += steps
        return [self.source.read(100, 0.1) for _ in steps]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr("ingest_pipeline.kafka.source.Consumer", ScriptedConsumer)
    return Stage()


class TestEnds:
    def test_one_that_lies_behind_the_last_record_has_that_records_epoch(self, stage: Stage) -> None:
        (chunk,) = stage.read([record(5, epoch=3), end(6)])
        assert chunk.ends == {0: Place(6, 3)}
        assert stage.topic.asked == 0

    def test_one_at_the_assigned_place_has_the_places_epoch(self, stage: Stage) -> None:
        (chunk,) = stage.read([end(5)])
        assert chunk.ends == {0: Place(5, 1)}
        assert stage.topic.asked == 0

    def test_one_beyond_the_last_record_has_the_epoch_that_the_broker_tells(self, stage: Stage) -> None:
        stage.topic.ends = {0: Place(12, 7)}
        (chunk,) = stage.read([record(5, epoch=3), end(9)])
        assert chunk.ends == {0: Place(9, 7)}

    def test_it_is_told_later_when_the_broker_cannot_be_asked_at_once(self, stage: Stage) -> None:
        stage.topic.away = True
        first, second = stage.read([record(5), end(9)], [])
        assert [len(first.messages), first.ends, second.ends] == [1, {}, {}]
        stage.topic.away, stage.topic.ends = False, {0: Place(9, 2)}
        third, fourth = stage.read([], [])
        assert third.ends == {0: Place(9, 2)}
        assert fourth.ends == {}

    def test_one_that_later_records_have_passed_is_not_told(self, stage: Stage) -> None:
        (chunk,) = stage.read([record(5), end(6), record(6), record(7)])
        assert [message.offset() for message in chunk.messages] == [5, 6, 7]
        assert chunk.ends == {}

    def test_an_assignment_forgets_what_was_still_to_be_told(self, stage: Stage) -> None:
        stage.topic.away = True
        stage.read([end(9)])
        stage.topic.away = False
        stage.source.assign({1: Place(0)})
        (chunk,) = stage.read([])
        assert chunk.ends == {}


class TestEvents:
    def test_records_are_handed_over_before_an_error_behind_them_is_raised(self, stage: Stage) -> None:
        stage.topic.starts, stage.topic.ends = {0: Place(20)}, {0: Place(30)}
        (chunk,) = stage.read([record(0, partition=1), event(KafkaError._AUTO_OFFSET_RESET)])
        assert [message.partition() for message in chunk.messages] == [1]
        for _ in range(2):
            with pytest.raises(DataLoss) as lost:
                stage.source.read(100, 0.1)
            assert lost.value.where["cause"] == "retention"
            assert (lost.value.partition, lost.value.offset) == (0, 5)

    def test_a_loss_that_cannot_be_measured_yet_is_told_when_it_can(self, stage: Stage) -> None:
        stage.topic.away = True
        with pytest.raises(KafkaUnavailable):
            stage.read([event(KafkaError._AUTO_OFFSET_RESET)])
        stage.topic.away, stage.topic.ends = False, {0: Place(3)}
        with pytest.raises(DataLoss) as lost:
            stage.source.read(100, 0.1)
        assert lost.value.where["cause"] == "truncated"

    def test_an_unknown_error_stops_by_its_name(self, stage: Stage) -> None:
        with pytest.raises(UnknownFault, match="_BAD_MSG"):
            stage.read([event(KafkaError._BAD_MSG)])

    def test_a_moving_leader_is_waited_for(self, stage: Stage) -> None:
        chunks = stage.read([event(KafkaError.LEADER_NOT_AVAILABLE)], [], [record(5)])
        assert [len(chunk.messages) for chunk in chunks] == [0, 0, 1]

    @pytest.mark.parametrize("code", [KafkaError._AUTHENTICATION, KafkaError._FATAL, KafkaError._BAD_MSG])
    def test_what_the_client_cannot_mend_is_raised(self, stage: Stage, code: int) -> None:
        with pytest.raises((NotPermitted, UnknownFault), match=KafkaError(code).name()):
            stage.read(stage.client.complain(code), [])

    def test_a_missing_right_on_the_group_stops_nothing_but_commits(
        self, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        denied = event(KafkaError.GROUP_AUTHORIZATION_FAILED, topic=None)
        with caplog.at_level(logging.WARNING):
            chunks = stage.read([denied], [denied], [record(5)])
        assert [len(chunk.messages) for chunk in chunks] == [0, 0, 1]
        assert len([line for line in caplog.messages if "GROUP_AUTHORIZATION_FAILED" in line]) == 1
        stage.source.acknowledge({0: Place(6)})
        assert stage.client.commits == []


class TestARightThatIsTakenAway:
    """The client reads no further after it: whoever wants the records has to assign again."""

    DENIED = event(KafkaError.TOPIC_AUTHORIZATION_FAILED)

    def test_one_that_comes_back_costs_nothing(self, stage: Stage) -> None:
        chunks = stage.read([record(5), self.DENIED], [], [self.DENIED], [], [record(6)], [end(7)])
        assert [[message.offset() for message in chunk.messages] for chunk in chunks] == [[5], [], [], [], [6], []]
        assert chunks[-1].ends == {0: Place(7, 1)}
        assert stage.client.assigned[-1] == {0: 6, 1: 0}
        assert len(stage.client.assigned) == 3

    def test_one_that_stays_away_is_told_when_patience_is_over(self, stage: Stage) -> None:
        with pytest.raises(NotPermitted, match="grant Read") as denied:
            stage.read(*[[self.DENIED]] * 100)
        assert stage.clock.monotonic() >= 20
        assert (denied.value.partition, denied.value.offset) == (0, 5)

    def test_each_time_it_is_borne_anew(self, stage: Stage) -> None:
        for offset in range(5, 15):
            stage.read([self.DENIED], [record(offset)])
            stage.clock.advance(20)


class TestPatience:
    def test_trouble_is_raised_when_it_has_lasted(self, stage: Stage) -> None:
        stage.topic.away = True
        stage.read(stage.client.complain(KafkaError._ALL_BROKERS_DOWN))
        stage.clock.advance(29.0)
        stage.read([])
        stage.clock.advance(1.0)
        with pytest.raises(KafkaUnavailable):
            stage.read([])

    def test_anything_that_arrives_ends_it(self, stage: Stage) -> None:
        stage.topic.away = True
        for arrived in ([record(5)], [end(6)]):
            stage.read(stage.client.complain(KafkaError._TRANSPORT))
            stage.clock.advance(29.0)
            stage.read(arrived)
            stage.clock.advance(29.0)
            stage.read([])

    def test_an_answer_about_the_ends_ends_it_too(self, stage: Stage) -> None:
        stage.read(stage.client.complain(KafkaError._TRANSPORT))
        stage.clock.advance(31.0)
        stage.read([])
        assert stage.topic.asked == 1
        stage.clock.advance(31.0)
        stage.read([])
        assert stage.topic.asked == 1


class TestCommits:
    def test_at_most_one_a_second_and_the_newest_places(self, stage: Stage) -> None:
        stage.source.acknowledge({0: Place(6, 1)})
        stage.client.answer()
        for offset in range(7, 20):
            stage.source.acknowledge({0: Place(offset, 1)})
        assert [commit[0].offset for commit in stage.client.commits] == [6]
        stage.clock.advance(1.0)
        stage.read([])
        assert [commit[0].offset for commit in stage.client.commits] == [6, 19]
        assert stage.client.commits[-1][0].metadata == "ingest-ledger:ledger"

    def test_one_at_a_time(self, stage: Stage) -> None:
        stage.source.acknowledge({0: Place(6)})
        stage.clock.advance(5.0)
        stage.source.acknowledge({0: Place(7)})
        assert len(stage.client.commits) == 1
        stage.client.answer(KafkaError._WAIT_COORD)
        stage.source.acknowledge({1: Place(3)})
        assert [(each.partition, each.offset) for each in stage.client.commits[1]] == [(0, 7), (1, 3)]

    def test_closing_sends_the_rest(self, stage: Stage) -> None:
        stage.source.acknowledge({0: Place(6)})
        stage.client.answer()
        stage.source.acknowledge({0: Place(8)})
        stage.source.close()
        assert [commit[0].offset for commit in stage.client.commits] == [6, 8]
        assert stage.client.closed

    def test_a_refused_commit_is_forgotten(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(**_: object) -> None:
            raise KafkaException(KafkaError(KafkaError._STATE))

        monkeypatch.setattr(stage.client, "commit", refuse)
        stage.source.acknowledge({0: Place(6)})
        (chunk,) = stage.read([record(5)])
        assert len(chunk.messages) == 1
