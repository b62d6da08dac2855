"""How long a tick waits for starting runs, and how early a tick launches a successor.

A process starts in seconds. A container or a busy queue needs minutes. Slow recent starts lengthen the waits.
"""

from collections.abc import Iterable

from .view import LEAD_SECONDS, START_GRACE_SECONDS, Patience, RunView

OTHER_STARTING_SECONDS = 300.0
"""STARTING_SECONDS of other launchers, which may fetch an image or wait for a machine."""
SUCCESSOR_SECONDS = 120.0
"""How long a successor waits for the owner to let go, after a request or after the owner's age."""
_TICK_SECONDS = 10.0
_NEWEST_STARTS = 5
"""Number of newest starts to look at. The slowest counts."""
_LONGEST_START, _LONGEST_OPENING = 3600.0, 300.0


def learned_patience(runs: Iterable[RunView], starting: float, run_max_seconds: float) -> Patience:
    """Waits learned from recent starts, with a margin. Every wait is bounded, because Dagster's clock may be wrong.

    Args:
        runs: newest first.
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
    """How long a successor waits for the owner's age. The lead of its launch is at most half of the owner's age."""
    return SUCCESSOR_SECONDS + run_max_seconds / 2


def max_runtime(run_max_seconds: int, lead: float) -> int:
    """Seconds after which Dagster's run monitoring may end a run: more than its wait, its age and its last batch."""
    return max(2 * run_max_seconds + 60, round(run_max_seconds + lead + SUCCESSOR_SECONDS) + 60)


def _slowest(durations: Iterable[float | None], longest: float) -> float:
    measured = [seconds for seconds in durations if seconds is not None]
    return max((min(max(seconds, 0.0), longest) for seconds in measured[:_NEWEST_STARTS]), default=0.0)
