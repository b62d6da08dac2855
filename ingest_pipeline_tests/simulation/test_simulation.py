"""Every invariant, in a few hundred examples that are the same each time. `make simulate` has fresh ones."""

import subprocess
import sys
from pathlib import Path

import pytest

from ingest_pipeline_tests.simulation.__main__ import FENCES

HAPPENS = (
    *("killed at", "losses accepted", "in doubt", "rows replayed", "letters redriven", "ghosts", "launches after"),
    *("refused", "topic looked at again", "stored as of the topic before"),
)


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(600)  # shrinking takes its time
def test_the_invariants_hold() -> None:
    """In a process of its own: Hypothesis draws constants from whatever modules are loaded, so that other tests in the
    same process would change the examples."""
    command = [sys.executable, "-m", "ingest_pipeline_tests.simulation", "--steps", "12000", "--seed", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert ended.returncode == 0, ended.stdout + ended.stderr
    happened = [line.split(maxsplit=1)[1] for line in ended.stdout.splitlines() if line.startswith("  ")]
    missed = [start for start in HAPPENS if not any(name.startswith(start) for name in happened)]
    assert not missed, "an example that meets nothing shows nothing"
    assert any(name in FENCES for name in happened)
