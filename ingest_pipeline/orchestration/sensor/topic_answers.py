"""Questions to Kafka about the topics of a job, in a single request."""

from collections.abc import Collection, Mapping, Sequence

from ...core.errors import IngestError
from ...core.ledger import LedgerSnapshot
from ...core.record import NextOffset, TopicIdentity
from ...core.start import not_at_end
from ...operations.stream_context import StreamContext


def identities(stream_contexts: Sequence[StreamContext]) -> dict[str, TopicIdentity | IngestError]:
    """Stream → identity of its topic, or the topic's own error. Raises EnvironmentFault."""
    names = _names(stream_contexts)
    answers = stream_contexts[0].clients.topics().identities(names)
    return {names[topic]: identity for topic, identity in answers.items()}


def end_offsets(
    stream_contexts: Sequence[StreamContext], partitions: Mapping[str, Collection[int]]
) -> dict[str, dict[int, NextOffset]]:
    """Stream → partition → end, for the streams in `partitions`. Raises EnvironmentFault."""
    names = {topic: name for topic, name in _names(stream_contexts).items() if name in partitions}
    answers = (
        stream_contexts[0].clients.topics().end_offsets({topic: partitions[name] for topic, name in names.items()})
    )
    return {names[topic]: ends for topic, ends in answers.items()}


def log_bounds(
    stream_contexts: Sequence[StreamContext],
    snapshots: Mapping[str, LedgerSnapshot],
    ends: Mapping[str, Mapping[int, NextOffset]],
) -> dict[str, tuple[Mapping[int, NextOffset], Mapping[int, NextOffset]]]:
    """Stream → first offsets and high watermarks, see core.start.log_bounds. Only of partitions that no run drains and
    whose position is not at the end. Raises EnvironmentFault."""
    unread: dict[str, list[int]] = {}
    beyond: dict[str, list[int]] = {}
    names = {topic: name for topic, name in _names(stream_contexts).items() if name in snapshots and name in ends}
    for topic, name in names.items():
        positions, holders = snapshots[name].positions, snapshots[name].owners.holders
        unread[topic], beyond[topic] = not_at_end(positions, ends[name], positions.keys() - holders.keys())
    topics = stream_contexts[0].clients.topics()
    starts = topics.start_offsets({topic: partitions for topic, partitions in unread.items() if partitions})
    marks = topics.high_watermarks({topic: partitions for topic, partitions in beyond.items() if partitions})
    bounds: dict[str, tuple[Mapping[int, NextOffset], Mapping[int, NextOffset]]] = {}
    for topic, name in names.items():
        highs = {p: ends[name][p] for p in unread[topic] if p not in beyond[topic]}
        bounds[name] = starts.get(topic, {}), highs | marks.get(topic, {})
    return bounds


def _names(stream_contexts: Sequence[StreamContext]) -> dict[str, str]:
    """Topic → stream."""
    return {stream_context.stream.topic: stream_context.stream.name for stream_context in stream_contexts}
