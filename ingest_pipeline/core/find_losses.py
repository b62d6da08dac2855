"""Compares a stream's positions with its topic.

Holes inside the log (transaction markers, compaction) are no loss. Three cases are a loss:

- The log begins behind the next offset, or ends before it.
- The log was truncated and has grown again.
- The positions in the ledger belong to another topic.
"""

from collections.abc import Iterable, Mapping

from .errors import KafkaUnavailable
from .loss import Loss, LossCause, cause_outside, noted_loss
from .record import NextOffset, StoredPosition, TopicIdentity


def find_losses(
    identity: TopicIdentity,
    topic: str,
    positions: Mapping[int, StoredPosition],
    *,
    noted: Iterable[Loss],
    starts: Mapping[int, NextOffset],
    highs: Mapping[int, NextOffset],
) -> list[Loss]:
    """At most one loss per partition. Another topic comes first, then a noted loss, then the log's bounds.

    Args:
        noted: losses that the ledger recorded at the current positions.
        starts, highs: first offsets and high watermarks. A partition without both is not compared. A partition whose
            position has a later leader epoch is not compared either, because a replaced leader answered.
    """
    losses = {loss.partition: loss for loss in noted}
    for partition in starts.keys() & highs.keys() & positions.keys():
        position, high = positions[partition], highs[partition]
        epoch, answered_epoch = position.leader_epoch, high.leader_epoch
        if epoch is not None and answered_epoch is not None and answered_epoch < epoch:
            continue
        expected, bounds = position.next_offset, (starts[partition].next_offset, high.next_offset)
        if partition not in losses and (cause := cause_outside(expected, *bounds)) is not None:
            losses[partition] = noted_loss(
                cause=cause,
                partition=partition,
                incarnation=position.incarnation,
                expected=expected,
                low=bounds[0],
                high=bounds[1],
            )
    losses |= {loss.partition: loss for loss in identity_losses(identity, topic, positions)}
    return [losses[partition] for partition in sorted(losses)]


def identity_losses(identity: TopicIdentity, topic: str, positions: Mapping[int, StoredPosition]) -> list[Loss]:
    """Losses of positions that belong to another topic. An id that either side lacks is not compared.

    Raises:
        KafkaUnavailable: the metadata shows fewer partitions under the same topic id. Kafka never removes partitions,
            so the metadata is stale.
    """
    losses = []
    for partition, position in positions.items():
        difference = _another_topic(identity, topic, position)
        difference = difference or _no_partition(identity, partition, position, len(positions))
        if difference is not None:
            cause, words = difference
            words += f". Partition {partition} is at offset {position.next_offset} of the old topic"
            losses.append(
                Loss(
                    partition=partition,
                    incarnation=position.incarnation,
                    next_offset=position.next_offset,
                    cause=cause,
                    description=words,
                )
            )
    return losses


def _another_topic(identity: TopicIdentity, topic: str, position: StoredPosition) -> tuple[LossCause, str] | None:
    if position.topic != topic:
        return LossCause.RENAMED, f"the stream reads topic {topic}, its positions belong to topic {position.topic}"
    for cause, what, current, stored in (
        (LossCause.CLUSTER, "cluster", identity.cluster_id, position.cluster_id),
        (LossCause.TOPIC, "topic", identity.topic_id, position.topic_id),
    ):
        if current is not None and stored is not None and current != stored:
            return cause, (
                f"topic {topic} has {what} id {current}, its positions belong to {stored}:"
                f" the {what} is another one of the same name"
            )
    return None


def _no_partition(
    identity: TopicIdentity, partition: int, position: StoredPosition, positions: int
) -> tuple[LossCause, str] | None:
    if partition < identity.partitions:
        return None
    if identity.topic_id is not None and identity.topic_id == position.topic_id:
        raise KafkaUnavailable(
            f"topic {position.topic}: a broker shows {identity.partitions} partitions, but the ledger has a position"
            f" for partition {partition} under the same topic id: the broker's metadata is out of date and is asked for"
            " again",
            partition=partition,
        )
    return LossCause.PARTITIONS, (
        f"the topic has {identity.partitions} partitions, the ledger knows {positions}: it was re-created"
    )
