"""Prepares the streams of a run, and connects a shared run before."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import TypeVar

from ...core.errors import EnvironmentFault, IngestError
from ...core.ledger_ports import WritingConnection
from .drained_stream import DrainedStream
from .first_look import first_looks

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
    looks = first_looks([stream.context for stream in streams])
    for first in range(0, len(streams), TOGETHER):
        list(executor.map(lambda stream: stream.prepare(looks.get(stream.name)), streams[first : first + TOGETHER]))
        try:
            if connection is not None:
                connection.heartbeat()
        except EnvironmentFault:
            connection = None
    return connection
