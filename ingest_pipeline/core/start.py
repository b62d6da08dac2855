"""Where a stream begins, and whether the topic is still the one whose positions the ledger holds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from .adoption import adoption
from .errors import KafkaUnavailable, LedgerMissing
from .loss import Loss, as_error, find_losses, identity_losses
from .ports import Ledger, Topic
from .record import NextOffset, StoredPosition, TopicIdentity


@dataclass(frozen=True, slots=True)
class StartPolicy:
    """Where a stream that has no position begins.

    Attributes:
        start_from: "earliest", "latest" or a time.
        adopt_group: a foreign consumer group whose offsets to take over. Partitions without one follow `start_from`.
        group_id: our own group.
    """

    start_from: str | datetime
    adopt_group: str | None
    group_id: str


@dataclass(frozen=True, slots=True)
class Survey:
    """A topic compared with a stream's positions, at one moment.

    Attributes:
        ends: partition → end, of the partitions whose leader answered.
        unanswered: the other partitions of the topic. Nothing is known of them.
    """

    identity: TopicIdentity
    losses: list[Loss]
    ends: dict[int, NextOffset]
    unanswered: list[int]


def begin(
    topic: Topic, ledger: Ledger, policy: StartPolicy, stream: str, tell: Callable[[str], None] = lambda line: None
) -> dict[int, StoredPosition]:
    """Give every partition of the topic a position, and return the positions.

    The partitions of a new stream begin together, whatever the shard, and a partition that is added later begins at its
    beginning. A partition whose leader does not answer has no position yet:

    - Where it will begin at its beginning, the others begin now and it begins as soon as its leader answers.
    - Where START_FROM is "latest" or a time, the stream waits: a later moment would be another place.

    Args:
        tell: called with one line about the offsets that the stream takes over from `adopt_group`.

    Raises:
        TopicMissing, TopicChanged, LedgerMissing, AdoptionRefused, KafkaUnavailable, DatabaseUnavailable.
    """
    while True:
        identity = topic.identity()
        known = ledger.positions()
        check_identity(identity, known, topic.name, stream)
        missing = sorted(set(range(identity.partitions)) - set(known))
        places = topic.start_offsets(missing) if known else _first_places(topic, ledger, policy, missing, stream, tell)
        if places:
            ledger.begin(identity, places, first=not known)
        if places.keys() >= set(missing):
            if missing:
                continue  # another run may have begun the stream meanwhile, elsewhere
            if any(at.topic_id is None or at.cluster_id is None for at in known.values()):
                ledger.adopt_identity(identity)
            return known
        if begun := ledger.positions():
            return begun
        raise KafkaUnavailable(f"stream {stream}, topic {topic.name}: {unanswered_words(missing)}", stream=stream)


def check_identity(identity: TopicIdentity, known: Mapping[int, StoredPosition], topic: str, stream: str) -> None:
    """Raise TopicChanged when the positions belong to another topic. An id that either side lacks says nothing."""
    losses = identity_losses(identity, topic, known)
    if losses:
        raise as_error(losses, stream)


def survey(topic: Topic, ledger: Ledger) -> Survey:
    """The topic as it is, and what it does not hold of what the positions expect.

    Raises:
        TopicMissing, KafkaUnavailable, DatabaseUnavailable.
    """
    return compare(topic, ledger.positions(), ledger.losses())


def compare(topic: Topic, positions: Mapping[int, StoredPosition], noted: Iterable[Loss]) -> Survey:
    """The same for positions and noted losses that were just read. Raises TopicMissing, KafkaUnavailable."""
    identity, known = topic.identity(), positions
    ends = topic.end_offsets(range(identity.partitions))
    starts, highs = log_bounds(topic, known, ends, known)
    losses = find_losses(identity, topic.name, known, noted, starts, highs)
    return Survey(identity, losses, ends, unanswered(identity, ends))


def log_bounds(
    topic: Topic, known: Mapping[int, StoredPosition], ends: Mapping[int, NextOffset], partitions: Iterable[int]
) -> tuple[dict[int, NextOffset], dict[int, NextOffset]]:
    """First offsets and high watermarks to compare these partitions' positions with, where they are not at the end.

    The high watermark is asked for where a position lies beyond the end: what an open transaction holds back has been
    stored by a read_uncommitted reader, and is no truncation.
    """
    behind = [p for p in partitions if p in ends and p in known and known[p].next_offset != ends[p].next_offset]
    beyond = [p for p in behind if known[p].next_offset > ends[p].next_offset]
    highs = {p: ends[p] for p in behind if p not in beyond}
    return (topic.start_offsets(behind), highs | topic.high_watermarks(beyond)) if behind else ({}, {})


def unanswered(identity: TopicIdentity, answers: Collection[int]) -> list[int]:
    """The topic's partitions that an answer leaves out."""
    return [partition for partition in range(identity.partitions) if partition not in answers]


def unanswered_words(partitions: Collection[int]) -> str:
    """What to tell people of partitions whose leader did not answer."""
    numbers = ", ".join(map(str, sorted(partitions)))
    if len(partitions) == 1:
        return f"partition {numbers}: its leader does not answer, its state is unknown"
    return f"partitions {numbers}: their leaders do not answer, their state is unknown"


def _first_places(
    topic: Topic,
    ledger: Ledger,
    policy: StartPolicy,
    partitions: Collection[int],
    stream: str,
    tell: Callable[[str], None],
) -> dict[int, NextOffset]:
    ours = topic.group_offsets(policy.group_id)
    marks = {offset.ledger_id for offset in ours.values() if offset.ledger_id}
    if marks:
        ids = ", ".join(sorted(marks))
        raise LedgerMissing(
            f"stream {stream}: group {policy.group_id} bears the mark of ledger {ids}, but this database's ledger"
            f" {ledger.ledger_id()} has no position for the stream. Restore that ledger (DATABASE_URL, LEDGER_SCHEMA);"
            f" or, to read the topic again from START_FROM, delete the group: kafka-consumer-groups.sh --delete --group"
            f" {policy.group_id}",
            stream=stream,
        )
    awaited = ledger.was_awaited()
    places: dict[int, NextOffset] = {}
    if policy.adopt_group:
        adopted = adoption(topic, policy.adopt_group, partitions, stream, awaited)
        if adopted.places:
            tell(f"stream {stream} takes over offsets of {adopted.summary()}")
        places |= adopted.places
    rest = [partition for partition in partitions if partition not in places]
    if policy.start_from == "earliest" or awaited:
        return places | topic.start_offsets(rest)
    if isinstance(policy.start_from, datetime):
        places |= topic.offsets_at(rest, int(policy.start_from.timestamp() * 1000))
    else:
        places |= topic.end_offsets(rest)
    if silent := set(partitions) - places.keys():
        raise KafkaUnavailable(
            f"stream {stream}, topic {topic.name}: {unanswered_words(silent)}. START_FROM names one moment for all"
            " partitions, so the stream begins when all of them answer",
            stream=stream,
        )
    return places
