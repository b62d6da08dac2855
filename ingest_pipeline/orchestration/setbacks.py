"""Runs that ended without progress: how many in a row, and how long the next one waits."""

from __future__ import annotations

from ..core.end_reasons import EndReason
from .tags import Shard
from .view import RunView, View

FRUITLESS_ENDS = (EndReason.SUPERSEDED, EndReason.SURPLUS, EndReason.SIGNAL)
"""Ends without a failure and, where no position moved, without any use. Such a run is SUCCESS in Dagster."""
FRUITLESS_RUNS = 3
"""So many of them in a row are told in `ingest status` and by the alerts."""
_FIRST_BACKOFF, _LONGEST_BACKOFF = 5.0, 300.0


def backoff_seconds(failures: int) -> float:
    """How long after the last of so many failures in a row the next run waits."""
    return 0.0 if failures == 0 else min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(failures - 1, 10))


def is_setback(run: RunView) -> bool:
    """Whether the run failed, or ended as one that was of no use. Whether it moved a position is another question."""
    return run.status == "FAILURE" or (run.status == "SUCCESS" and run.ended in FRUITLESS_ENDS)


def without_progress(shard: Shard, view: View) -> list[RunView]:
    """The shard's newest runs, newest first, that ended one after the other without moving a position."""
    progress = (view.progress_at.get(partition, 0.0) for partition in shard.partitions(view.lag))
    return _in_a_row(shard, view, max([view.acted_at, *progress]))


def beside(shard: Shard, view: View, owner: RunView) -> list[RunView]:
    """The shard's newest runs that ended one after the other while this run owned: no successor came of them."""
    return _in_a_row(shard, view, max(view.acted_at, view.since(owner)))


def _in_a_row(shard: Shard, view: View, since: float) -> list[RunView]:
    found: list[RunView] = []
    for run in view.recent:
        if run.shard != shard:
            continue
        if not is_setback(run) or run.definition != view.definition or view.began(run) <= since:
            break
        found.append(run)
    return found


def wait_words(setbacks: list[RunView], view: View) -> str | None:
    """Why no run is launched now. None where there was no setback, or the wait for the next try is over."""
    wait = backoff_seconds(len(setbacks)) - view.age(setbacks[0]) if setbacks else 0.0
    if wait <= 0:
        return None
    runs = f"{len(setbacks)} run{'s' * (len(setbacks) > 1)}"
    ended = "failed" if all(run.status == "FAILURE" for run in setbacks) else "ended"
    return f"backing off: the last {runs} {ended} without progress ({_why(setbacks[0])}); next try in {wait:.0f} s"


def fruitless_words(setbacks: list[RunView]) -> str | None:
    """For `ingest status`. A failure has a line of its own there, so None where the newest run failed."""
    if len(setbacks) < FRUITLESS_RUNS or setbacks[0].status == "FAILURE":
        return None
    before = len(setbacks) - 1
    return f"it ended without progress ({_why(setbacks[0])}), and so did the {before} runs before it"


def _why(run: RunView) -> str:
    return run.ended.removeprefix("failed:") or "killed"
