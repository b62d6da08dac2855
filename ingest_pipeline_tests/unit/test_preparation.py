"""The preparation of a shared run while servers are silent."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from ingest_pipeline.core.errors import KafkaUnavailable
from ingest_pipeline.orchestration.run.drained_stream import BEGIN_SECONDS
from ingest_pipeline.orchestration.run.preparation import prepare
from ingest_pipeline.testing import SettableClock


class SlowStream:
    """Takes the time of its retries, and at least 5 s."""

    def __init__(self, name: str, stream_context: Any) -> None:
        self.name, self.stream_context = name, stream_context
        self.retry_seconds: float | None = None

    def prepare(self, look: Any, retry_seconds: float) -> None:
        self.retry_seconds = retry_seconds
        self.stream_context.clients.clock.advance(max(5.0, retry_seconds))


def silent() -> None:
    raise KafkaUnavailable("away")


def test_the_streams_of_a_run_share_the_time_for_retries() -> None:
    """A stream that is ready waits for the others."""
    clock = SettableClock()
    clients = SimpleNamespace(clock=clock, topics=lambda: None, ledgers=lambda streams: SimpleNamespace(prepare=silent))
    context = SimpleNamespace(clients=clients, stream=SimpleNamespace(name="s", topic="t"))
    streams: list[Any] = [SlowStream(f"s{number}", context) for number in range(20)]
    connection: Any = SimpleNamespace(heartbeat=lambda: None)
    with ThreadPoolExecutor(1) as executor:
        assert prepare(streams, lambda: connection, executor) is connection
    assert [stream.retry_seconds for stream in streams] == [BEGIN_SECONDS, *[0.0] * 19]
