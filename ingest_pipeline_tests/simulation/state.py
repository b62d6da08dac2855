"""What every part of one simulated run shares: settings, clock, broker, model and counts."""

from __future__ import annotations

from collections import Counter

from ingest_pipeline.settings import JobSettings, Settings, StreamSettings
from ingest_pipeline.testing import MemoryBroker, SettableClock
from ingest_pipeline_tests.samples import READING
from ingest_pipeline_tests.simulation.model import Model


class SharedState:
    """Attributes: settings: the deployed ones. count: event → how often it happened."""

    def __init__(self, settings: Settings, clock: SettableClock) -> None:
        self.settings = settings
        self.clock = clock
        self.broker = MemoryBroker()
        self.model = Model()
        self.count: Counter[str] = Counter()

    @property
    def own(self) -> StreamSettings:
        return self.settings.for_stream(READING.name)

    @property
    def job(self) -> JobSettings:
        return self.settings.for_job(READING.job)

    @property
    def letter_limit(self) -> int | None:
        return self.own.dead_letter_max_consecutive if self.own.dead_letter_limit == "on" else None

    @property
    def tombstones_refused(self) -> bool:
        return self.own.tombstones == "dead-letter"
