"""What status makes of the answers, as a table: snapshot → level and messages."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from ingest_pipeline.core.errors import (
    DatabaseUnavailable,
    KafkaUnavailable,
    LedgerConflict,
    NotPermitted,
    TopicMissing,
    UnknownFault,
)
from ingest_pipeline.core.ledger import Holder, LedgerSnapshot, Owners, Refusals, StreamState
from ingest_pipeline.core.loss import Loss, LossCause
from ingest_pipeline.core.record import NextOffset, StoredPosition
from ingest_pipeline.core.start import Survey
from ingest_pipeline.operations.judgement import judge
from ingest_pipeline.operations.levels import Level, worst
from ingest_pipeline.operations.metrics import _health
from ingest_pipeline.operations.partitions import partitions_of
from ingest_pipeline.operations.problems import Kind
from ingest_pipeline.operations.refused_records import LetterFacts
from ingest_pipeline.operations.snapshot import StreamSnapshot
from ingest_pipeline_tests.samples import IDENTITY, READING, stored_position

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ALLOWED = 300
RUN = "1a2b3c4d-0000"


def position(partition: int) -> StoredPosition:
    """Of partition 0 or 1, which stands at offset 10 and moved an hour ago."""
    return stored_position(partition=partition, topic="reading", next_offset=10, rows=10, updated_at=NOW - HOUR)


BEGUN = {0: position(0), 1: position(1)}
LOOKING = StreamState(ticked_at=NOW, now=NOW)
PAUSED = replace(LOOKING, paused=True, reason="index build", paused_by="ann", since=NOW)
OWNED = Owners({0: Holder(RUN, 1, False), 1: Holder(RUN, 1, False)}, {RUN})
NOBODY = Owners({}, ())
FROZEN = Owners({0: Holder(RUN, 1, False), 1: Holder(RUN, 1, True)}, {RUN})
FAILED = replace(LOOKING, failed_at=NOW, failure="disk full", failure_stops=False)
LOSS = Loss(
    partition=1,
    incarnation=1,
    next_offset=10,
    cause=LossCause.RETENTION,
    description="partition 1: offsets 10 to 19 were deleted",
    low=20,
    high=30,
    found_at=NOW,
)
LOST = "partition 1: offsets 10 to 19 were deleted, found 2026-01-01 12:00 UTC. To go on: ingest accept-loss reading"
PAUSE = "paused: index build (ann), since 2026-01-01 12:00 UTC. To go on: ingest resume reading"
LATE = DatabaseUnavailable("reading the ledger", sqlstate="57014")
NOT_IN_TIME = "unknown: the ledger did not answer in time, as the question was ended after 5 s: reading the ledger"
NO_KAFKA = KafkaUnavailable("Kafka does not answer")
NO_KAFKA_WORDS = "unknown: Kafka does not answer"
SILENT = replace(LOOKING, ticked_at=NOW - HOUR)
SILENCE = (
    "reading_sensor has not looked for 1:00:00: it is switched off, or Dagster's daemon is down. The live run ends"
    " at its age, and no other comes"
)


def ledger(state: StreamState = LOOKING, positions: Any = BEGUN, losses: Any = (), owners: Owners = OWNED) -> Any:
    return LedgerSnapshot(dict(positions), state, list(losses), owners)


def survey(ends: dict[int, int] | None = None, losses: Sequence[Loss] = (), unanswered: Sequence[int] = ()) -> Survey:
    """Two partitions without lag."""
    ends = {0: 10, 1: 10} if ends is None else ends
    return Survey(IDENTITY, list(losses), {p: NextOffset(end) for p, end in ends.items()}, list(unanswered))


BEHIND = survey({0: 10, 1: 17})


def letters(count: int) -> list[Any]:
    return [SimpleNamespace(partition=1, stage="decode", sqlstate_class="", letters=count)]


def snapshot(**changes: Any) -> StreamSnapshot:
    """A stream that a sensor watches and a run drains, without lag."""
    usual = dict(stream=READING, max_delay_seconds=ALLOWED, poll_seconds=1, ledger=ledger(), topic=survey())
    answers = StreamSnapshot(**{**usual, **changes})
    if not isinstance(answers.ledger, LedgerSnapshot):
        return answers
    return replace(answers, partitions=partitions_of(answers, answers.ledger))


LETTERS = "2 open dead letters: 2x why. To see them: ingest dead-letters list reading"


def refused(
    count: int, records: int, newest_at: datetime = NOW, acknowledged_at: datetime | None = None
) -> StreamSnapshot:
    """Two open dead letters, and so many refused ones among the last records."""
    return snapshot(
        ledger=ledger(replace(LOOKING, acknowledged_at=acknowledged_at)),
        open_letters=letters(2),
        letter_facts=LetterFacts("2 open dead letters: 2x why", Refusals(newest_at, records, count)),
    )


@dataclass(frozen=True)
class Case:
    """`messages` are compared whole."""

    name: str
    snapshot: StreamSnapshot
    level: Level
    messages: Sequence[str] = ()
    health: str = "200"


def stopped(name: str, view: StreamSnapshot, *messages: str, health: str = "503") -> Case:
    return Case(name, view, level=Level.STOPPED, messages=messages, health=health)


def unknown(name: str, view: StreamSnapshot, *messages: str) -> Case:
    return Case(name, view, level=Level.UNKNOWN, messages=messages, health="504")


def degraded(name: str, view: StreamSnapshot, *messages: str) -> Case:
    return Case(name, view, Level.DEGRADED, messages)


def healthy(name: str, view: StreamSnapshot, *messages: str) -> Case:
    return Case(name, view, Level.HEALTHY, messages)


WAITS = replace(LOOKING, waiting={"1": [1, 10, NOW.timestamp() - 400]})
WAITING_LITTLE = {"1": [1, 10, NOW.timestamp() - 61]}
BEHIND_BY = "the table is 400 s behind, 300 s are allowed (partition 1)"
NO_RUN = (
    "no run drains, and 7 records wait, some for more than 60 s: is reading_sensor switched on, and Dagster's daemon"
    " up? Its last tick says why it launches none"
)
CASES = [
    healthy("all is well", snapshot()),
    healthy("a backlog that is drained", snapshot(topic=BEHIND)),
    healthy("a stream that has not begun", snapshot(ledger=ledger(positions={}), topic=survey({0: 0}))),
    healthy(
        "letters are allowed",
        snapshot(ledger=ledger(replace(LOOKING, letters_allowed=5000))),
        "the next 5,000 dead letters do not count against the limit",
    ),
    healthy("a failure behind which the positions are at the end", snapshot(ledger=ledger(FAILED))),
    healthy(
        "a failure before an operator acted",
        snapshot(ledger=ledger(replace(FAILED, acted_at=NOW + HOUR)), topic=BEHIND),
    ),
    # what was asked and shows a fault
    degraded(
        "one partition is late, and another one moves",
        snapshot(ledger=ledger(WAITS, {0: replace(position(0), updated_at=NOW), 1: position(1)}), topic=BEHIND),
        BEHIND_BY,
    ),
    degraded(
        "a silent sensor",
        snapshot(ledger=ledger(SILENT)),
        SILENCE,
    ),
    degraded(
        "a frozen owner",
        snapshot(ledger=ledger(owners=FROZEN)),
        "partition 1: the owning run is frozen. The next run ends its session",
    ),
    degraded(
        "a leader away",
        snapshot(topic=survey({0: 10}, unanswered=[1])),
        "partition 1: its leader does not answer, its state is unknown",
    ),
    degraded(
        "counters that do not add up",
        snapshot(accounting=[SimpleNamespace(partition=1, accounted=False)]),
        "partition 1: the ledger's counters, dead letters and gaps do not add up",
    ),
    degraded(
        "open dead letters",
        refused(1, 20),
        LETTERS,
    ),
    degraded("half of the last records were refused", refused(2, 4), LETTERS),
    degraded(
        "most of the last records were refused, however few",
        refused(2, 3),
        f"2 of the last 3 records were refused. {LETTERS}",
    ),
    degraded("the only record was refused", refused(1, 1), f"the only record was refused. {LETTERS}"),
    degraded("acknowledged before the newest one", refused(1, 20, NOW - HOUR, NOW - 2 * HOUR), LETTERS),
    degraded(
        "acknowledged, and refused today",
        refused(0, 20, NOW - HOUR, NOW),
        "2 open dead letters: 2x why. Acknowledged. The stream is healthy again at 2026-01-02 11:00 UTC",
    ),
    degraded("quiet for a day, and not acknowledged", refused(1, 20, NOW - 25 * HOUR), LETTERS),
    healthy(
        "acknowledged, and quiet for a day",
        refused(0, 20, NOW - 25 * HOUR, NOW - HOUR),
        "2 open dead letters: 2x why. Acknowledged 2026-01-01 11:00 UTC",
    ),
    degraded(
        "a failure that may pass",
        snapshot(ledger=ledger(FAILED), topic=BEHIND),
        "the last run failed, 2026-01-01 12:00 UTC: disk full",
    ),
    degraded(
        "a topic that never was",
        snapshot(ledger=ledger(positions={}), topic=TopicMissing("there is no topic reading")),
        "there is no topic reading. The sensor waits for the topic",
    ),
    # nothing drains, and records wait
    stopped("late, and nothing moves", snapshot(ledger=ledger(WAITS), topic=BEHIND), BEHIND_BY),
    stopped("late and without a run", snapshot(ledger=ledger(WAITS, owners=NOBODY), topic=BEHIND), BEHIND_BY, NO_RUN),
    stopped(
        "old by Kafka's times where no sensor ever looked",
        snapshot(ledger=ledger(StreamState(now=NOW), owners=NOBODY), topic=BEHIND, old_by_kafka={60: {1}, ALLOWED: ()}),
        NO_RUN,
    ),
    stopped(
        "the sensor has not looked for more than a minute",
        snapshot(
            ledger=ledger(replace(LOOKING, ticked_at=NOW - timedelta(seconds=76)), owners=NOBODY),
            topic=BEHIND,
            old_by_kafka={60: {1}, ALLOWED: ()},
        ),
        NO_RUN,
    ),
    stopped(
        "the daemon is down",
        snapshot(ledger=ledger(replace(WAITS, ticked_at=NOW - HOUR), owners=NOBODY), topic=BEHIND),
        BEHIND_BY,
        NO_RUN,
        SILENCE,
    ),
    stopped(
        "the sensor is switched off",
        snapshot(
            ledger=ledger(replace(WAITS, ticked_at=NOW - HOUR), owners=NOBODY),
            topic=BEHIND,
            sensor_reason="the sensor is switched off",
        ),
        BEHIND_BY,
        "no run drains, and 7 records wait, some for more than 60 s: the sensor is switched off",
        "reading_sensor has not looked for 1:00:00: the sensor is switched off. The live run ends at its age, and no"
        " other comes",
    ),
    stopped(
        "a failed run, and no other comes",
        snapshot(ledger=ledger(replace(FAILED, waiting=WAITING_LITTLE), owners=NOBODY), topic=BEHIND),
        NO_RUN,
        "the last run failed, 2026-01-01 12:00 UTC: disk full",
    ),
    # what needs an operator
    stopped(
        "a failure that does not pass",
        snapshot(ledger=ledger(replace(FAILED, failure_stops=True)), topic=BEHIND),
        "the last run failed, 2026-01-01 12:00 UTC: disk full",
    ),
    stopped("a loss", snapshot(topic=survey(losses=[LOSS])), LOST),
    stopped("a loss, told once", snapshot(ledger=ledger(FAILED), topic=survey({0: 10, 1: 17}, [LOSS])), LOST),
    stopped("paused", snapshot(ledger=ledger(PAUSED)), PAUSE, health="200"),
    stopped("paused, with a loss", snapshot(ledger=ledger(PAUSED), topic=survey(losses=[LOSS])), LOST, PAUSE),
    stopped(
        "paused, and no run is missed",
        snapshot(
            ledger=ledger(replace(PAUSED, waiting=WAITS.waiting), owners=NOBODY),
            topic=BEHIND,
        ),
        PAUSE,
        BEHIND_BY,
        health="200",
    ),
    stopped(
        "a topic that is gone",
        snapshot(topic=TopicMissing("there is no topic reading")),
        "stream reading: the topic of its 2 positions is gone: there is no topic reading. Nothing was skipped. The"
        " stream stops until the topic is there again. If the topic was re-created: ingest accept-loss reading. If the"
        " settings name the wrong cluster, correct them",
    ),
    stopped("no right on the topic", snapshot(topic=NotPermitted("no right")), "no right"),
    stopped(
        "a ledger that contradicts the table",
        snapshot(ledger=LedgerConflict("restore both from one backup")),
        "restore both from one backup",
    ),
    # questions without an answer: neither stopped nor healthy
    unknown("no PostgreSQL", snapshot(ledger=DatabaseUnavailable("no server")), "unknown: no server"),
    unknown(
        "no free session", snapshot(ledger=DatabaseUnavailable("none free", sqlstate="53300")), "unknown: none free"
    ),
    unknown("a code that no table lists", snapshot(topic=UnknownFault("code 99")), "unknown: code 99"),
    unknown("no Kafka", snapshot(topic=NO_KAFKA), NO_KAFKA_WORDS),
    unknown("no Kafka for the records' times", snapshot(old_by_kafka=NO_KAFKA), NO_KAFKA_WORDS),
    unknown("no Kafka for both", snapshot(topic=NO_KAFKA, old_by_kafka=NO_KAFKA), NO_KAFKA_WORDS),
    unknown("no Kafka, and a silent sensor", snapshot(ledger=ledger(SILENT), topic=NO_KAFKA), NO_KAFKA_WORDS, SILENCE),
    unknown("positions not in time", snapshot(ledger=LATE), NOT_IN_TIME),
    unknown("accounting not in time", snapshot(accounting=LATE), NOT_IN_TIME),
    unknown("open letters not in time", snapshot(open_letters=LATE), NOT_IN_TIME),
    unknown(
        "reasons not in time",
        snapshot(open_letters=letters(2), letter_facts=LATE),
        NOT_IN_TIME,
        "2 open dead letters. To see them: ingest dead-letters list reading",
    ),
    stopped("a loss is graver", snapshot(ledger=ledger(losses=[LOSS]), topic=NO_KAFKA), LOST, NO_KAFKA_WORDS),
    stopped("a pause is graver", snapshot(ledger=ledger(PAUSED), topic=NO_KAFKA), PAUSE, NO_KAFKA_WORDS, health="200"),
]


def test_a_wait_and_a_silence_have_a_beginning() -> None:
    view = snapshot(ledger=ledger(replace(WAITS, ticked_at=NOW - HOUR), owners=NOBODY), topic=BEHIND)
    since = {problem.kind: problem.since for problem in judge(view).problems}
    waits_since = NOW - timedelta(seconds=400)
    assert since == {Kind.STUCK: waits_since, Kind.NO_RUN: waits_since, Kind.SILENT_SENSOR: NOW - HOUR}


@pytest.mark.parametrize("cause", [cause for cause in LossCause if cause.reuses_offsets])
def test_the_lag_of_another_log_is_unknown(cause: LossCause) -> None:
    """792 records wait behind a re-created topic, and the position stands behind its end."""
    status = judge(snapshot(topic=survey({0: 10, 1: 4}, [replace(LOSS, cause=cause)])))
    assert (status.lag, [row.lag for row in status.partitions]) == (None, [0, None])


def test_the_lag_behind_deleted_records_is_known() -> None:
    assert judge(snapshot(topic=survey({0: 10, 1: 30}, [LOSS]))).lag == 20


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_snapshot_has_one_judgement(case: Case) -> None:
    status = judge(case.snapshot)
    assert (status.level, status.messages) == (case.level, list(case.messages))
    assert _health([status])[0].split()[0] == case.health


def of_partitions(*names: str) -> Any:
    return lambda status: [getattr(row, name) for row in status.partitions for name in names]


NOT_KNOWN = {
    "positions": (snapshot(ledger=LATE), lambda status: [status.lag, status.open_letters, status.late]),
    "ends": (snapshot(topic=NO_KAFKA), lambda status: [status.lag, status.late]),
    "ends of partitions": (snapshot(topic=NO_KAFKA), of_partitions("end", "lag", "delay")),
    "records' times": (snapshot(old_by_kafka=NO_KAFKA), lambda status: [status.late]),
    "letters": (snapshot(open_letters=LATE), lambda status: [status.open_letters]),
    "letters of partitions": (snapshot(open_letters=LATE), of_partitions("refused", "open_letters")),
    "accounts": (snapshot(accounting=LATE), of_partitions("accounted")),
    "rates": (snapshot(), of_partitions("rows_per_second", "newest_at")),
}


@pytest.mark.parametrize(("view", "figures"), NOT_KNOWN.values(), ids=NOT_KNOWN)
def test_a_figure_without_an_answer_is_none(view: StreamSnapshot, figures: Any) -> None:
    assert set(figures(judge(view))) == {None}


def test_figures_without_lag_are_zero() -> None:
    status = judge(snapshot(rows_per_second={0: 2.5}))
    assert (status.lag, status.late, status.open_letters, status.paused) == (0, [], 0, False)
    assert [(row.delay, row.accounted, row.rows_per_second, row.owner) for row in status.partitions] == [
        (0.0, True, 2.5, RUN),
        (0.0, True, 0.0, RUN),
    ]


def test_a_stalled_stream_comes_before_an_unknown_stream() -> None:
    assert worst([]) == Level.HEALTHY
    assert worst([Level.HEALTHY, Level.DEGRADED]) == Level.DEGRADED
    assert worst([Level.DEGRADED, Level.UNKNOWN, Level.HEALTHY]) == Level.UNKNOWN
    assert worst([Level.UNKNOWN, Level.STOPPED]) == Level.STOPPED
