"""A stream's level and messages, as a function of its snapshot: no server, no clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ..core.errors import IngestError, TopicMissing
from ..core.ledger import LedgerSnapshot, StreamState
from ..core.loss import Loss, topic_gone
from ..core.start import Survey, unanswered_words
from . import lateness
from .levels import Level, judge_error
from .partition_status import PartitionStatus
from .snapshot import NotAsked, StreamSnapshot, answered


@dataclass(frozen=True)
class StreamStatus:
    """A stream's state.

    Attributes:
        messages: a sentence for every fault, the gravest first.
        open_letters: None: not known.
        ticked_at: the sensor's last tick, to the minute.
        late: the messages about records waiting for more than MAX_DELAY_SECONDS. None: not known.
        paused: an operator's pause is the only reason for the standstill.
    """

    stream: str
    level: Level
    messages: list[str]
    open_letters: int | None = None
    partitions: list[PartitionStatus] = field(default_factory=list)
    ticked_at: datetime | None = None
    late: list[str] | None = None
    paused: bool = False

    @property
    def lag(self) -> int | None:
        lags = [partition.lag for partition in self.partitions]
        return None if not lags or None in lags else sum(lag or 0 for lag in lags)


def judge(snapshot: StreamSnapshot) -> StreamStatus:
    """A stream's status. Its level is the gravest level with a message."""
    stream, ledger, topic = snapshot.stream, snapshot.ledger, snapshot.topic
    if isinstance(ledger, IngestError):
        level, message = judge_error(ledger)
        return StreamStatus(stream.name, level, [message])
    state, partitions = ledger.state, snapshot.partitions
    late, unattended = _waiting_records(snapshot, partitions, state)
    no_answer = {level: [text for of, text in _without_answer(snapshot, ledger) if of == level] for level in Level}
    losses = topic.losses if isinstance(topic, Survey) else ledger.losses
    held_up = [*no_answer[Level.STOPPED], *(_lost(loss, stream.name) for loss in losses)]
    failed = [] if held_up else _failed_run(state, partitions)
    if state.failure_stops:
        held_up, failed = held_up + failed, []
    pause = paused_words(state)
    stopped = held_up + ([] if pause is None else [f"paused: {pause}; to go on: ingest resume {stream.name}"])
    letters = answered(snapshot.open_letters)
    open_letters = None if letters is None else sum(row.letters for row in letters)
    messages = {
        Level.STOPPED: stopped,
        Level.UNKNOWN: no_answer[Level.UNKNOWN],
        Level.DEGRADED: [
            *no_answer[Level.DEGRADED],
            *_ledger_faults(partitions, ledger),
            *([unanswered_words(topic.unanswered)] if isinstance(topic, Survey) and topic.unanswered else []),
            *lateness.silence(stream, state, snapshot.poll_seconds),
            *failed,
            *(late or []),
            *([] if stopped else unattended),
        ],
    }
    if open_letters:
        reasons = answered(snapshot.letter_reasons) or f"{open_letters:,} open dead letters"
        messages[Level.DEGRADED].append(f"{reasons}. To see them: ingest dead-letters list {stream.name}")
    remarks = []
    if state.letters_allowed:
        remarks.append(f"the next {state.letters_allowed:,} dead letters do not count against the limit")
    return StreamStatus(
        stream.name,
        next((level for level, texts in messages.items() if texts), Level.HEALTHY),
        [text for texts in (*messages.values(), remarks) for text in texts],
        open_letters=open_letters,
        partitions=list(partitions),
        ticked_at=state.ticked_at,
        late=late,
        paused=state.paused and not held_up,
    )


def paused_words(state: StreamState) -> str | None:
    """Why, by whom and since when the stream is paused. None: not paused."""
    if not state.paused or state.since is None:
        return None
    return f"{state.reason} ({state.paused_by}), since {_moment(state.since)}"


def _without_answer(snapshot: StreamSnapshot, ledger: LedgerSnapshot) -> Iterator[tuple[Level, str]]:
    """(level, message) of every question without an answer."""
    for answer in (
        snapshot.topic,
        snapshot.old_by_kafka,
        snapshot.accounting,
        snapshot.newest_at,
        snapshot.rows_per_second,
        snapshot.open_letters,
        snapshot.letter_reasons,
    ):
        if isinstance(answer, NotAsked):
            yield Level.UNKNOWN, f"unknown: {answer.reason}"
        elif isinstance(answer, TopicMissing) and ledger.positions:
            yield Level.STOPPED, topic_gone(answer, len(ledger.positions), snapshot.stream.name).message
        elif isinstance(answer, TopicMissing):
            yield Level.DEGRADED, f"{answer.message}; the sensor waits for it"
        elif isinstance(answer, IngestError):
            yield judge_error(answer)


def _lost(loss: Loss, stream: str) -> str:
    since = "" if loss.found_at is None else f", found {_moment(loss.found_at)}"
    return f"{loss.description}{since}; to go on: ingest accept-loss {stream}"


def _failed_run(state: StreamState, partitions: Sequence[PartitionStatus]) -> list[str]:
    """Why the newest failed run failed. Nothing once a position has moved or an operator has acted since."""
    failed_at = state.failed_at
    if failed_at is None or (state.acted_at is not None and state.acted_at > failed_at):
        return []
    if not any(row.lag and (row.committed_at is None or row.committed_at < failed_at) for row in partitions):
        return []
    return [f"the last run failed, {_moment(failed_at)}: {state.failure}"]


def _ledger_faults(partitions: Sequence[PartitionStatus], ledger: LedgerSnapshot) -> Iterator[str]:
    for row in partitions:
        if row.accounted is False:
            yield f"partition {row.partition}: the ledger's counters, dead letters and gaps do not add up"
    for partition, owner in sorted(ledger.owners.holders.items()):
        if owner.frozen:
            yield f"partition {partition}: the owning run is frozen; the next one ends its session"


def _waiting_records(
    snapshot: StreamSnapshot, partitions: Sequence[PartitionStatus], state: StreamState
) -> tuple[list[str] | None, list[str]]:
    """The messages about late records, and about records without a run. (None, []) when Kafka did not answer."""
    old, allowed = answered(snapshot.old_by_kafka), snapshot.max_delay_seconds
    if old is None or not isinstance(snapshot.topic, Survey):
        return None, []
    unattended = lateness.unattended(snapshot.stream, partitions, old.get(lateness.UNATTENDED_SECONDS, ()))
    return lateness.late(partitions, old.get(allowed, ()), allowed, state), unattended


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
