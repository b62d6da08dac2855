"""What is wrong with a stream: a kind for alerts, a message for people, and what to do."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from ..core.ledger import StreamState
from ..core.stream import Stream
from .levels import Level
from .names import sensor_name


class Kind(StrEnum):
    """Problems of the same kind are a single piece of news, with any figures."""

    LOST = "lost records"
    TOPIC_GONE = "topic gone"
    REFUSED_QUESTION = "refused question"
    FAILED_RUN = "failed run"
    PAUSED = "paused"
    NO_RUN = "no run"
    STUCK = "stuck"
    NO_ANSWER = "no answer"
    NO_TOPIC = "no topic"
    NO_LEADER = "no leader"
    LEDGER = "ledger"
    EARLIER_STATE = "earlier state"
    FROZEN = "frozen run"
    SILENT_SENSOR = "silent sensor"
    LATE = "late"
    MOSTLY_REFUSED = "mostly refused records"
    REFUSED_RECORDS = "refused records"


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault.

    Attributes:
        message: one line, with the remedy if only one exists.
        since: since when records wait, or the sensor is silent. None: the fault began when somebody first saw the
            fault.
    """

    level: Level
    kind: Kind
    message: str
    since: datetime | None = None


def remedy(problem: Problem, stream: Stream) -> str:
    """What to do, in one line."""
    name, sensor = stream.name, sensor_name(stream.job)
    try_again = "The sensor tries again by itself. `ingest check` tries every server, table and right."
    if problem.kind == Kind.FAILED_RUN and problem.level == Level.STOPPED:
        return f"Do what the message says, then see `ingest status {name}`."
    return {
        Kind.LOST: f"`ingest accept-loss {name}` shows the range, and asks or says what it needs.",
        Kind.TOPIC_GONE: f"Restore the topic, or run `ingest accept-loss {name}` after it was re-created.",
        Kind.REFUSED_QUESTION: "Do what the message says. `ingest check` tries every server, table and right.",
        Kind.FAILED_RUN: try_again,
        Kind.PAUSED: f"`ingest resume {name}` lets it go on.",
        Kind.NO_RUN: f"Switch {sensor} on, start Dagster's daemon, or read why its last tick launched no run.",
        Kind.STUCK: f"`ingest status {name}` names the owner or the last failure. The run's log says what it retries.",
        Kind.NO_ANSWER: try_again,
        Kind.NO_TOPIC: "Create the topic, or correct its name.",
        Kind.NO_LEADER: "Start the partition's broker. The partition continues at its position.",
        Kind.LEDGER: "Look at the view accounting and at the check every_offset_accounted_for.",
        Kind.EARLIER_STATE: "Nothing for this stream: the next run reads the records again.",
        Kind.FROZEN: "Nothing: the next run ends the frozen session.",
        Kind.SILENT_SENSOR: f"Switch {sensor} on, or start Dagster's daemon.",
        Kind.LATE: f"`ingest status {name}` names the partitions. A backlog shrinks faster with PARALLELISM.",
        Kind.MOSTLY_REFUSED: f"Correct the producer or the declaration. `ingest dead-letters list {name}` shows them.",
        Kind.REFUSED_RECORDS: f"Redrive or discard them, or run `ingest dead-letters acknowledge {name}`.",
    }[problem.kind]


def what_follows(stream: Stream, state: StreamState) -> str:
    """When the stream goes on after an operator has acted."""
    if state.paused:
        return f"{stream.name} stays paused until `ingest resume {stream.name}`"
    return f"{sensor_name(stream.job)} launches a run within seconds, if it is on"


def moment(time: datetime) -> str:
    """For people, to the minute."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
