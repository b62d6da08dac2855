"""How long a tick waits for runs that start, and how early it launches a successor.

A container or a busy queue needs minutes where a process needs seconds. What recent starts took makes each wait longer.
"""

from __future__ import annotations

from collections.abc import Iterable

from .view import LEAD_SECONDS, START_GRACE_SECONDS, Patience, RunView

OTHER_STARTING_SECONDS = 300.0
"""The same of any other launcher, which may have to fetch an image or to wait for a machine."""
SUCCESSOR_SECONDS = 120.0
"""How long a successor waits for the owner to let go, once the owner has been asked or has reached its age."""
_TICK_SECONDS = 10.0
_LATELY = 5
"""The number of newest starts that are looked at. The slowest of them counts."""
_LONGEST_START, _LONGEST_OPENING = 3600.0, 300.0


def learned(runs: Iterable[RunView], starting: float, run_max_seconds: float) -> Patience:
    """Patience with what these runs took, and a margin. Each wait is bounded, whatever Dagster's clock says.

    Args:
        runs: newest first.
        starting: seconds that a start may take where recent starts were not slower.
    """
    runs = list(runs)
    launch = _slowest([run.launch_seconds for run in runs], _LONGEST_START)
    opening = _slowest([run.opening_seconds for run in runs], _LONGEST_OPENING)
    return Patience(
        starting=max(starting, min(2 * launch, _LONGEST_START)),
        opening=max(START_GRACE_SECONDS, min(3 * opening, _LONGEST_OPENING)),
        lead=max(LEAD_SECONDS, min(_TICK_SECONDS + launch + opening, run_max_seconds / 2)),
    )


def successor_seconds(run_max_seconds: float) -> float:
    """How long a successor waits for the owner's age. It was launched half of the owner's age before it at most."""
    return SUCCESSOR_SECONDS + run_max_seconds / 2


def max_runtime(run_max_seconds: int, lead: float) -> int:
    """After how many seconds Dagster's run monitoring may end a run: behind its wait, its age and its last batch."""
    return max(2 * run_max_seconds + 60, round(run_max_seconds + lead + SUCCESSOR_SECONDS) + 60)


def _slowest(seconds: Iterable[float | None], longest: float) -> float:
    known = [taken for taken in seconds if taken is not None]
    return max((min(max(taken, 0.0), longest) for taken in known[:_LATELY]), default=0.0)
