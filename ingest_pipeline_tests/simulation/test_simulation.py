"""Every invariant, in a few hundred examples that are the same each time. `make simulate` has fresh ones."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from ingest_pipeline_tests.samples import STEADY
from ingest_pipeline_tests.simulation.__main__ import FENCES
from ingest_pipeline_tests.simulation.machine import TOLD, Simulation

HAPPENS = (
    *("killed at", "losses accepted", "in doubt", "rows replayed", "letters redriven", "ghosts", "launches after"),
    *("refused", "topic looked at again", "stored as of the topic before"),
)


@pytest.mark.timeout(600)  # shrinking takes its time
def test_the_invariants_hold() -> None:
    TOLD.clear()
    steady = settings(
        STEADY,
        max_examples=500,
        stateful_step_count=30,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    run_state_machine_as_test(Simulation, settings=steady)
    missed = [start for start in HAPPENS if not any(TOLD[name] for name in TOLD if name.startswith(start))]
    assert not missed, "an example that meets nothing shows nothing"
    assert any(TOLD[name] for name in FENCES)
