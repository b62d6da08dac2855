"""Prepares the streams of a run, and connects a shared run before."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import TypeVar

from ...core.errors import EnvironmentFault, IngestError
from ...core.ledger import LedgerSnapshot
from ...core.ledger_ports import WritingConnection
from ...core.record import TopicIdentity
from ...core.start import FirstLook
from ...operations.stream_context import StreamContext
from .drained_stream import BEGIN_SECONDS, DrainedStream

TOGETHER = 16
"""Streams prepared between two signs of life of the run's session."""
Connection = TypeVar("Connection", bound=WritingConnection)


def prepare(
    streams: Sequence[DrainedStream], connect: Callable[[], Connection], executor: Executor
) -> Connection | None:
    """Prepare the streams. Returns the session of a shared run, which may need longer to prepare than the sensor waits
    for a run's session. None: connect after the preparation, where an error is reported."""
    if len(streams) == 1:
        streams[0].prepare()
        return None
    connection = None
    with suppress(IngestError):
        connection = connect()
    looks = _first_looks([stream.stream_context for stream in streams])
    clock = streams[0].stream_context.clients.clock
    retries_end_at = clock.monotonic() + BEGIN_SECONDS

    def prepare_one(stream: DrainedStream) -> None:
        """The retries share their time, because the streams that are ready wait for all others."""
        stream.prepare(looks.get(stream.name), max(0.0, retries_end_at - clock.monotonic()))

    for first in range(0, len(streams), TOGETHER):
        list(executor.map(prepare_one, streams[first : first + TOGETHER]))
        try:
            if connection is not None:
                connection.heartbeat()
        except EnvironmentFault:
            connection = None
    return connection


def _first_looks(stream_contexts: Sequence[StreamContext]) -> dict[str, FirstLook]:
    """Stream → its first look, by a few questions about all streams, with missing tables created. A stream that is left
    out asks for itself, and reports its own error."""
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
