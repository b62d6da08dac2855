"""What status asks, and how long it waits: of fifty streams, and of servers that do not answer."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from ingest_pipeline.core.errors import DatabaseUnavailable, IngestError, KafkaUnavailable, TopicMissing
from ingest_pipeline.core.ledger import LedgerSnapshot, Owners, StreamState
from ingest_pipeline.core.record import GroupOffset, NextOffset, TopicIdentity
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.operations.levels import Level
from ingest_pipeline.operations.questions import KAFKA_SECONDS
from ingest_pipeline.operations.status import statuses
from ingest_pipeline.operations.stream_context import StreamContext
from ingest_pipeline.testing import SettableClock
from ingest_pipeline_tests.samples import READING, Reading, stored_position

STREAMS = [Stream(f"reading_{number}", Reading) for number in range(50)]
NO_ANSWER, NO_TOPIC = KafkaUnavailable("Kafka does not answer"), TopicMissing("there is no topic")
Told = tuple[Level, list[str]]


@dataclass
class Servers:
    """In place of `Clients`, for streams with a position and a record that waits.

    Attributes:
        silent: Kafka's answers that cost their time-out and fail.
        group_offset: of every stream's group, with the ledger's mark. The answer takes `group_seconds`.
        refuses: topic → its own error, at once.
        ledger_errors: question → error.
        questions: what was asked, in order.
    """

    silent: Collection[str] = ()
    group_offset: int = 10
    group_seconds: float = 0.0
    refuses: dict[str, IngestError] = field(default_factory=dict)
    ledger_errors: dict[str, IngestError] = field(default_factory=dict)
    ledger_seconds: float = 0.0
    clock: SettableClock = field(default_factory=SettableClock)
    questions: list[str] = field(default_factory=list)

    @property
    def settings(self) -> Any:
        return SimpleNamespace(
            for_stream=lambda _: SimpleNamespace(max_delay_seconds=300),
            for_job=lambda _: SimpleNamespace(poll_seconds=1),
        )

    def ledgers(self, streams: list[Stream]) -> Any:
        names = [stream.name for stream in streams]
        return SimpleNamespace(
            snapshots=lambda: self._ledger("snapshots", {name: self._snapshot(name) for name in names}),
            accounting=lambda: self._ledger("accounting", {name: [] for name in names}),
            open_letters=lambda: self._ledger("open_letters", {name: [] for name in names}),
        )

    def _ledger(self, question: str, answer: Any) -> Any:
        self.questions.append(question)
        if question in self.ledger_errors:
            self.clock.advance(self.ledger_seconds)
            raise self.ledger_errors[question]
        return answer

    def _snapshot(self, name: str) -> LedgerSnapshot:
        positions = {0: stored_position(partition=0, topic=name, next_offset=10, updated_at=NOW)}
        return LedgerSnapshot(positions, StreamState(letters_allowed=7, ticked_at=NOW, now=NOW), [], Owners({}, ()))

    def topics(self, timeout_seconds: float) -> Any:
        return SimpleNamespace(
            identities=lambda names: self._kafka(
                "identities",
                timeout_seconds,
                {name: self.refuses.get(name, TopicIdentity("cluster", "topic", 1)) for name in names},
            ),
            end_offsets=lambda names: self._kafka(
                "end_offsets", timeout_seconds, {name: {0: NextOffset(11)} for name in names}
            ),
        )

    def topic(self, stream: Stream, timeout_seconds: float) -> Any:
        offsets = {0: NextOffset(0)}
        return SimpleNamespace(
            name=stream.topic,
            start_offsets=lambda _: self._kafka(f"start_offsets {stream.name}", timeout_seconds, offsets),
            high_watermarks=lambda _: {},
            group_offsets=self._group_offsets,
        )

    def group_id(self, stream: Stream) -> str:
        return stream.name

    def _group_offsets(self, group: str) -> dict[int, GroupOffset]:
        self.clock.advance(self.group_seconds)
        return self._kafka(f"group {group}", 0.0, {0: GroupOffset(self.group_offset, "ingest-ledger:one")})

    def ledger(self, stream: Stream) -> Any:
        return SimpleNamespace(ledger_id=lambda: "one", positions=lambda: self._snapshot(stream.name).positions)

    def _kafka(self, question: str, timeout_seconds: float, answer: Any) -> Any:
        self.questions.append(question)
        if question in self.silent:
            self.clock.advance(timeout_seconds)
            raise NO_ANSWER
        return answer

    def statuses(self, streams: list[Stream] = STREAMS) -> list[Told]:
        contexts = [StreamContext(stream, self) for stream in streams]  # type: ignore[arg-type]
        return [(status.level, status.messages) for status in statuses(contexts)]


NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALLOWED = "the next 7 dead letters do not count against the limit"
OF_LEDGERS = ["accounting", "open_letters"]
UNKNOWN_TO_ALL = (Level.UNKNOWN, ["unknown: asked once for all streams: Kafka does not answer", ALLOWED])


@pytest.mark.parametrize(
    ("silent", "asked"), [("identities", ["identities"]), ("end_offsets", ["identities", "end_offsets"])]
)
def test_a_silent_kafka_takes_one_time_out_of_fifty_streams(silent: str, asked: list[str]) -> None:
    servers = Servers(silent=[silent])
    assert servers.statuses() == [UNKNOWN_TO_ALL] * 50
    assert servers.questions == ["snapshots", *asked, *OF_LEDGERS]
    assert servers.clock.monotonic() == KAFKA_SECONDS < 3


def test_of_one_stream_the_message_is_its_own() -> None:
    assert Servers(silent=["identities"]).statuses([READING]) == [
        (Level.UNKNOWN, ["unknown: Kafka does not answer", ALLOWED])
    ]


def test_a_kafka_that_falls_silent_leaves_the_other_streams_unknown() -> None:
    servers = Servers(silent=[f"start_offsets reading_{number}" for number in range(2, 50)])
    answers = servers.statuses()
    levels = [level for level, _ in answers]
    assert servers.questions.count("start_offsets reading_2") == 1
    assert "start_offsets reading_3" not in servers.questions
    assert servers.clock.monotonic() == KAFKA_SECONDS
    assert levels == [Level.HEALTHY] * 2 + [Level.UNKNOWN] * 48
    assert answers[2][1] == ["unknown: Kafka does not answer", ALLOWED]
    unasked = "unknown: Kafka stopped answering before it was asked about this stream"
    assert [messages for _, messages in answers[3:]] == [[unasked, ALLOWED]] * 47


def test_a_topic_that_is_refused_says_nothing_of_the_others() -> None:
    servers = Servers(refuses={"reading_0": NO_ANSWER, "reading_1": NO_TOPIC})
    levels = [level for level, _ in servers.statuses()]
    assert levels == [Level.UNKNOWN, Level.STOPPED] + [Level.HEALTHY] * 48


@pytest.mark.parametrize("sqlstate", ["57014", "53300", None])
def test_without_positions_nothing_else_is_asked(sqlstate: str | None) -> None:
    servers = Servers(ledger_errors={"snapshots": DatabaseUnavailable("no answer", sqlstate=sqlstate)})
    assert {level for level, _ in servers.statuses()} == {Level.UNKNOWN}
    assert servers.questions == ["snapshots"]


@pytest.mark.parametrize(
    ("sqlstate", "seconds", "asked"),
    [("57014", 1.0, OF_LEDGERS), ("57014", 5.0, ["accounting"]), ("57P01", 0.0, ["accounting"])],
    ids=["a short time-out", "a long time-out", "an outage"],
)
def test_the_ledger_is_asked_no_more_once_it_is_silent(sqlstate: str, seconds: float, asked: list[str]) -> None:
    error = DatabaseUnavailable("no answer", sqlstate=sqlstate)
    servers = Servers(ledger_errors={"accounting": error}, ledger_seconds=seconds)
    told = servers.statuses()
    assert {level for level, _ in told} == {Level.UNKNOWN}
    assert {len(messages) for _, messages in told} == {2}, "the reason once, and what is allowed"
    assert [question for question in servers.questions if question in OF_LEDGERS] == asked


def test_a_ledger_behind_its_own_group_is_degraded() -> None:
    ((level, messages),) = Servers(group_offset=80).statuses([READING])
    assert (level, messages[0]) == (
        Level.DEGRADED,
        "the ledger is 70 offsets behind its own group reading: partition 0 at 10 of 80. The database was restored or"
        " failed over to an earlier state. The records in between are read again. The database's other tables may be of"
        " the earlier time too",
    )


def test_slow_answers_about_groups_leave_later_groups_out() -> None:
    servers = Servers(group_offset=80, group_seconds=KAFKA_SECONDS / 4)
    levels = [level for level, _ in servers.statuses()]
    assert levels == [Level.DEGRADED] * 5 + [Level.HEALTHY] * 45


def test_a_group_without_an_answer_is_no_fault() -> None:
    assert {level for level, _ in Servers(silent=["group reading_0"]).statuses()} == {Level.HEALTHY}
