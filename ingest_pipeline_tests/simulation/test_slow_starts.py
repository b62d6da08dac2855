"""Starts that take minutes, with the real sensor and runs over the fakes."""

import pytest

from ingest_pipeline.orchestration import tags
from ingest_pipeline_tests.simulation.model import GOOD
from ingest_pipeline_tests.simulation.scene import simulation


@pytest.mark.parametrize("seconds", [40.0, 185.0])
def test_launches_are_few_and_records_arrive(seconds: float) -> None:
    """The first start teaches how long the next ones take."""
    with simulation() as state:
        state.slow_starts(seconds=seconds)
        for round_number in range(1, 5):
            state.stream().kafka.produce(0, [GOOD] * 3)
            while state.stream().lag():
                state.work(ticks=1, points=100)
            while state.world.busy():
                state.work(ticks=1, points=100)
            if round_number == 1:
                learning = state.world.count["runs launched"]
        launched = [run for run in state.world.instance.runs.values() if tags.SUCCESSOR not in run.tags]
        assert learning <= 4, "launched after 0, 30, 90 and 210 s"
        assert len(launched) - learning == 3, "one launch for each later backlog"
