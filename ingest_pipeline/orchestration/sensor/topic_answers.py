"""Questions to Kafka about the topics of a job, in a single request."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ...core.errors import IngestError
from ...core.record import NextOffset, TopicIdentity
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


def _names(stream_contexts: Sequence[StreamContext]) -> dict[str, str]:
    """Topic → stream."""
    return {stream_context.stream.topic: stream_context.stream.name for stream_context in stream_contexts}
