"""The lines of `ingest check` about a stream's topic, and about ADOPT_GROUP."""

from __future__ import annotations

from collections.abc import Iterator

from ..core.adoption import adoption
from ..core.errors import IngestError, KafkaUnavailable, TopicMissing
from ..core.loss import topic_gone
from ..core.record import StoredPosition
from ..core.start import unanswered, unanswered_words
from ..core.stream import Stream
from .clients import Clients
from .finding import Finding


def kafka_findings(clients: Clients, stream: Stream) -> Iterator[Finding]:
    what = f"Kafka topic {stream.topic}"
    topic = clients.topic(stream)
    try:
        identity = topic.identity()
        ends = topic.end_offsets(range(identity.partitions))
    except TopicMissing as error:
        yield _missing(what, clients, stream, error)
        return
    except KafkaUnavailable as error:
        yield Finding(False, what, "; ".join([error.message, *_unreachable(clients)]))
        return
    except IngestError as error:
        yield Finding(False, what, error.message)
        return
    if silent := unanswered(identity, ends):
        yield Finding(False, what, "; ".join([unanswered_words(silent), *_unreachable(clients)]))
        return
    total = sum(end.next_offset for end in ends.values())
    note = "" if identity.topic_id else ". The broker gives no topic id, so a re-created topic cannot be recognized"
    yield Finding(True, what, f"{identity.partitions} partitions, end offsets add up to {total:,}{note}")
    if clients.start_policy(stream).adopt_group:
        yield _adoption(clients, stream, identity.partitions)


def _unreachable(clients: Clients) -> list[str]:
    """Why addresses cannot be used: the addresses of the settings, else the advertised addresses of the brokers."""
    from ..kafka.reach import advertised_problems, bootstrap_problems

    if named := bootstrap_problems(clients.settings.kafka):
        return [f"KAFKA_BOOTSTRAP_SERVERS: {problem}" for problem in named]
    return [
        f"the brokers tell clients to connect to addresses of which {problem}: correct advertised.listeners there"
        for problem in advertised_problems(clients.admin())
    ]


def _missing(what: str, clients: Clients, stream: Stream, error: TopicMissing) -> Finding:
    if positions := _positions(clients, stream):
        return Finding(False, what, topic_gone(error, len(positions), stream.name).message)
    return Finding(True, what, "does not exist yet. The sensor waits for it, and the stream begins at its beginning")


def _adoption(clients: Clients, stream: Stream, partitions: int) -> Finding:
    """The offsets for the stream's first run to take over from ADOPT_GROUP."""
    group = str(clients.start_policy(stream).adopt_group)
    what = f"ADOPT_GROUP of {stream.name}"
    if _positions(clients, stream):
        return Finding(True, what, f"not used any more: the stream has begun, and group {group} is not read again")
    topic = clients.topic(stream)
    try:
        taken = adoption(topic, group, range(partitions), stream.name)
    except IngestError as error:
        return Finding(False, what, error.message)
    if clients.admin().has_members(group):
        return Finding(
            False,
            what,
            f"{taken.summary()}. Consumers of group {group} still run: stop them before the stream begins, or what they"
            " handle from now on is stored as well",
        )
    return Finding(True, what, f"the first run takes over offsets of {taken.summary()}")


def _positions(clients: Clients, stream: Stream) -> dict[int, StoredPosition]:
    """The stream's positions. Empty while PostgreSQL does not answer, because PostgreSQL has a line of its own."""
    try:
        return clients.ledger(stream).positions()
    except IngestError:
        return {}
