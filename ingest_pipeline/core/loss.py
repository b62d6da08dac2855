"""What Kafka no longer holds of what the ledger expects next: told, named, and what going on would mean.

Holes inside the log (transaction markers, compaction) are no loss; these are: the log begins beyond the next offset,
ends before it, was cut and regrew, or the topic is another one than the ledger's positions are of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from .errors import DataLoss, KafkaUnavailable, TopicChanged, TopicMissing
from .record import NextOffset, StoredPosition, TopicIdentity

RETENTION, TRUNCATED, REWRITTEN, UNREADABLE = "retention", "truncated", "rewritten", "unreadable"
CLUSTER, TOPIC, RENAMED, PARTITIONS = "other cluster", "other topic", "renamed", "fewer partitions"
ANOTHER_TOPIC = (CLUSTER, TOPIC, RENAMED, PARTITIONS)


@dataclass(frozen=True, slots=True)
class Loss:
    """One partition's next offset that Kafka does not hold.

    Attributes:
        cause: one of this module's names.
        low, high: the log's bounds when it was found; None where nobody asked.
        description: what happened, in words.
        found_at: when it was first seen, where that is kept.
    """

    partition: int
    incarnation: int
    next_offset: int
    cause: str
    description: str
    low: int | None = None
    high: int | None = None
    found_at: datetime | None = field(default=None, compare=False)

    @property
    def offsets_used_again(self) -> bool:
        """Whether offsets that have been stored will come again with other records: only a new incarnation tells
        them apart."""
        return self.cause not in (RETENTION, UNREADABLE)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """An operator's word that a loss is borne, and the place to go on from; None closes the partition.

    Attributes:
        low: where the log begins, if that was asked.
    """

    loss: Loss
    resume_at: NextOffset | None
    low: int | None = None

    @property
    def new_incarnation(self) -> bool:
        """Whether offsets that have been stored will be stored again."""
        place = self.resume_at
        return self.loss.offsets_used_again or (place is not None and place.next_offset < self.loss.next_offset)

    @property
    def left_out(self) -> int:
        """Offsets of the log before the place where a new incarnation begins: lost as well."""
        if not self.new_incarnation or self.resume_at is None or self.low is None:
            return 0
        return max(0, self.resume_at.next_offset - self.low)


def bounds_loss(partition: int, incarnation: int, expected: int, low: int, high: int) -> Loss | None:
    """A next offset outside the log; None when it is inside or at its end."""
    if low <= expected <= high:
        return None
    return _loss(RETENTION if expected < low else TRUNCATED, partition, incarnation, expected, low, high)


def noted_loss(
    cause: str, partition: int, incarnation: int, expected: int, low: int, high: int, found_at: datetime | None = None
) -> Loss:
    """One that was found before, from what was kept of it."""
    return replace(_loss(cause, partition, incarnation, expected, low, high), found_at=found_at)


def data_loss(where: str, partition: int, expected: int, low: int, high: int, corrupt: bool = False) -> DataLoss:
    """What a reader found at its next offset. `.where` holds partition, offset, low, high and cause.

    Args:
        corrupt: the log holds the offset, and the client cannot read the record batch there.
    """
    within = UNREADABLE if corrupt else REWRITTEN
    cause = RETENTION if expected < low else TRUNCATED if expected > high else within
    found = _loss(cause, partition, 0, expected, low, high)
    return DataLoss(
        f"{where}, {found.description}. Nothing was skipped; the stream stops until an operator accepts the gap:"
        " ingest accept-loss",
        partition=partition,
        offset=expected,
        low=low,
        high=high,
        cause=cause,
    )


def identity_losses(identity: TopicIdentity, topic: str, known: Mapping[int, StoredPosition]) -> list[Loss]:
    """Positions that belong to another topic than this one. An id that either side lacks says nothing.

    Raises:
        KafkaUnavailable: the metadata shows fewer partitions under the same topic id. Kafka never takes a partition
            away, so the metadata is out of date.
    """
    found = []
    for partition, at in known.items():
        said = _another(identity, topic, at) or _no_partition(identity, partition, at, len(known))
        if said is not None:
            cause, words = said
            words += f"; partition {partition} stands at offset {at.next_offset} of the old one"
            found.append(Loss(partition, at.incarnation, at.next_offset, cause, words))
    return found


def as_error(losses: Sequence[Loss], stream: str) -> DataLoss | TopicChanged:
    """The error for these, of which there is at least one."""
    first = losses[0]
    kind = TopicChanged if first.cause in ANOTHER_TOPIC else DataLoss
    more = f" (and {len(losses) - 1} more partitions)" if len(losses) > 1 else ""
    return kind(
        f"stream {stream}: {first.description}{more}. Nothing was skipped; the stream stands still until an operator"
        f" accepts it: ingest accept-loss {stream}",
        stream=stream,
        partition=first.partition,
        offset=first.next_offset,
        low=first.low,
        high=first.high,
        cause=first.cause,
    )


def topic_gone(error: TopicMissing, positions: int, stream: str) -> TopicMissing:
    """The error for a stream that has begun: a topic that never was is only waited for."""
    return TopicMissing(
        f"stream {stream}: the topic of its {positions} positions is gone: {error.message}. Nothing was skipped; the"
        f" stream stands still until it is there again. Where it was re-created: ingest accept-loss {stream}; where the"
        " settings point at the wrong cluster, correct them",
        stream=stream,
    )


def unverified(verified: Mapping[int, int], reached: Mapping[int, int]) -> str:
    """What to add to a TopicChanged that a draining run meets: records it stored since it last saw the old topic.

    Args:
        verified, reached: partition → next offset, then and now.
    """
    found = [
        f"partition {partition} offsets {verified[partition]} to {now - 1}"
        for partition, now in sorted(reached.items())
        if verified.get(partition, now) < now
    ]
    if not found:
        return ""
    return f". Stored since it was last seen to be the old one: {', '.join(found)}; of the new topic they come again"


def find_losses(
    identity: TopicIdentity,
    topic: str,
    known: Mapping[int, StoredPosition],
    noted: Iterable[Loss],
    starts: Mapping[int, NextOffset],
    highs: Mapping[int, NextOffset],
) -> list[Loss]:
    """Every partition's loss, at most one each: another topic, what was noted before, or the log's bounds.

    Args:
        noted: found earlier, at the positions as they stand.
        starts, highs: the log's bounds: first offsets and high watermarks. A partition that is in only one of them is
            not compared, nor is one whose position was learned from a later leader than the one that answered: such a
            leader has been replaced and does not know it yet.
    """
    found = {loss.partition: loss for loss in noted}
    for partition in starts.keys() & highs.keys() & known.keys():
        at, top = known[partition], highs[partition]
        if at.leader_epoch is not None and top.leader_epoch is not None and top.leader_epoch < at.leader_epoch:
            continue
        low, high = starts[partition].next_offset, top.next_offset
        loss = bounds_loss(partition, at.incarnation, at.next_offset, low, high)
        if loss is not None:
            found.setdefault(partition, loss)
    found |= {loss.partition: loss for loss in identity_losses(identity, topic, known)}
    return [found[partition] for partition in sorted(found)]


def _another(identity: TopicIdentity, topic: str, at: StoredPosition) -> tuple[str, str] | None:
    if at.topic != topic:
        return RENAMED, f"the stream reads topic {topic}, its positions belong to topic {at.topic}"
    for cause, what, seen, stored in (
        (CLUSTER, "cluster", identity.cluster_id, at.cluster_id),
        (TOPIC, "topic", identity.topic_id, at.topic_id),
    ):
        if seen is not None and stored is not None and seen != stored:
            return cause, (
                f"topic {topic} has {what} id {seen}, its positions belong to {stored}:"
                f" the {what} is another one of the same name"
            )
    return None


def _no_partition(identity: TopicIdentity, partition: int, at: StoredPosition, known: int) -> tuple[str, str] | None:
    if partition < identity.partitions:
        return None
    if identity.topic_id is not None and identity.topic_id == at.topic_id:
        raise KafkaUnavailable(
            f"topic {at.topic}: a broker shows {identity.partitions} partitions and the ledger has a position for"
            f" partition {partition} under the same topic id: the broker's metadata is out of date, it is asked again",
            partition=partition,
        )
    return PARTITIONS, (f"the topic has {identity.partitions} partitions, the ledger knows {known}: it was re-created")


def _loss(cause: str, partition: int, incarnation: int, expected: int, low: int, high: int) -> Loss:
    words = {
        RETENTION: f"offsets {expected} to {low - 1} were deleted before they were read",
        TRUNCATED: f"the log ended at {high}, before the next offset {expected}: it was cut or re-created",
        UNREADABLE: f"the record batch at offset {expected} is corrupt, the client cannot read it",
        REWRITTEN: f"what stood before offset {expected} was replaced: the log was cut and regrew",
    }[cause]
    said = f"partition {partition}: {words} (the log held {low} to {high})"
    return Loss(partition, incarnation, expected, cause, said, low, high)
