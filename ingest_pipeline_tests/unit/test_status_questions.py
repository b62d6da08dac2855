"""What status asks, and how long it waits: of fifty streams, and of servers that do not answer."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from ingest_pipeline.core.errors import DatabaseUnavailable, IngestError, KafkaUnavailable, TopicMissing
from ingest_pipeline.core.ledger import LedgerSnapshot, Owners, StreamState
from ingest_pipeline.core.record import NextOffset, TopicIdentity
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.operations.judgement import judge
from ingest_pipeline.operations.levels import Level
from ingest_pipeline.operations.status import KAFKA_SECONDS, snapshots
from ingest_pipeline.operations.stream_context import StreamContext
from ingest_pipeline.testing import SettableClock
from ingest_pipeline_tests.samples import READING, Reading

STREAMS = [Stream(f"reading_{number}", Reading) for number in range(50)]
NO_ANSWER, NO_TOPIC = KafkaUnavailable("Kafka does not answer"), TopicMissing("there is no topic")


@dataclass
class Servers:
    """In place of `Clients`. A topic that is `silent` costs its time-out, one that `refuses` costs nothing.

    `questions` are the streams whose topic was asked.
    """

    silent: Collection[str] = ()
    refuses: dict[str, IngestError] = field(default_factory=dict)
    ledger_error: IngestError | None = None
    accounting_error: IngestError | None = None
    clock: SettableClock = field(default_factory=SettableClock)
    questions: list[str] = field(default_factory=list)

    @property
    def settings(self) -> Any:
        return SimpleNamespace(
            for_stream=lambda _: SimpleNamespace(max_delay_seconds=300),
            for_job=lambda _: SimpleNamespace(poll_seconds=1),
        )

    def database(self) -> None:
        """None of these streams has begun, so that no table is read."""

    def ledger(self, stream: Stream) -> Any:
        return SimpleNamespace(snapshot=self._snapshot, accounting=self._accounting, open_letters=list)

    def _snapshot(self) -> LedgerSnapshot:
        if self.ledger_error is not None:
            raise self.ledger_error
        return LedgerSnapshot({}, StreamState(paused=False, letters_allowed=7), [], Owners({}, ()))

    def _accounting(self) -> list[Any]:
        if self.accounting_error is not None:
            raise self.accounting_error
        return []

    def topic(self, stream: Stream, timeout_seconds: float) -> Any:
        def identity() -> TopicIdentity:
            self.questions.append(stream.name)
            if stream.name in self.silent:
                self.clock.advance(timeout_seconds)
                raise NO_ANSWER
            if stream.name in self.refuses:
                raise self.refuses[stream.name]
            return TopicIdentity("cluster", "topic", 1)

        return SimpleNamespace(name=stream.name, identity=identity, end_offsets=lambda _: {0: NextOffset(0)})

    def statuses(self, streams: list[Stream] = STREAMS) -> list[tuple[Level, list[str]]]:
        contexts = [StreamContext(stream, self) for stream in streams]  # type: ignore[arg-type]
        return [(status.level, status.messages) for status in map(judge, snapshots(contexts))]


ALLOWED = "the next 7 dead letters do not count against the limit"


def test_a_silent_kafka_takes_one_time_out_of_fifty_streams() -> None:
    servers = Servers(silent=[stream.name for stream in STREAMS])
    first, *others = servers.statuses()
    assert (servers.questions, servers.clock.monotonic()) == (["reading_0"], KAFKA_SECONDS)
    assert KAFKA_SECONDS <= 3
    assert first == (Level.STOPPED, ["Kafka does not answer", ALLOWED])
    assert others == [(Level.STOPPED, ["asked once for all streams: Kafka does not answer", ALLOWED])] * 49


def test_a_kafka_that_falls_silent_leaves_the_other_streams_unknown() -> None:
    servers = Servers(silent=[stream.name for stream in STREAMS[2:]])
    statuses = servers.statuses()
    assert (servers.questions, servers.clock.monotonic()) == (["reading_0", "reading_1", "reading_2"], KAFKA_SECONDS)
    assert [level for level, _ in statuses[:3]] == [Level.HEALTHY, Level.HEALTHY, Level.STOPPED]
    assert {level for level, _ in statuses[3:]} == {Level.UNKNOWN}
    assert statuses[3][1] == [
        "unknown: topic reading_3 was not asked for after a time-out: Kafka does not answer",
        ALLOWED,
    ]


def test_a_topic_that_is_refused_says_nothing_of_the_others() -> None:
    servers = Servers(refuses={"reading_0": NO_ANSWER, "reading_1": NO_TOPIC})
    statuses = servers.statuses()
    assert servers.questions == [stream.name for stream in STREAMS]
    assert [level for level, _ in statuses[:2]] == [Level.STOPPED, Level.DEGRADED]
    assert {level for level, _ in statuses[2:]} == {Level.HEALTHY}


@pytest.mark.parametrize(("sqlstate", "level"), [("57014", Level.UNKNOWN), (None, Level.STOPPED)])
def test_without_positions_kafka_is_not_asked(sqlstate: str | None, level: Level) -> None:
    servers = Servers(ledger_error=DatabaseUnavailable("no answer", sqlstate=sqlstate))
    assert {level for level, _ in servers.statuses()} == {level}
    assert servers.questions == []


@pytest.mark.parametrize(("sqlstate", "messages"), [("57014", 2), ("57P01", 1)])
def test_a_time_out_of_the_ledger_costs_one_answer_and_an_outage_all(sqlstate: str, messages: int) -> None:
    servers = Servers(accounting_error=DatabaseUnavailable("no answer", sqlstate=sqlstate))
    ((_, lines),) = servers.statuses([READING])
    assert len(lines) == messages
