"""What a tick does, as a function of what it saw: no Dagster, no clock, no connection."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ...core.start import unanswered_words
from ..setbacks import beside, fruitless_words, is_setback, wait_words, without_progress
from ..tags import Shard, shards
from ..view import AGE, STARTING_SECONDS, Decision, Launch, Patience, RunView, Sight, View

GHOST_SECONDS, ENDING_SECONDS = 8.0, 120.0
"""A run without a session is reported failed when it is seen so for this long: it may just be ending. One that has said
how it ended needs but Dagster's own steps, and those may take a minute on a busy machine."""
UNBEGUN_SECONDS = 30.0
"""A run this old gets a successor when a partition of its shard has no position, since the leader was away when the run
began. Not at each tick: the run may be unable to reach a broker that the sensor reaches."""
_STARTS_DOUBLED = 4
"""How often the wait doubles for the next try while runs do not start: up to 16 times as long."""


def decide(view: View) -> Decision:
    """One tick's decision."""
    ghosts = [run for run in view.active if _is_ghost(run, view)]
    seen = {run.run_id: min(view.ghosts_seen.get(run.run_id, view.now), view.now) for run in ghosts}
    live = [run for run in view.active if run not in ghosts]
    launches: list[Launch] = []
    said: list[str] = []
    fruitless: str | None = None
    for shard in shards(view.parallelism):
        outcome = _of_shard(shard, view, live)
        if isinstance(outcome, Launch):
            launches.append(outcome)
        else:
            if silent := shard.partitions(view.unanswered):
                outcome = f"{outcome}; {unanswered_words(silent)}"
            said.append(outcome if view.parallelism == 1 else f"shard {shard}: {outcome}")
        fruitless = fruitless or fruitless_words(without_progress(shard, view))
    # A report that Dagster's storage refuses would take the launches of its tick with it.
    failed = [] if launches else [run.run_id for run in ghosts if view.now - seen[run.run_id] >= _patience(run)]
    return Decision(
        launches,
        said,
        failed,
        {run_id: since for run_id, since in seen.items() if run_id not in failed},
        _sights(view),
        fruitless,
    )


def _sights(view: View) -> dict[str, Sight]:
    """Of every run whose time the next looks judge. They take one that is not among these for a new one."""
    judged = [*view.active, *(run for run in view.recent if is_setback(run))]
    return {run.run_id: Sight(run.status, view.since(run)) for run in judged}


def _of_shard(shard: Shard, view: View, live: Collection[RunView]) -> Launch | str:
    partitions = shard.partitions(view.lag)
    silent = shard.partitions(view.unanswered)
    if not partitions and not silent:
        return "the topic has no partition for this shard"
    lag = sum(view.lag[partition] for partition in partitions)
    if view.paused is not None:
        return f"paused: {view.paused}; lag {lag:,}"
    owners = _unique(view.owners[partition] for partition in (*partitions, *silent) if partition in view.owners)
    mine = [run for run in live if run.shard == shard and run.run_id not in owners]
    overdue = [run for run in mine if _is_overdue(run, view)]
    coming = [run for run in mine if run not in overdue]
    if owners:
        return _beside_owner(shard, view, live, owners, coming, overdue, lag)
    if coming:
        return f"run {_short(coming[0].run_id)} is {_doing(coming[0])}; lag {lag:,}"
    if not partitions:
        return "lag unknown"
    if lag == 0 and not view.lost and all(partition in view.begun for partition in partitions):
        return "caught up: lag 0"
    if (why := wait_words(without_progress(shard, view), view) or _unanswered(overdue, view)) is not None:
        return f"{why}; lag {lag:,}"
    return Launch(shard)


def _beside_owner(
    shard: Shard,
    view: View,
    live: Collection[RunView],
    owners: list[str],
    coming: list[RunView],
    overdue: list[RunView],
    lag: int,
) -> Launch | str:
    owning = [run for run in live if run.run_id in owners]
    who = " and ".join(_short(run_id) for run_id in owners)
    draining = f"run {who} is draining; lag {lag:,}" if len(owners) == 1 else f"runs {who} are draining; lag {lag:,}"
    if any(run.definition == view.definition for run in coming):
        return f"{draining}; run {_short(coming[0].run_id)} is to take over"
    for run in owning:
        if (launch := _successor(run, shard, view)) is not None:
            tried = [other for other in overdue if other.definition == view.definition]
            why = wait_words(beside(shard, view, run), view) or _unanswered(tried, view)
            return launch if why is None else f"{draining}; {why}"
    return draining


def _successor(owner: RunView, shard: Shard, view: View) -> Launch | None:
    """The owner's successor, if it needs one now. A run that was launched by hand never does."""
    if owner.shard is None:
        return None
    if owner.shard.count != shard.count:
        return Launch(shard, "reshard")
    if owner.definition != view.definition:
        return Launch(shard, "definition")
    if view.age(owner) >= view.run_max_seconds - _waits(view).lead:
        return Launch(shard, AGE)
    unbegun = any(partition not in view.begun for partition in shard.partitions(view.lag))
    return Launch(shard, "partitions") if unbegun and view.age(owner) >= UNBEGUN_SECONDS else None


def _unanswered(overdue: list[RunView], view: View) -> str | None:
    """Why no run is launched beside those that have not started in time. Each of them doubles the wait."""
    if not overdue:
        return None
    youngest = min(overdue, key=view.age)
    wait = _waits(view).starting * 2.0 ** min(len(overdue) - 1, _STARTS_DOUBLED) - view.age(youngest)
    if wait <= 0:
        return None
    runs = f"{len(overdue)} run{'s have' if len(overdue) > 1 else ' has'}"
    return f"backing off: {runs} not started, {_short(youngest.run_id)} the last; next try in {wait:.0f} s"


def _is_ghost(run: RunView, view: View) -> bool:
    """Only a sensor's run can be one: a run launched by hand may be at another asset, without a session of ours."""
    if run.shard is None:
        return False
    if run.status == "NOT_STARTED":  # no queue has it, and no other process starts it
        return _is_overdue(run, view)
    due = view.age(run) >= _waits(view).opening or run.run_id in view.named
    return run.status == "STARTED" and due and run.run_id not in view.present


def _patience(run: RunView) -> float:
    return ENDING_SECONDS if run.ended else GHOST_SECONDS


def _is_overdue(run: RunView, view: View) -> bool:
    """A daemon that was killed while it launched a run leaves it so. Should it start after all: the ledger fences."""
    if run.status == "NOT_STARTED":
        return view.age(run) >= STARTING_SECONDS
    return run.status == "STARTING" and view.age(run) >= _waits(view).starting


def _waits(view: View) -> Patience:
    return view.patience or Patience()


def _doing(run: RunView) -> str:
    return "starting" if run.status == "STARTED" else run.status.lower().replace("_", " ")


def _short(run_id: str) -> str:
    return run_id[:8]


def _unique(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))
