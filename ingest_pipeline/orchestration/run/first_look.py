"""What a run of several streams reads at its start about all of them, by a few questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...core.errors import IngestError
from ...core.ledger import LedgerSnapshot
from ...core.record import NextOffset, TopicIdentity
from ...operations.stream_context import StreamContext


@dataclass(frozen=True, slots=True)
class FirstLook:
    """A stream whose table is as declared and whose topic exists."""

    ledger: LedgerSnapshot
    identity: TopicIdentity
    ends: Mapping[int, NextOffset]


def first_looks(stream_contexts: Sequence[StreamContext]) -> dict[str, FirstLook]:
    """Stream → its first look, with missing tables created. A stream that is left out asks for itself, and reports its
    own error."""
    clients = stream_contexts[0].clients
    ledgers = clients.ledgers([stream_context.stream for stream_context in stream_contexts])
    topics, names = clients.topics(), {context.stream.topic: context.stream.name for context in stream_contexts}
    try:
        ledgers.prepare()
        snapshots = ledgers.snapshots()
        identities = topics.identities(names)
        existing = {topic: answer for topic, answer in identities.items() if isinstance(answer, TopicIdentity)}
        ends = topics.end_offsets({topic: range(identity.partitions) for topic, identity in existing.items()})
    except IngestError:
        return {}
    return {
        names[topic]: FirstLook(snapshot, identity, ends[topic])
        for topic, identity in existing.items()
        if isinstance(snapshot := snapshots[names[topic]], LedgerSnapshot)
    }
