"""An example of the simulation that a test tells, rule by rule."""

from collections.abc import Iterator
from contextlib import contextmanager

from ingest_pipeline.settings import Settings
from ingest_pipeline_tests.simulation.drawn import settings_of
from ingest_pipeline_tests.simulation.machine import Simulation


@contextmanager
def simulation(own: Settings | None = None, *, partitions: int = 1, streams: int = 1) -> Iterator[Simulation]:
    """At the end everything has to be accounted for."""
    state = Simulation()
    state.begin(own=own or settings_of(run_idle_seconds=0), partitions=partitions, streams=streams)
    yield state
    state.teardown()
