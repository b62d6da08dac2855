"""Setbacks are runs that ended without progress. Setbacks in a row lengthen the wait before the next run."""

from __future__ import annotations

from ..core.end_reasons import EndReason
from .tags import Shard
from .view import RunView, View

FRUITLESS_ENDS = (EndReason.SUPERSEDED, EndReason.SURPLUS, EndReason.SIGNAL)
"""Dagster shows SUCCESS for these end reasons, but without a moved position the run was useless."""
FRUITLESS_RUNS = 3
"""Number of fruitless runs in a row before `ingest status` and the alerts report the stream."""
_FIRST_BACKOFF, _LONGEST_BACKOFF = 5.0, 300.0


def backoff_seconds(failures: int) -> float:
    """Seconds from the last failure to the next run."""
    return 0.0 if failures == 0 else min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(failures - 1, 10))


def is_setback(run: RunView) -> bool:
    """Whether the run failed or had a fruitless end reason. The caller compares the positions' progress."""
    return run.status == "FAILURE" or (run.status == "SUCCESS" and run.ended in FRUITLESS_ENDS)


def runs_without_progress(shard: Shard, view: View) -> list[RunView]:
    """The shard's setbacks in a row since a position last moved, newest first."""
    progress = (view.progress_at.get(partition, 0.0) for partition in shard.partitions(view.lag))
    return _setbacks_since(max([view.acted_at, *progress]), shard, view)


def unsuccessful_successors(shard: Shard, view: View, owner: RunView) -> list[RunView]:
    """The shard's setbacks in a row since this run became the owner, newest first."""
    return _setbacks_since(max(view.acted_at, view.since(owner)), shard, view)


def _setbacks_since(since: float, shard: Shard, view: View) -> list[RunView]:
    setbacks: list[RunView] = []
    for run in view.recent:
        if run.shard != shard:
            continue
        if not is_setback(run) or run.definition != view.definition or view.began(run) <= since:
            break
        setbacks.append(run)
    return setbacks


def backoff_message(setbacks: list[RunView], view: View) -> str | None:
    """Why no run is launched now. None without a setback, or after the wait."""
    wait = backoff_seconds(len(setbacks)) - view.age(setbacks[0]) if setbacks else 0.0
    if wait <= 0:
        return None
    runs = f"{len(setbacks)} run{'s' * (len(setbacks) > 1)}"
    ended = "failed" if all(run.status == "FAILURE" for run in setbacks) else "ended"
    reason = _end_reason(setbacks[0])
    return f"backing off: the last {runs} {ended} without progress ({reason}); next try in {wait:.0f} s"


def fruitless_message(setbacks: list[RunView]) -> str | None:
    """For `ingest status`. None where the newest run failed, because a failure has its own line in the status."""
    if len(setbacks) < FRUITLESS_RUNS or setbacks[0].status == "FAILURE":
        return None
    before = len(setbacks) - 1
    return f"it ended without progress ({_end_reason(setbacks[0])}), and so did the {before} runs before it"


def _end_reason(run: RunView) -> str:
    return run.ended.removeprefix("failed:") or "killed"
