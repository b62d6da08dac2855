"""KafkaTopic on a scripted AdminClient: negative numbers in answers, and the order of questions."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupState, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AclOperation, OffsetSpec  # type: ignore[attr-defined]

from ingest_pipeline.core.errors import KafkaUnavailable, NotPermitted
from ingest_pipeline.core.record import NextOffset, next_offset_or_none
from ingest_pipeline.kafka.acls import MissingRights, missing_rights
from ingest_pipeline.kafka.admin import Admin
from ingest_pipeline.kafka.metadata import _has_topic_ids
from ingest_pipeline.kafka.topic import KafkaTopic
from ingest_pipeline.kafka.topics import KafkaTopics

TOPIC = "price"
KAFKA = {"bootstrap.servers": "localhost:9092"}
BEGIN, END = "begin", "end"
Answer = tuple[int, int | None] | int


class ScriptedAdmin:
    """Answers from `log`: partition → kind of question (begin, end, time) → (offset, epoch) or an error code.

    Attributes:
        after: called after each question about offsets, with its kind.
        kinds: of all questions about offsets.
        controllers: the ids of the controller in one metadata after the other, then from the first again. -1 while the
            cluster has none.
        silent: brokers that do not answer a question for descriptions.
        descriptions: the brokers that were asked for descriptions.
        explanations: codes of the errors that the client hands over at the next call of poll.
        groups: the listing of consumer groups, without the groups of silent brokers.
        group_errors: an error for each broker that did not list its groups.
        described: the topic id that brokers tell, or an error's code.
        questions: about metadata and offsets, in order.
        coordinator_error: the answer to every question about a group's rights. None: the client has all rights.
    """

    def __init__(self) -> None:
        self.partitions: Mapping[int, int] = {0: 1, 1: 2}
        self.log: dict[int, dict[str, Answer]] = {p: {BEGIN: (0, 0), END: (5, 3), "time": (2, 1)} for p in (0, 1)}
        self.away = False
        self.controllers = [1]
        self.silent: set[int] = set()
        self.descriptions: list[int] = []
        self.explanations: list[int] = []
        self.on_error: Callable[[KafkaError], None] = lambda _: None
        self.groups: list[SimpleNamespace] = []
        self.group_errors: list[KafkaException] = []
        self.described: str | int = "topic+id/"
        self.after: Callable[[str], None] = lambda _: None
        self.kinds: list[str] = []
        self.questions: list[str] = []
        self.coordinator_error: int | None = None

    def list_topics(self, topic: str, timeout: float) -> Any:
        self.questions.append("metadata")
        if self.away:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        self.controllers.append(self.controllers.pop(0))
        partitions = {p: SimpleNamespace(leader=leader, error=None) for p, leader in self.partitions.items()}
        return SimpleNamespace(
            cluster_id="cluster",
            controller_id=self.controllers[-1],
            brokers={1: None, 2: None},
            topics={topic: SimpleNamespace(error=None, partitions=partitions)},
        )

    def list_offsets(
        self, specs: Mapping[TopicPartition, OffsetSpec], isolation_level: IsolationLevel, request_timeout: float
    ) -> dict[TopicPartition, Future[Any]]:
        self.questions.append("offsets")
        futures = {key: Future[Any]() for key in specs}
        for key, spec in specs.items():
            kind = {-1: END, -2: BEGIN}.get(spec._value, "time")
            answer = self.log[key.partition][kind]
            if isinstance(answer, int):
                futures[key].set_exception(KafkaException(KafkaError(answer)))
            else:
                offset, epoch = answer
                futures[key].set_result(SimpleNamespace(offset=offset, leader_epoch=epoch, timestamp=-1))
        self.kinds.append(kind)
        self.after(kind)
        return futures

    def describe_topics(
        self, topics: Any, include_authorized_operations: bool, request_timeout: float
    ) -> dict[str, Future[Any]]:
        future = Future[Any]()
        self.descriptions.append(self.controllers[-1])
        if self.controllers[-1] in self.silent:
            future.set_exception(KafkaException(KafkaError(KafkaError._TIMED_OUT)))
        elif isinstance(self.described, int):
            future.set_exception(KafkaException(KafkaError(self.described)))
        else:
            operations = [AclOperation.READ] if include_authorized_operations else None
            future.set_result(
                SimpleNamespace(
                    topic_id=self.described, partitions=list(self.partitions), authorized_operations=operations
                )
            )
        return dict.fromkeys(topics.topic_names, future)

    def describe_consumer_groups(
        self, groups: list[str], include_authorized_operations: bool, request_timeout: float
    ) -> dict[str, Future[Any]]:
        future = Future[Any]()
        if self.coordinator_error is not None:
            future.set_exception(KafkaException(KafkaError(self.coordinator_error)))
        else:
            future.set_result(SimpleNamespace(authorized_operations=[AclOperation.READ]))
        return dict.fromkeys(groups, future)

    def list_consumer_groups(self, request_timeout: float) -> Future[Any]:
        future = Future[Any]()
        future.set_result(SimpleNamespace(valid=self.groups, errors=self.group_errors))
        return future

    def poll(self, timeout: float) -> None:
        while self.explanations:
            self.on_error(KafkaError(self.explanations.pop()))


@pytest.fixture
def admin() -> ScriptedAdmin:
    return ScriptedAdmin()


@pytest.fixture
def client(admin: ScriptedAdmin) -> Admin:
    def connect(config: Mapping[str, Any], **_: object) -> ScriptedAdmin:
        admin.on_error = config["error_cb"]
        return admin

    return Admin(KAFKA, client_class=connect)


@pytest.fixture
def topic(client: Admin) -> KafkaTopic:
    return KafkaTopic(client, TOPIC, timeout_seconds=0.3)


@pytest.mark.parametrize("offset", [-1001, -1, -2, -1000, None])
def test_a_negative_number_is_no_offset(offset: int | None) -> None:
    assert next_offset_or_none(offset, 3) is None
    if offset is not None:
        with pytest.raises(ValueError, match="no position in a log"):
            NextOffset(offset, 3)


def test_an_unknown_epoch_is_none() -> None:
    assert next_offset_or_none(4, -1) == next_offset_or_none(4, None) == NextOffset(4, None)
    with pytest.raises(ValueError, match="no position in a log"):
        NextOffset(4, -1)


@pytest.mark.parametrize("question", ["end_offsets", "high_watermarks", "start_offsets"])
@pytest.mark.parametrize(
    "answer",
    [
        (-1001, None),
        (-1, None),
        (-2, -1),
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError.REQUEST_TIMED_OUT,
    ],
)
def test_a_partition_without_an_answer_is_left_out(
    admin: ScriptedAdmin, topic: KafkaTopic, question: str, answer: Answer
) -> None:
    admin.log[1] = dict.fromkeys((BEGIN, END), answer)
    assert getattr(topic, question)([0, 1]).keys() == {0}
    assert getattr(topic, question)([1]) == {}


def test_a_late_answer_counts(admin: ScriptedAdmin, topic: KafkaTopic) -> None:
    moving: dict[str, Answer] = {END: KafkaError.NOT_LEADER_FOR_PARTITION}
    settled, admin.log[1] = admin.log[1], moving
    admin.after = lambda _: admin.log.update({1: settled})
    assert topic.end_offsets([0, 1]) == {0: NextOffset(5, 3), 1: NextOffset(5, 3)}


def test_without_any_answer_kafka_is_unavailable(admin: ScriptedAdmin, topic: KafkaTopic) -> None:
    admin.away = True
    admin.log = {p: {END: (-1001, None)} for p in (0, 1)}
    with pytest.raises(KafkaUnavailable, match="localhost:9092"):
        topic.end_offsets([0, 1])


def test_a_missing_right_is_raised(admin: ScriptedAdmin, topic: KafkaTopic) -> None:
    admin.log[1] = {END: KafkaError.TOPIC_AUTHORIZATION_FAILED}
    with pytest.raises(NotPermitted):
        topic.end_offsets([0, 1])


class TestOffsetsAtATime:
    def test_a_record_that_arrives_between_the_questions_is_not_skipped(
        self, admin: ScriptedAdmin, topic: KafkaTopic
    ) -> None:
        """Every record is older than the time. During the second question a record arrives at the end of the first."""
        for partition in (0, 1):
            admin.log[partition]["time"] = (-1, None)

        def append(_: str) -> None:
            for partition in (0, 1):
                offset, epoch = admin.log[partition][END]  # type: ignore[misc]
                admin.log[partition][END] = (offset + 1, epoch)

        admin.after = append
        assert topic.offsets_at([0, 1], 1_000) == {0: NextOffset(5, 3), 1: NextOffset(5, 3)}
        assert admin.kinds == [END, "time"]

    def test_no_answer_differs_from_no_such_record(self, admin: ScriptedAdmin, topic: KafkaTopic) -> None:
        admin.log[1]["time"] = (-1001, None)
        assert topic.offsets_at([0, 1], 1_000) == {0: NextOffset(2, 1)}

    def test_a_partition_without_an_end_is_left_out(self, admin: ScriptedAdmin, topic: KafkaTopic) -> None:
        admin.log[0]["time"] = admin.log[1]["time"] = (-1, None)
        admin.log[1][END] = (-1001, None)
        assert topic.offsets_at([0, 1], 1_000) == {0: NextOffset(5, 3)}


@pytest.mark.parametrize(
    ("code", "question"),
    [
        (None, lambda topics: topics.identities(["temperature", TOPIC])),
        (KafkaError._TIMED_OUT, lambda topics: topics.identities(["temperature", TOPIC])),
        (None, lambda topics: topics.end_offsets({"temperature": [0], TOPIC: [0]})),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, lambda topics: topics.end_offsets({"temperature": [0], TOPIC: [0]})),
    ],
)
def test_an_error_about_several_topics_names_none(
    admin: ScriptedAdmin, client: Admin, code: int | None, question: Callable[[KafkaTopics], object]
) -> None:
    admin.away = code is None
    admin.described = code or ""
    admin.log = {0: {END: (-1001, None) if code is None else code}}
    with pytest.raises((KafkaUnavailable, NotPermitted)) as raised:
        question(KafkaTopics(client, timeout_seconds=0.1))
    assert raised.value.message.startswith("Kafka at localhost:9092: ")
    assert str(raised.value) == raised.value.message


class TestTopicId:
    """Without the id a topic that was created again passes for the old one."""

    @pytest.fixture(autouse=True)
    def no_answer_yet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(_has_topic_ids, "localhost:9092", raising=False)

    def test_a_moment_without_a_controller_leaves_the_check_on(self, admin: ScriptedAdmin, topic: KafkaTopic) -> None:
        assert topic.identity().topic_id == "topic-id_"
        admin.controllers, admin.described = [-1], KafkaError._TIMED_OUT
        with pytest.raises(KafkaUnavailable):
            topic.identity()
        admin.controllers, admin.described = [1], "another"
        assert topic.identity().topic_id == "another"

    def test_an_old_cluster_is_asked_again_once_it_names_a_controller(
        self, admin: ScriptedAdmin, topic: KafkaTopic
    ) -> None:
        admin.controllers, admin.described = [-1], KafkaError._TIMED_OUT
        assert topic.identity().topic_id is None
        admin.controllers, admin.described = [1], "topic"
        assert topic.identity().topic_id == "topic"

    def test_a_silent_broker_is_asked_once(self, admin: ScriptedAdmin, topic: KafkaTopic) -> None:
        """The brokers of a KRaft cluster name each other as the controller at random."""
        admin.controllers, admin.silent = [2, 2, 2, 2, 1], {2}
        assert topic.identity().topic_id == "topic-id_"
        assert admin.descriptions == [2, 1]

    def test_metadata_do_not_void_the_explanation_of_a_silent_controller(
        self, admin: ScriptedAdmin, topic: KafkaTopic
    ) -> None:
        """The client gives an explanation once, and answers the question for metadata before each try."""
        admin.silent, admin.explanations = {1}, [KafkaError._RESOLVE]
        with pytest.raises(KafkaUnavailable, match="_RESOLVE"):
            topic.identity()
        admin.silent = set()
        assert topic.identity().topic_id == "topic-id_"
        admin.silent = {1}
        with pytest.raises(KafkaUnavailable, match="_TIMED_OUT"):
            topic.identity()

    def test_without_another_controller_the_silent_one_is_asked_again(
        self, admin: ScriptedAdmin, topic: KafkaTopic
    ) -> None:
        admin.silent = {1}
        with pytest.raises(KafkaUnavailable):
            topic.identity()
        assert set(admin.descriptions) == {1}
        assert len(admin.descriptions) > 1


@pytest.mark.parametrize(
    ("states", "errors", "has_members"),
    [
        ([ConsumerGroupState.STABLE], [], True),
        ([ConsumerGroupState.STABLE], [KafkaException(KafkaError(KafkaError._TIMED_OUT))], True),
        ([ConsumerGroupState.EMPTY], [], False),
        ([], [], False),
        ([], [KafkaException(KafkaError(KafkaError._TIMED_OUT))], None),
    ],
)
def test_members_of_a_group_are_unknown_while_a_broker_that_may_know_them_is_silent(
    admin: ScriptedAdmin,
    client: Admin,
    states: list[ConsumerGroupState],
    errors: list[KafkaException],
    has_members: bool | None,
) -> None:
    admin.groups = [SimpleNamespace(group_id="theirs", state=state) for state in states]
    admin.group_errors = errors
    assert client.has_members("theirs") is has_members


class TestSilence:
    def test_a_client_that_has_become_silent_is_replaced_once(self) -> None:
        """The old client would ask the broker that became silent until `socket.timeout.ms`."""
        admins = [ScriptedAdmin() for _ in range(3)]
        unused = iter(admins)
        topic = KafkaTopic(Admin(KAFKA, client_class=lambda *_, **__: next(unused)), TOPIC, timeout_seconds=0.5)
        assert topic.identity().topic_id == "topic-id_"
        admins[0].away = admins[1].away = True
        with pytest.raises(KafkaUnavailable):
            topic.identity()
        assert admins[1].questions == ["metadata"] * len(admins[1].questions) != []
        assert admins[2].questions == []
        admins[1].away = False
        assert topic.identity().topic_id == "topic-id_"

    def test_a_new_client_asks_for_metadata_before_offsets(self, admin: ScriptedAdmin, topic: KafkaTopic) -> None:
        for _ in range(2):
            assert topic.end_offsets([0, 1]).keys() == {0, 1}
        assert admin.questions == ["metadata", "offsets", "offsets"]

    def test_a_right_is_asked_of_another_controller(self, admin: ScriptedAdmin, client: Admin) -> None:
        admin.controllers, admin.silent = [2, 2, 1], {2}
        assert missing_rights(client, TOPIC, "ours") == MissingRights()
        assert admin.descriptions == [2, 1]

    def test_a_right_is_unknown_while_the_broker_that_knows_is_silent(
        self, admin: ScriptedAdmin, client: Admin
    ) -> None:
        admin.coordinator_error = KafkaError._TIMED_OUT
        assert missing_rights(client, TOPIC, "ours") == MissingRights(unknown=["Read on group ours"])
        admin.coordinator_error = KafkaError._UNSUPPORTED_FEATURE
        assert missing_rights(client, TOPIC, "ours") is None
