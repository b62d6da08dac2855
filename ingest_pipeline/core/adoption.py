"""ADOPT_GROUP: the offsets of another consumer group that a new stream takes over."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from .errors import AdoptionRefused
from .ports import Topic
from .record import NextOffset

_SHOWN = 10
"""A sentence lists up to this many partitions and counts the rest."""


@dataclass(frozen=True, slots=True)
class Adoption:
    """Offsets that a stream takes over from a group.

    Attributes:
        next_offsets: partition → the group's offset.
        without: partitions without an offset of the group. They follow START_FROM.
        expired: partition → first offset of the log, if the log no longer holds the group's offset.
    """

    group: str
    next_offsets: dict[int, NextOffset]
    without: list[int]
    expired: dict[int, int]

    def summary(self) -> str:
        """One line for people."""
        offsets = [f"partition {p} at {adopted.next_offset}" for p, adopted in self.next_offsets.items()]
        sentences = [f"group {self.group}: {listed(offsets)}"]
        if self.without:
            sentences.append(f"The group has no offset for partitions {listed(map(str, self.without))}")
            sentences[-1] += ", which follow START_FROM"
        if self.expired:
            gaps = [f"partition {partition} to {low - 1}" for partition, low in self.expired.items()]
            sentences.append(f"Kafka has already deleted offsets that the group had not read: {listed(gaps)}")
            sentences[-1] += ". ON_DATA_LOSS says what happens to them"
        return ". ".join(sentences)


def adoption(topic: Topic, group: str, *, partitions: Collection[int], stream: str, awaited: bool = False) -> Adoption:
    """The group's offsets for the partitions.

    An expired offset is taken over unchanged, and the stream reports the gap as a loss.

    Args:
        awaited: the topic was created after the stream first looked for it, so the group may have no offsets yet.

    Raises:
        AdoptionRefused: the group has no offset, or an offset beyond the log's end, or belongs to a stream of ours.
        TopicMissing, KafkaUnavailable, NotPermitted.
    """
    where = f"stream {stream}: ADOPT_GROUP names group {group}"
    offsets = {partition: offset for partition, offset in topic.group_offsets(group).items() if partition in partitions}
    if not offsets and not awaited:
        raise AdoptionRefused(
            f"{where}, which has no committed offset for any partition of topic {topic.name}: correct the group's name,"
            " or unset ADOPT_GROUP to begin at START_FROM. Nothing was read",
            stream=stream,
        )
    ledgers = {offset.ledger_id for offset in offsets.values() if offset.ledger_id}
    if ledgers:
        raise AdoptionRefused(
            f"{where}, whose offsets bear the mark of ledger {', '.join(sorted(ledgers))}. They may be older than that"
            " ledger's positions, so records would be stored twice: name the group of the consumer that this stream"
            " replaces, or unset ADOPT_GROUP. Nothing was read",
            stream=stream,
        )
    next_offsets = {partition: NextOffset(offset.next_offset) for partition, offset in sorted(offsets.items())}
    ends, starts = topic.high_watermarks(list(next_offsets)), topic.start_offsets(list(next_offsets))
    for partition, adopted in next_offsets.items():
        if partition in ends and adopted.next_offset > ends[partition].next_offset:
            raise AdoptionRefused(
                f"{where}, whose offset for partition {partition} of topic {topic.name} is {adopted.next_offset},"
                f" beyond the log's end at {ends[partition].next_offset}: the topic was re-created or cut. Reset the"
                " group's offsets with kafka-consumer-groups.sh, or unset ADOPT_GROUP. Nothing was read",
                stream=stream,
                partition=partition,
            )
    lows = {partition: start.next_offset for partition, start in starts.items()}
    expired = {partition: low for partition, low in lows.items() if next_offsets[partition].next_offset < low}
    return Adoption(group, next_offsets, sorted(set(partitions) - set(next_offsets)), expired)


def listed(words: Iterable[str]) -> str:
    words = list(words)
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return ", ".join(words[:_SHOWN]) + more
