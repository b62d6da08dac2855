"""What a run of several streams reads at its start about all of them, by a few questions."""

from collections.abc import Sequence

from ...core.errors import IngestError
from ...core.ledger import LedgerSnapshot
from ...core.record import TopicIdentity
from ...core.start import FirstLook
from ...operations.stream_context import StreamContext


def first_looks(stream_contexts: Sequence[StreamContext]) -> dict[str, FirstLook]:
    """Stream → its first look, with missing tables created. A stream that is left out asks for itself, and reports its
    own error."""
    clients = stream_contexts[0].clients
    ledgers = clients.ledgers([stream_context.stream for stream_context in stream_contexts])
    topics, names = clients.topics(), {context.stream.topic: context.stream.name for context in stream_contexts}
    try:
        ledgers.prepare()
        snapshots, accounting = ledgers.snapshots(), ledgers.accounting()
        identities = topics.identities(names)
        existing = {topic: answer for topic, answer in identities.items() if isinstance(answer, TopicIdentity)}
        ends = topics.end_offsets({topic: range(identity.partitions) for topic, identity in existing.items()})
    except IngestError:
        return {}
    return {
        name: FirstLook(snapshot, bool(accounting[name]), identity, ends[topic])
        for topic, identity in existing.items()
        if isinstance(snapshot := snapshots[name := names[topic]], LedgerSnapshot)
    }
