"""Finds where a stream begins, and compares the topic with the ledger's positions."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from .adoption import adoption
from .errors import KafkaUnavailable, LedgerMissing
from .find_losses import find_losses, identity_losses
from .ledger import LedgerSnapshot
from .ledger_ports import Ledger
from .loss import Loss, as_error
from .ports import Topic
from .record import NextOffset, StoredPosition, TopicIdentity


@dataclass(frozen=True, slots=True)
class StartPolicy:
    """Decides where a stream without positions begins.

    Attributes:
        start_from: "earliest", "latest" or a time.
        adopt_group: a foreign consumer group whose offsets the stream takes over. Partitions without an offset of the
            group follow `start_from`.
    """

    start_from: str | datetime
    adopt_group: str | None
    group_id: str


@dataclass(frozen=True, slots=True)
class FirstLook:
    """What a run has read about a stream before the stream begins. The table is as declared, and the topic exists.

    Attributes:
        began_before: whether the ledger has a present or past position.
        ends: partition → end. Partitions whose leader did not answer are missing.
    """

    ledger: LedgerSnapshot
    began_before: bool
    identity: TopicIdentity
    ends: Mapping[int, NextOffset]


@dataclass(frozen=True, slots=True)
class Survey:
    """A topic compared with a stream's positions, at one moment.

    Attributes:
        ends: partition → end. Partitions whose leader did not answer are missing.
    """

    identity: TopicIdentity
    losses: list[Loss]
    ends: dict[int, NextOffset]
    unanswered: list[int]


def begin(
    topic: Topic,
    ledger: Ledger,
    *,
    policy: StartPolicy,
    stream: str,
    identity: TopicIdentity | None = None,
    look: FirstLook | None = None,
    warn: Callable[[str], None] = lambda line: None,
) -> dict[int, StoredPosition]:
    """Give every partition of the topic a position, and return the positions.

    All partitions of a new stream begin together, also across shards. A partition added later begins at its first
    offset, as does every partition of a re-created topic after `accept-loss` has closed all positions of the old topic.
    A partition whose leader does not answer gets no position yet:

    - If the partition begins at its first offset, the other partitions begin now.
    - If START_FROM is "latest" or a time, all partitions wait, because a later moment would give another offset.

    Args:
        identity: the topic's current identity. None: asks for the identity.
        look: read just before. None: asks the ledger for what is needed.
        warn: gets a line about offsets taken over from `adopt_group`.

    Raises:
        TopicMissing, TopicChanged, LedgerMissing, AdoptionRefused, KafkaUnavailable, DatabaseUnavailable.
    """
    identity = identity or topic.identity()
    positions = ledger.positions() if look is None else look.ledger.positions
    check_identity(identity, positions, topic.name, stream)
    while missing := sorted(set(range(identity.partitions)) - positions.keys()):
        if positions or (bool(ledger.accounting()) if look is None else look.began_before):
            starts = topic.start_offsets(missing)
        else:
            awaited = (ledger.state() if look is None else look.ledger.state).awaited
            starts = _first_offsets(
                topic, ledger, policy=policy, partitions=missing, stream=stream, awaited=awaited, warn=warn
            )
        # Another run may have begun the stream at other offsets.
        positions = ledger.begin(identity, starts, first=not positions) if starts else ledger.positions()
        check_identity(identity, positions, topic.name, stream)
        if starts.keys() < set(missing):
            if positions:
                return positions
            raise KafkaUnavailable(f"stream {stream}, topic {topic.name}: {unanswered_words(missing)}", stream=stream)
    if any(position.topic_id is None or position.cluster_id is None for position in positions.values()):
        ledger.adopt_identity(identity)
    return positions


def check_identity(identity: TopicIdentity, positions: Mapping[int, StoredPosition], topic: str, stream: str) -> None:
    """Raise TopicChanged if the positions belong to another topic."""
    losses = identity_losses(identity, topic, positions)
    if losses:
        raise as_error(losses, stream)


def survey(topic: Topic, ledger: Ledger) -> Survey:
    """Compare the topic with the stream's positions.

    Raises:
        TopicMissing, KafkaUnavailable, DatabaseUnavailable.
    """
    positions, noted = ledger.positions(), ledger.losses()
    identity = topic.identity()
    ends = topic.end_offsets(range(identity.partitions))
    return compare_ends(topic, identity, ends, positions=positions, noted=noted)


def compare_ends(
    topic: Topic,
    identity: TopicIdentity,
    ends: dict[int, NextOffset],
    *,
    positions: Mapping[int, StoredPosition],
    noted: Iterable[Loss],
) -> Survey:
    """Compare the topic's identity and ends with fresh positions and noted losses. Raises TopicMissing,
    KafkaUnavailable."""
    starts, highs = log_bounds(topic, positions, ends, positions)
    losses = find_losses(identity, topic.name, positions, noted=noted, starts=starts, highs=highs)
    return Survey(identity, losses, ends, unanswered(identity, ends))


def log_bounds(
    topic: Topic, positions: Mapping[int, StoredPosition], ends: Mapping[int, NextOffset], partitions: Iterable[int]
) -> tuple[dict[int, NextOffset], dict[int, NextOffset]]:
    """First offsets and high watermarks of partitions that have not been read to the end.

    A read_uncommitted reader stores records of open transactions, so its position may lie beyond a read_committed end.
    Such positions are compared with the high watermark, and do not look like a truncation.
    """
    unread, beyond = not_at_end(positions, ends, partitions)
    highs = {p: ends[p] for p in unread if p not in beyond}
    return (topic.start_offsets(unread), highs | topic.high_watermarks(beyond)) if unread else ({}, {})


def not_at_end(
    positions: Mapping[int, StoredPosition], ends: Mapping[int, NextOffset], partitions: Iterable[int]
) -> tuple[list[int], list[int]]:
    """Partitions whose position differs from the end, and of these the partitions with a position beyond the end."""
    next_offsets = {p: positions[p].next_offset for p in partitions if p in ends and p in positions}
    unread = [p for p, next_offset in next_offsets.items() if next_offset != ends[p].next_offset]
    return unread, [p for p in unread if next_offsets[p] > ends[p].next_offset]


def unanswered(identity: TopicIdentity, answers: Collection[int]) -> list[int]:
    return [partition for partition in range(identity.partitions) if partition not in answers]


def unanswered_words(partitions: Collection[int]) -> str:
    """The sentence for partitions whose leader did not answer."""
    numbers = ", ".join(map(str, sorted(partitions)))
    if len(partitions) == 1:
        return f"partition {numbers}: its leader does not answer, its state is unknown"
    return f"partitions {numbers}: their leaders do not answer, their state is unknown"


def _first_offsets(
    topic: Topic,
    ledger: Ledger,
    *,
    policy: StartPolicy,
    partitions: Collection[int],
    stream: str,
    awaited: bool,
    warn: Callable[[str], None],
) -> dict[int, NextOffset]:
    own_offsets = topic.group_offsets(policy.group_id)
    ledger_ids = {offset.ledger_id for offset in own_offsets.values() if offset.ledger_id}
    if ledger_ids:
        raise LedgerMissing(
            f"stream {stream}: group {policy.group_id} bears the mark of ledger {', '.join(sorted(ledger_ids))}, but"
            f" this database's ledger {ledger.ledger_id()} has no position for the stream. Restore that ledger"
            " (DATABASE_URL, LEDGER_SCHEMA). Or, to read the topic again from START_FROM, delete the group:"
            f" kafka-consumer-groups.sh --bootstrap-server HOST:PORT --delete --group {policy.group_id}",
            stream=stream,
        )
    starts: dict[int, NextOffset] = {}
    if policy.adopt_group:
        adopted = adoption(topic, policy.adopt_group, partitions=partitions, stream=stream, awaited=awaited)
        if adopted.next_offsets:
            warn(f"stream {stream} takes over offsets of {adopted.summary()}")
        starts |= adopted.next_offsets
    rest = [partition for partition in partitions if partition not in starts]
    if policy.start_from == "earliest" or awaited:
        return starts | topic.start_offsets(rest)
    if isinstance(policy.start_from, datetime):
        starts |= topic.offsets_at(rest, int(policy.start_from.timestamp() * 1000))
    else:
        starts |= topic.end_offsets(rest)
    if silent := set(partitions) - starts.keys():
        raise KafkaUnavailable(
            f"stream {stream}, topic {topic.name}: {unanswered_words(silent)}. START_FROM names one moment for all"
            " partitions, so the stream begins when all of them answer",
            stream=stream,
        )
    return starts
