"""A stream's level and problems, as a function of its snapshot: no server, no clock."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ..core.errors import IngestError, NotPermitted, TopicMissing
from ..core.ledger import LedgerSnapshot, StreamState
from ..core.loss import Loss, command_to_accept, topic_gone
from ..core.start import Survey, unanswered_words
from . import lateness
from .levels import Level, judge_error
from .partition_status import PartitionStatus
from .problems import Kind, Problem, moment
from .refused_records import judge_letters
from .snapshot import StreamSnapshot, answered

_HIDDEN = "this role may not read the event table, so rows per second and the reasons of refused records are not shown"


@dataclass(frozen=True)
class StreamStatus:
    """A stream's state.

    Attributes:
        problems: the gravest first.
        remarks: sentences about a healthy state.
        open_letters: None: not known.
        ticked_at: the sensor's last tick, to the minute.
        late: the messages about records waiting for more than MAX_DELAY_SECONDS. None: not known.
    """

    stream: str
    problems: list[Problem] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    open_letters: int | None = None
    partitions: list[PartitionStatus] = field(default_factory=list)
    ticked_at: datetime | None = None
    late: list[str] | None = None

    @property
    def level(self) -> Level:
        return self.problems[0].level if self.problems else Level.HEALTHY

    @property
    def messages(self) -> list[str]:
        return [*(problem.message for problem in self.problems), *self.remarks]

    @property
    def paused(self) -> bool:
        """Whether an operator's pause is the only reason for the standstill."""
        return {problem.kind for problem in self.problems if problem.level == Level.STOPPED} == {Kind.PAUSED}

    @property
    def lag(self) -> int | None:
        lags = [partition.lag for partition in self.partitions]
        return None if not lags or None in lags else sum(lag or 0 for lag in lags)

    @property
    def lag_words(self) -> str:
        return "unknown" if self.lag is None else f"{self.lag:,}"


def judge(snapshot: StreamSnapshot) -> StreamStatus:
    stream, ledger = snapshot.stream, snapshot.ledger
    if isinstance(ledger, IngestError):
        return StreamStatus(stream.name, [_without_answer(ledger)])
    state, letters = ledger.state, answered(snapshot.open_letters)
    problems = list(dict.fromkeys(_problems(snapshot, ledger)))
    remarks = []
    if letters:
        of_letters = judge_letters(stream, letters, answered(snapshot.letter_facts), state)
        if isinstance(of_letters, Problem):
            problems.append(of_letters)
        else:
            remarks.append(of_letters)
    if any(isinstance(answer, NotPermitted) for answer in (snapshot.letter_facts, snapshot.rows_per_second)):
        remarks.append(_HIDDEN)
    if state.letters_allowed:
        remarks.append(f"the next {state.letters_allowed:,} dead letters do not count against the limit")
    return StreamStatus(
        stream.name,
        sorted(problems, key=lambda problem: problem.level.gravity, reverse=True),
        remarks,
        open_letters=None if letters is None else sum(row.letters for row in letters),
        partitions=list(snapshot.partitions),
        ticked_at=state.ticked_at,
        late=None if (late := _late(snapshot, ledger)) is None else [problem.message for problem in late],
    )


def paused_words(state: StreamState) -> str | None:
    """Why, by whom and since when the stream is paused. None: not paused."""
    if not state.paused or state.since is None:
        return None
    return f"{state.reason} ({state.paused_by}), since {moment(state.since)}"


def _problems(snapshot: StreamSnapshot, ledger: LedgerSnapshot) -> Iterator[Problem]:
    """In no order of gravity. The questions of operations/status.py, one after the other."""
    stream, state, topic, partitions = snapshot.stream, ledger.state, snapshot.topic, snapshot.partitions
    held_up = [*_of_answers(snapshot, ledger), *_losses(snapshot, ledger)]
    yield from held_up
    stands = any(problem.level == Level.STOPPED for problem in held_up)
    failed = [] if stands else list(_failed_run(state, partitions))
    yield from failed
    if (pause := paused_words(state)) is not None:
        yield Problem(Level.STOPPED, Kind.PAUSED, f"paused: {pause}. To go on: ingest resume {stream.name}")
        stands = True
    yield from _ledger_faults(partitions, ledger)
    if (behind := answered(snapshot.behind_group)) is not None:
        yield Problem(Level.DEGRADED, Kind.EARLIER_STATE, behind)
    if isinstance(topic, Survey) and topic.unanswered:
        yield Problem(Level.DEGRADED, Kind.NO_LEADER, unanswered_words(topic.unanswered))
    for message in lateness.silence(stream, state, snapshot.poll_seconds, snapshot.sensor_reason):
        yield Problem(Level.DEGRADED, Kind.SILENT_SENSOR, message, state.ticked_at)
    yield from _late(snapshot, ledger) or ()
    if not stands and not any(problem.level == Level.STOPPED for problem in failed):
        yield from _unattended(snapshot, state)


def _of_answers(snapshot: StreamSnapshot, ledger: LedgerSnapshot) -> Iterator[Problem]:
    """The problem of every question without an answer."""
    for answer in (
        snapshot.topic,
        snapshot.old_by_kafka,
        snapshot.accounting,
        snapshot.open_letters,
        snapshot.letter_facts,
    ):
        if isinstance(answer, TopicMissing) and ledger.positions:
            message = topic_gone(answer, len(ledger.positions), snapshot.stream.name).message
            yield Problem(Level.STOPPED, Kind.TOPIC_GONE, message)
        elif isinstance(answer, TopicMissing):
            yield Problem(Level.DEGRADED, Kind.NO_TOPIC, f"{answer.message}. The sensor waits for the topic")
        elif answer is snapshot.letter_facts and isinstance(answer, NotPermitted):
            continue  # the ledger answers the rest, and a remark says what is hidden
        elif isinstance(answer, IngestError):
            yield _without_answer(answer)


def _without_answer(error: IngestError) -> Problem:
    level, message = judge_error(error)
    return Problem(level, Kind.NO_ANSWER if level == Level.UNKNOWN else Kind.REFUSED_QUESTION, message)


def _losses(snapshot: StreamSnapshot, ledger: LedgerSnapshot) -> Iterator[Problem]:
    losses = snapshot.topic.losses if isinstance(snapshot.topic, Survey) else ledger.losses
    for loss in losses:
        yield Problem(Level.STOPPED, Kind.LOST, _lost(loss, snapshot.stream.name))


def _lost(loss: Loss, stream: str) -> str:
    since = "" if loss.found_at is None else f", found {moment(loss.found_at)}"
    return f"{loss.description}{since}. To go on: {command_to_accept(loss, stream)}"


def _failed_run(state: StreamState, partitions: Sequence[PartitionStatus]) -> Iterator[Problem]:
    """Why the newest failed run failed. Nothing once a position has moved or an operator has acted since."""
    failed_at = state.failed_at
    if failed_at is None or (state.acted_at is not None and state.acted_at > failed_at):
        return
    if any(row.lag and (row.committed_at is None or row.committed_at < failed_at) for row in partitions):
        level = Level.STOPPED if state.failure_stops else Level.DEGRADED
        yield Problem(level, Kind.FAILED_RUN, f"the last run failed, {moment(failed_at)}: {state.failure}")


def _ledger_faults(partitions: Sequence[PartitionStatus], ledger: LedgerSnapshot) -> Iterator[Problem]:
    for row in partitions:
        if row.accounted is False:
            message = f"partition {row.partition}: the ledger's counters, dead letters and gaps do not add up"
            yield Problem(Level.DEGRADED, Kind.LEDGER, message)
    for partition, owner in sorted(ledger.owners.holders.items()):
        if owner.frozen:
            message = f"partition {partition}: the owning run is frozen. The next run ends its session"
            yield Problem(Level.DEGRADED, Kind.FROZEN, message)


def _late(snapshot: StreamSnapshot, ledger: LedgerSnapshot) -> list[Problem] | None:
    """The problem of late records. None when Kafka did not answer."""
    old, allowed = answered(snapshot.old_by_kafka), snapshot.max_delay_seconds
    if old is None or not isinstance(snapshot.topic, Survey):
        return None
    partitions, old_partitions = snapshot.partitions, old.get(allowed, ())
    messages = lateness.late(partitions, old_partitions, allowed, ledger.state)
    moves = lateness.moves(partitions, old_partitions, allowed, ledger.state)
    expected = moves or ledger.state.paused
    level, kind = (Level.DEGRADED, Kind.LATE) if expected else (Level.STOPPED, Kind.STUCK)
    since = lateness.waits_since(partitions, old_partitions, allowed, ledger.state)
    return [Problem(level, kind, message, since) for message in messages]


def _unattended(snapshot: StreamSnapshot, state: StreamState) -> Iterator[Problem]:
    old = answered(snapshot.old_by_kafka)
    if old is None or not isinstance(snapshot.topic, Survey):
        return
    rows = [row for row in snapshot.partitions if row.owner is None]
    old_partitions = old.get(lateness.UNATTENDED_SECONDS, ())
    since = lateness.waits_since(rows, old_partitions, lateness.UNATTENDED_SECONDS, state)
    for message in lateness.unattended(snapshot.stream, rows, old_partitions, snapshot.sensor_reason):
        yield Problem(Level.STOPPED, Kind.NO_RUN, message, since)
