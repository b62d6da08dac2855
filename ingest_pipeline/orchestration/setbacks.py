"""Setbacks are runs that ended without progress. Setbacks in a row lengthen the wait before the next run."""

from collections.abc import Callable, Sequence

from ..core.end_reasons import EndReason
from .tags import Shard
from .view import RunView, Share, View

FRUITLESS_ENDS = (EndReason.SUPERSEDED, EndReason.SURPLUS, EndReason.SIGNAL, EndReason.OTHER_DEFINITION)
"""Dagster shows SUCCESS for these end reasons, but without a moved position the run was useless."""
FRUITLESS_RUNS = 3
"""Number of fruitless runs in a row before `ingest status` and the alerts report the stream."""
_FIRST_BACKOFF, _LONGEST_BACKOFF = 5.0, 300.0


def backoff_seconds(failures: int) -> float:
    return 0.0 if failures == 0 else min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(failures - 1, 10))


def is_setback(run: RunView) -> bool:
    """Whether the run failed or had a fruitless end reason. The caller compares the positions' progress."""
    return run.status == "FAILURE" or (run.status == "SUCCESS" and run.ended in FRUITLESS_ENDS)


def runs_without_progress(shard: Shard, shares: Sequence[Share], view: View) -> list[RunView]:
    """The shard's setbacks in a row since a position of the shares last moved, newest first."""
    return _setbacks_since(max((share.progress_at for share in shares), default=0.0), shard, view)


def setbacks_of(share: Share, shard: Shard, view: View) -> list[RunView]:
    """The setbacks in a row that delay a launch for this share, newest first. Failures of other streams do not."""
    name = share.stream.name
    return _setbacks_since(share.progress_at, shard, view, lambda run: name in (run.failed_streams or (name,)))


def unsuccessful_successors(shard: Shard, shares: Sequence[Share], view: View, owner: RunView) -> list[RunView]:
    """The shard's setbacks in a row since this run became the owner, newest first."""
    acted_at = max((share.stream.acted_at for share in shares), default=0.0)
    return _setbacks_since(max(acted_at, view.since(owner)), shard, view)


def _setbacks_since(
    since: float, shard: Shard, view: View, counts: Callable[[RunView], bool] = lambda run: True
) -> list[RunView]:
    setbacks: list[RunView] = []
    for run in view.recent:
        if run.shard != shard or not counts(run):
            continue
        if not is_setback(run) or run.definition != view.definition or view.began(run) <= since:
            break
        setbacks.append(run)
    return setbacks


def backoff_wait(setbacks: list[RunView], view: View) -> float:
    """Seconds until the next run may be launched. 0 or less: now."""
    return backoff_seconds(len(setbacks)) - view.age(setbacks[0]) if setbacks else 0.0


def backoff_message(setbacks: list[RunView], view: View) -> str | None:
    """Why no run is launched now. None without a setback, or after the wait."""
    wait = backoff_wait(setbacks, view)
    if wait <= 0:
        return None
    runs = f"{len(setbacks)} run{'s' * (len(setbacks) > 1)}"
    ended = "failed" if all(run.status == "FAILURE" for run in setbacks) else "ended"
    reason = _end_reason(setbacks[0])
    return f"backing off: the last {runs} {ended} without progress ({reason}), next try in {wait:.0f} s"


def fruitless_message(setbacks: list[RunView]) -> str | None:
    """For `ingest status`. None where the newest run failed, because a failure has its own line in the status."""
    if len(setbacks) < FRUITLESS_RUNS or setbacks[0].status == "FAILURE":
        return None
    before = len(setbacks) - 1
    return f"it ended without progress ({_end_reason(setbacks[0])}), and so did the {before} runs before it"


def _end_reason(run: RunView) -> str:
    return run.ended.removeprefix("failed:") or "killed"
