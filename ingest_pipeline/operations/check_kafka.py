"""The lines of `ingest check` about a stream's topic, and about ADOPT_GROUP."""

from collections.abc import Iterator

from ..core.adoption import adoption
from ..core.errors import IngestError, KafkaUnavailable, TopicMissing
from ..core.loss import topic_gone
from ..core.record import StoredPosition
from ..core.start import unanswered, unanswered_words
from .clients import Clients
from .finding import Finding
from .stream_context import StreamContext


def kafka_findings(context: StreamContext) -> Iterator[Finding]:
    topic = context.topic
    what = f"Kafka topic {topic.name}"
    try:
        identity = topic.identity()
        ends = topic.end_offsets(range(identity.partitions))
    except TopicMissing as error:
        yield _missing(what, context, error)
        return
    except KafkaUnavailable as error:
        yield Finding(False, what, "; ".join([error.message, *_unreachable(context.clients)]))
        return
    except IngestError as error:
        yield Finding(False, what, error.message)
        return
    if silent := unanswered(identity, ends):
        yield Finding(
            False, what, "; ".join([unanswered_words(silent), *_unreachable(context.clients, brokers_answer=True)])
        )
        return
    total = sum(end.next_offset for end in ends.values())
    note = "" if identity.topic_id else ". The broker gives no topic id, so a re-created topic cannot be recognized"
    yield Finding(True, what, f"{identity.partitions} partitions, end offsets add up to {total:,}{note}")
    yield _rights(context)
    if context.settings.adopt_group:
        yield _adoption(context, identity.partitions)


def _rights(context: StreamContext) -> Finding:
    from ..kafka import acls

    what, group = f"rights in Kafka of {context.stream.name}", context.clients.group_id(context.stream)
    rights = acls.missing_rights(context.clients.admin(), context.stream.topic, group)
    if rights is None:
        return Finding(True, what, "unknown, because the broker does not report rights")
    if rights.missing:
        return Finding(False, what, f"{'; '.join(rights.missing)}: `ingest grants` prints the commands")
    if rights.unknown:
        return Finding(False, what, f"unknown whether granted: {'; '.join(rights.unknown)}. A broker does not answer")
    return Finding(True, what, f"enough to read the topic and to commit to group {group}")


def _unreachable(clients: Clients, brokers_answer: bool = False) -> list[str]:
    """Why addresses cannot be used: the addresses of the settings, then the advertised addresses of the brokers.

    Args:
        brokers_answer: a broker has told the addresses. Otherwise it is asked only if the settings' addresses work.
    """
    from ..kafka.reach import advertised_problems, bootstrap_problems

    named = bootstrap_problems(clients.settings.kafka)
    advertised = advertised_problems(clients.admin()) if brokers_answer or not named else []
    return [
        *(f"KAFKA_BOOTSTRAP_SERVERS: {problem}" for problem in named),
        *(
            f"the brokers tell clients to connect to addresses of which {problem}: check that broker and its"
            " advertised.listeners"
            for problem in advertised
            if problem not in named
        ),
    ]


def _missing(what: str, context: StreamContext, error: TopicMissing) -> Finding:
    if positions := _positions(context):
        return Finding(False, what, topic_gone(error, len(positions), context.stream.name).message)
    return Finding(True, what, "does not exist yet. The sensor waits for it, and the stream begins at its beginning")


def _adoption(context: StreamContext, partitions: int) -> Finding:
    """The offsets for the stream's first run to take over from ADOPT_GROUP."""
    group, name = str(context.settings.adopt_group), context.stream.name
    what = f"ADOPT_GROUP of {name}"
    if _positions(context):
        return Finding(True, what, f"not used any more: the stream has begun, and group {group} is not read again")
    try:
        taken = adoption(context.topic, group, partitions=range(partitions), stream=name)
    except IngestError as error:
        return Finding(False, what, error.message)
    running = context.clients.admin().has_members(group)
    if running is None:
        return Finding(False, what, f"unknown whether consumers of group {group} still run: a broker does not answer")
    if running:
        return Finding(
            False,
            what,
            f"{taken.summary()}. Consumers of group {group} still run: stop them before the stream begins, or what they"
            " handle from now on is stored as well",
        )
    return Finding(True, what, f"the first run takes over offsets of {taken.summary()}")


def _positions(context: StreamContext) -> dict[int, StoredPosition]:
    """The stream's positions. Empty while PostgreSQL does not answer, because PostgreSQL has a line of its own."""
    try:
        return context.ledger.positions()
    except IngestError:
        return {}
