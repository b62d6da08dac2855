"""Where a stream begins, and whether the topic is still the one whose positions the ledger holds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from .adoption import adoption
from .errors import LedgerMissing
from .loss import Loss, Standing, as_error, find_losses, identity_losses
from .ports import Topic
from .record import Place, TopicIdentity


@dataclass(frozen=True, slots=True)
class StoredPosition:
    """One partition's row in the ledger, as anybody may read it. `updated_at` is when rows last moved it."""

    partition: int
    incarnation: int
    topic: str
    cluster_id: str | None
    topic_id: str | None
    first_offset: int
    next_offset: int
    leader_epoch: int | None
    rows: int
    dead_letters: int
    skipped: int
    absent: int
    lost: int
    updated_at: datetime
    run_id: str | None


class Book(Protocol):
    """The ledger as read and begun from outside a run."""

    def positions(self) -> dict[int, StoredPosition]:
        """Partition → row; empty when the stream has not begun or there is no ledger."""

    def begin(self, identity: TopicIdentity, places: Mapping[int, Place], first: bool) -> bool:
        """Store positions for these partitions in one transaction. False, and nothing stored, when `first` and another
        run has begun the stream meanwhile."""

    def adopt_identity(self, identity: TopicIdentity) -> None:
        """Fill in ids that were not known when the stream began."""

    def ledger_id(self) -> str: ...
    def losses(self) -> list[Loss]:
        """What was found missing at the positions as they stand now, and is not accepted yet."""

    def note_loss(self, loss: Loss) -> None:
        """Keep what was found first: the log's bounds may say something else by the time somebody looks."""

    def was_awaited(self) -> bool:
        """Whether the topic was looked for before it existed."""


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


def begin(
    topic: Topic, book: Book, policy: StartPolicy, stream: str, tell: Callable[[str], None] = lambda line: None
) -> dict[int, StoredPosition]:
    """Make sure that every partition of the topic has a position, and return them all.

    All partitions of a new stream begin together, whatever the shard; one added later begins at its beginning.

    Args:
        tell: called with one line about the offsets that the stream takes over from `adopt_group`.

    Raises:
        TopicMissing, TopicChanged, LedgerMissing, AdoptionRefused, KafkaUnavailable, DatabaseUnavailable.
    """
    while True:
        identity = topic.identity()
        known = book.positions()
        check_identity(identity, known, topic.name, stream)
        missing = sorted(set(range(identity.partitions)) - set(known))
        if not missing:
            if any(at.topic_id is None or at.cluster_id is None for at in known.values()):
                book.adopt_identity(identity)
            return known
        places = topic.start_offsets(missing) if known else _first_places(topic, book, policy, missing, stream, tell)
        book.begin(identity, places, first=not known)


def check_identity(identity: TopicIdentity, known: Mapping[int, StoredPosition], topic: str, stream: str) -> None:
    """Raise TopicChanged when the positions belong to another topic. An id that either side lacks says nothing."""
    losses = identity_losses(identity, topic, standings(known))
    if losses:
        raise as_error(losses, stream)


def survey(topic: Topic, book: Book) -> tuple[TopicIdentity, list[Loss]]:
    """The topic as it is, and what it does not hold of what the positions expect.

    Raises:
        TopicMissing, KafkaUnavailable, DatabaseUnavailable.
    """
    identity, known = topic.identity(), standings(book.positions())
    partitions = [partition for partition in known if partition < identity.partitions]
    starts, ends = topic.start_offsets(partitions), topic.end_offsets(partitions)
    return identity, find_losses(identity, topic.name, known, book.losses(), starts, ends)


def standings(known: Mapping[int, StoredPosition]) -> dict[int, Standing]:
    """The positions as core.loss looks at them."""
    return {
        partition: Standing(at.topic, at.cluster_id, at.topic_id, at.incarnation, at.next_offset)
        for partition, at in known.items()
    }


def _first_places(
    topic: Topic,
    book: Book,
    policy: StartPolicy,
    partitions: Collection[int],
    stream: str,
    tell: Callable[[str], None],
) -> dict[int, Place]:
    ours = topic.group_offsets(policy.group_id)
    marks = {offset.ledger_id for offset in ours.values() if offset.ledger_id}
    if marks:
        ids = ", ".join(sorted(marks))
        raise LedgerMissing(
            f"stream {stream}: group {policy.group_id} bears the mark of ledger {ids}, but this database's ledger"
            f" {book.ledger_id()} has no position for the stream. Restore that ledger (DATABASE_URL, LEDGER_SCHEMA);"
            f" or, to read the topic again from START_FROM, delete the group: kafka-consumer-groups.sh --delete --group"
            f" {policy.group_id}",
            stream=stream,
        )
    awaited = book.was_awaited()
    if awaited:
        places = topic.start_offsets(partitions)
    elif isinstance(policy.start_from, datetime):
        places = topic.offsets_at(partitions, int(policy.start_from.timestamp() * 1000))
    elif policy.start_from == "latest":
        places = topic.end_offsets(partitions)
    else:
        places = topic.start_offsets(partitions)
    if policy.adopt_group:
        adopted = adoption(topic, policy.adopt_group, partitions, stream, awaited)
        if adopted.places:
            tell(f"stream {stream} takes over offsets of {adopted.summary()}")
        places |= adopted.places
    return places
