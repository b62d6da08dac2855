"""Data loss: Kafka no longer holds the next offset that the ledger expects. Values and errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from .errors import DataLoss, TopicChanged, TopicMissing
from .record import NextOffset


class LossCause(StrEnum):
    """Why Kafka does not hold a next offset, as stored in the ledger."""

    RETENTION = "retention"
    TRUNCATED = "truncated"
    REWRITTEN = "rewritten"
    UNREADABLE = "unreadable"
    CLUSTER = "other cluster"
    TOPIC = "other topic"
    RENAMED = "renamed"
    PARTITIONS = "fewer partitions"

    @property
    def is_another_topic(self) -> bool:
        return self in (LossCause.CLUSTER, LossCause.TOPIC, LossCause.RENAMED, LossCause.PARTITIONS)

    @property
    def reuses_offsets(self) -> bool:
        """Whether stored offsets can return with other records. A new incarnation then keeps the rows apart."""
        return self not in (LossCause.RETENTION, LossCause.UNREADABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A partition's next offset is missing in Kafka.

    Attributes:
        description: one sentence for people.
        low, high: the log's bounds when the loss was first seen. None: the bounds were not compared.
        found_at: when the ledger recorded the loss. None: not recorded yet.
    """

    partition: int
    incarnation: int
    next_offset: int
    cause: LossCause
    description: str
    low: int | None = None
    high: int | None = None
    found_at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """An operator accepts a loss.

    Attributes:
        resume_at: where reading resumes. None closes the partition.
        low: where the log begins. None: not asked.
    """

    loss: Loss
    resume_at: NextOffset | None
    low: int | None = None

    @property
    def new_incarnation(self) -> bool:
        """Whether stored offsets will be stored again."""
        resume_at = self.resume_at
        goes_back = resume_at is not None and resume_at.next_offset < self.loss.next_offset
        return self.loss.cause.reuses_offsets or goes_back

    @property
    def left_out(self) -> int:
        """Lost offsets between the log's beginning and the start of a new incarnation."""
        if not self.new_incarnation or self.resume_at is None or self.low is None:
            return 0
        return max(0, self.resume_at.next_offset - self.low)


def noted_loss(
    *,
    cause: str,
    partition: int,
    incarnation: int,
    expected: int,
    low: int,
    high: int,
    found_at: datetime | None = None,
) -> Loss:
    """A loss inside one topic, from the values in the ledger or in an error."""
    kind = LossCause(cause)
    words = {
        LossCause.RETENTION: f"offsets {expected} to {low - 1} were deleted before they were read",
        LossCause.TRUNCATED: f"the log ended at {high}, before the next offset {expected}: it was cut or re-created",
        LossCause.UNREADABLE: f"the record batch at offset {expected} is corrupt, the client cannot read it",
        LossCause.REWRITTEN: f"the records before offset {expected} were replaced: the log was cut and regrew",
    }[kind]
    return Loss(
        partition=partition,
        incarnation=incarnation,
        next_offset=expected,
        cause=kind,
        description=f"partition {partition}: {words} (the log held {low} to {high})",
        low=low,
        high=high,
        found_at=found_at,
    )


def command_to_accept(loss: Loss, stream: str) -> str:
    """What an operator types. Only an operator can tell where an unreadable batch ends."""
    command = f"ingest accept-loss {stream}"
    if loss.cause != LossCause.UNREADABLE:
        return command
    return f"{command} --partition {loss.partition} --from OFFSET, the offset behind the batch"


def cause_outside(expected: int, low: int, high: int) -> LossCause | None:
    """The cause if a next offset is outside the log. A next offset at the log's end is inside."""
    if low <= expected <= high:
        return None
    return LossCause.RETENTION if expected < low else LossCause.TRUNCATED


def data_loss(where: str, *, partition: int, expected: int, low: int, high: int, corrupt: bool = False) -> DataLoss:
    """The error of a reader whose next offset is missing. `.where` holds partition, offset, low, high and cause.

    Args:
        corrupt: the log holds the offset, but the client cannot read the record batch there.
    """
    cause = cause_outside(expected, low, high) or (LossCause.UNREADABLE if corrupt else LossCause.REWRITTEN)
    loss = noted_loss(cause=cause, partition=partition, incarnation=0, expected=expected, low=low, high=high)
    return DataLoss(
        f"{where}, {loss.description}. Nothing was skipped. The stream stops until an operator accepts the gap:"
        " ingest accept-loss STREAM",
        partition=partition,
        offset=expected,
        low=low,
        high=high,
        cause=cause,
    )


def as_error(losses: Sequence[Loss], stream: str) -> DataLoss | TopicChanged:
    first = losses[0]
    kind = TopicChanged if first.cause.is_another_topic else DataLoss
    more = f" (and {len(losses) - 1} more partitions)" if len(losses) > 1 else ""
    return kind(
        f"stream {stream}: {first.description}{more}. Nothing was skipped. The stream stops until an operator accepts"
        f" the loss: {command_to_accept(first, stream)}",
        stream=stream,
        partition=first.partition,
        offset=first.next_offset,
        low=first.low,
        high=first.high,
        cause=first.cause,
    )


def topic_gone(error: TopicMissing, positions: int, stream: str) -> TopicMissing:
    """The error for a stream with positions but no topic. A stream without positions waits for the topic."""
    return TopicMissing(
        f"stream {stream}: the topic of its {positions} positions is gone: {error.message}. Nothing was skipped. The"
        f" stream stops until the topic is there again. If the topic was re-created: ingest accept-loss {stream}. If"
        " the settings name the wrong cluster, correct them",
        stream=stream,
    )


def unverified(verified: Mapping[int, int], reached: Mapping[int, int]) -> str:
    """The sentence in a TopicChanged about records that were stored since the run last saw the old topic. `verified`
    and `reached`: partition → next offset, then and now."""
    ranges = [
        f"partition {partition} offsets {verified[partition]} to {now - 1}"
        for partition, now in sorted(reached.items())
        if verified.get(partition, now) < now
    ]
    if not ranges:
        return ""
    return (
        f". Stored since the old topic was last seen: {', '.join(ranges)}. Records of the new topic among them will be"
        " stored again"
    )
