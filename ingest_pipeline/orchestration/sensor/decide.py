"""A tick's decision as a pure function of its view: no Dagster, no clock, no connection."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ...core.start import unanswered_words
from ..setbacks import backoff_message, fruitless_message, is_setback, runs_without_progress, unsuccessful_successors
from ..tags import Shard, shards
from ..view import AGE, STARTING_SECONDS, Decision, Launch, Patience, RunView, StatusSince, View

GHOST_SECONDS, ENDING_SECONDS = 8.0, 120.0
"""A run without a session may be ending, and is reported failed only after GHOST_SECONDS. A run with an end reason gets
ENDING_SECONDS, because Dagster's own last steps may take a minute on a busy machine."""
UNBEGUN_SECONDS = 30.0
"""A partition has no position if its leader was away when the run began. At this age the run gets a successor. Younger
runs get none, because runs may be unable to reach a broker that the sensor reaches."""
_STARTS_DOUBLED = 4
"""Limit of the doublings of the wait while runs do not start: up to 16 times the first wait."""


def decide(view: View) -> Decision:
    ghosts = [run for run in view.active if _is_ghost(run, view)]
    ghosts_seen = {run.run_id: min(view.ghosts_seen.get(run.run_id, view.now), view.now) for run in ghosts}
    live = [run for run in view.active if run not in ghosts]
    launches: list[Launch] = []
    skip_reasons: list[str] = []
    fruitless: str | None = None
    for shard in shards(view.parallelism):
        outcome = _decide_shard(shard, view, live)
        if isinstance(outcome, Launch):
            launches.append(outcome)
        else:
            if unanswered := shard.partitions(view.unanswered):
                outcome = f"{outcome}; {unanswered_words(unanswered)}"
            skip_reasons.append(outcome if view.parallelism == 1 else f"shard {shard}: {outcome}")
        fruitless = fruitless or fruitless_message(runs_without_progress(shard, view))
    # An error of Dagster's storage during a report would lose this tick's launches.
    failed: list[str] = []
    if not launches:
        failed = [run.run_id for run in ghosts if view.now - ghosts_seen[run.run_id] >= _ghost_seconds(run)]
    return Decision(
        launches,
        skip_reasons,
        failed,
        {run_id: since for run_id, since in ghosts_seen.items() if run_id not in failed},
        _last_statuses(view),
        fruitless,
    )


def _last_statuses(view: View) -> dict[str, StatusSince]:
    """The next tick's memory of runs. A run without an entry counts as new."""
    judged = [*view.active, *(run for run in view.recent if is_setback(run))]
    return {run.run_id: StatusSince(run.status, view.since(run)) for run in judged}


def _decide_shard(shard: Shard, view: View, live: Collection[RunView]) -> Launch | str:
    partitions = shard.partitions(view.lag)
    unanswered = shard.partitions(view.unanswered)
    if not partitions and not unanswered:
        return "the topic has no partition for this shard"
    lag = sum(view.lag[partition] for partition in partitions)
    if view.paused is not None:
        return f"paused: {view.paused}; lag {lag:,}"
    owners = _unique(view.owners[partition] for partition in (*partitions, *unanswered) if partition in view.owners)
    shard_runs = [run for run in live if run.shard == shard and run.run_id not in owners]
    overdue = [run for run in shard_runs if _is_overdue(run, view)]
    pending = [run for run in shard_runs if run not in overdue]
    if owners:
        return _with_owner(shard, view, live, owners, pending, overdue, lag)
    if pending:
        return f"run {_short(pending[0].run_id)} is {_status_word(pending[0])}; lag {lag:,}"
    if not partitions:
        return "lag unknown"
    if lag == 0 and not view.lost and all(partition in view.begun for partition in partitions):
        return "caught up: lag 0"
    reason = backoff_message(runs_without_progress(shard, view), view) or _overdue_message(overdue, view)
    if reason is not None:
        return f"{reason}; lag {lag:,}"
    return Launch(shard)


def _with_owner(
    shard: Shard,
    view: View,
    live: Collection[RunView],
    owners: list[str],
    pending: list[RunView],
    overdue: list[RunView],
    lag: int,
) -> Launch | str:
    owner_runs = [run for run in live if run.run_id in owners]
    names = " and ".join(_short(run_id) for run_id in owners)
    draining = (
        f"run {names} is draining; lag {lag:,}" if len(owners) == 1 else f"runs {names} are draining; lag {lag:,}"
    )
    if any(run.definition == view.definition for run in pending):
        return f"{draining}; run {_short(pending[0].run_id)} will take over"
    for run in owner_runs:
        if (launch := _successor(run, shard, view)) is not None:
            setbacks = unsuccessful_successors(shard, view, run)
            overdue_successors = [successor for successor in overdue if successor.definition == view.definition]
            reason = backoff_message(setbacks, view) or _overdue_message(overdue_successors, view)
            return launch if reason is None else f"{draining}; {reason}"
    return draining


def _successor(owner: RunView, shard: Shard, view: View) -> Launch | None:
    """The owner's successor, if one is due. A run launched by hand gets no successor."""
    if owner.shard is None:
        return None
    if owner.shard.count != shard.count:
        return Launch(shard, "reshard")
    if owner.definition != view.definition:
        return Launch(shard, "definition")
    if view.age(owner) >= view.run_max_seconds - _patience(view).lead:
        return Launch(shard, AGE)
    unbegun = any(partition not in view.begun for partition in shard.partitions(view.lag))
    return Launch(shard, "partitions") if unbegun and view.age(owner) >= UNBEGUN_SECONDS else None


def _overdue_message(overdue: list[RunView], view: View) -> str | None:
    """Why overdue runs delay the next launch. Every overdue run doubles the wait."""
    if not overdue:
        return None
    youngest = min(overdue, key=view.age)
    wait = _patience(view).starting * 2.0 ** min(len(overdue) - 1, _STARTS_DOUBLED) - view.age(youngest)
    if wait <= 0:
        return None
    runs = f"{len(overdue)} run{'s have' if len(overdue) > 1 else ' has'}"
    return f"backing off: {runs} not started, {_short(youngest.run_id)} the last; next try in {wait:.0f} s"


def _is_ghost(run: RunView, view: View) -> bool:
    """Whether a sensor's run has no working process. A run by hand may work on another asset, without a session."""
    if run.shard is None:
        return False
    if run.status == "NOT_STARTED":  # not in the queue, and no process will start the run
        return _is_overdue(run, view)
    grace_over = view.age(run) >= _patience(view).opening or run.run_id in view.recorded_owners
    return run.status == "STARTED" and grace_over and run.run_id not in view.connected


def _ghost_seconds(run: RunView) -> float:
    return ENDING_SECONDS if run.ended else GHOST_SECONDS


def _is_overdue(run: RunView, view: View) -> bool:
    """A killed daemon leaves launches unfinished. The ledger fences a run with a late start."""
    if run.status == "NOT_STARTED":
        return view.age(run) >= STARTING_SECONDS
    return run.status == "STARTING" and view.age(run) >= _patience(view).starting


def _patience(view: View) -> Patience:
    return view.patience or Patience()


def _status_word(run: RunView) -> str:
    return "starting" if run.status == "STARTED" else run.status.lower().replace("_", " ")


def _short(run_id: str) -> str:
    return run_id[:8]


def _unique(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))
