"""What every part of one simulated world shares: settings, clock, broker, streams and counts."""

from collections import Counter
from collections.abc import Mapping

from ingest_pipeline.core.stream import Stream
from ingest_pipeline.settings import JobSettings, Settings, StreamSettings
from ingest_pipeline.testing.broker import MemoryBroker
from ingest_pipeline.testing.clock import SettableClock
from ingest_pipeline_tests.simulation.model import Model


class SharedState:
    """Attributes:
    settings: the deployed settings.
    streams: stream → its model and settings. A topic has the name of its stream.
    count: event → how often it happened.
    """

    def __init__(self, settings: Settings, clock: SettableClock) -> None:
        self.settings = settings
        self.clock = clock
        self.broker = MemoryBroker()
        self.streams: Mapping[str, StreamState] = {}
        self.count: Counter[str] = Counter()


class StreamState:
    """One stream of a world: its model, and its settings as deployed."""

    def __init__(self, state: SharedState, stream: Stream) -> None:
        self._state, self.stream, self.name = state, stream, stream.name
        self.model = Model()
        self.clock, self.count = state.clock, state.count

    @property
    def own(self) -> StreamSettings:
        return self._state.settings.for_stream(self.name)

    @property
    def job(self) -> JobSettings:
        return self._state.settings.for_job(self.stream.job)

    @property
    def letter_limit(self) -> int | None:
        return self.own.dead_letter_max_consecutive if self.own.dead_letter_limit == "on" else None

    @property
    def tombstones_refused(self) -> bool:
        return self.own.tombstones == "dead-letter"
