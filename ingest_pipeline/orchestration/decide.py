"""What a tick does, as a function of what it saw: no Dagster, no clock, no connection."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from .tags import Shard, shards

START_GRACE_SECONDS = 20.0
"""How long a started run may take to open its writing session; one that had it and has it no more is gone at once."""
STARTING_SECONDS = 30.0
"""A run that Dagster has been starting for longer is not waited for."""
GHOST_SECONDS, ENDING_SECONDS = 8.0, 120.0
"""A run without a session is reported failed when it is seen so for this long: it may just be ending. One that has said
how it ended needs but Dagster's own steps, and those may take a minute on a busy machine."""
_FIRST_BACKOFF, _LONGEST_BACKOFF = 5.0, 300.0

LEAD_SECONDS = 12.0
"""How long before a run's age its successor is launched: a tick's interval and a run's start."""
AGE = "age"
"""The successor that waits for the owner's age; every other one makes the owner end at once."""


@dataclass(frozen=True, slots=True)
class RunView:
    """A Dagster run as a tick sees it. Times are Unix seconds; `ended` is the tag, "" while it lasts."""

    run_id: str
    status: str
    shard: Shard | None
    definition: str
    started_at: float
    ended_at: float | None = None
    ended: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """Everything a tick looked at.

    Attributes:
        lag: partition → records between its position and its end; the whole log where there is no position.
        begun: partitions that have a position.
        owners: partition → run id of its (not frozen) owner.
        present: runs with a writing session that is not frozen.
        named: runs that took over a position and were not followed yet: each of them has had a session.
        active: runs of this stream that Dagster shows as not ended.
        recent: the newest ended runs, newest first.
        progress_at: partition → when its position last moved; without those that never did.
        lost: Kafka does not hold a position's next offset, and a run is to go on without asking.
        acted_at: when an operator last mended something; failures before that do not count.
        ghosts_seen: run id → when a tick first saw it without a session, or created long ago and never started.
        runs_asked: whether Dagster was asked for `active` and `recent`; else both are empty, as they were before.
    """

    now: float
    parallelism: int
    definition: str
    lag: Mapping[int, int]
    begun: Collection[int]
    owners: Mapping[int, str]
    present: Collection[str]
    named: Collection[str]
    active: Collection[RunView]
    recent: Collection[RunView] = ()
    progress_at: Mapping[int, float] = field(default_factory=dict)
    paused: str | None = None
    lost: bool = False
    acted_at: float = 0.0
    run_max_seconds: float = math.inf
    ghosts_seen: Mapping[str, float] = field(default_factory=dict)
    runs_asked: bool = True


@dataclass(frozen=True, slots=True)
class Launch:
    """A run to launch. `successor`: why it is to take over from the owner, or None."""

    shard: Shard
    successor: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do. `said` has a sentence for each shard that gets no run."""

    launches: list[Launch]
    said: list[str]
    failed_ghosts: list[str]
    ghosts_seen: dict[str, float]


def decide(view: View) -> Decision:
    """One tick's decision."""
    ghosts = [run for run in view.active if _is_ghost(run, view)]
    seen = {run.run_id: view.ghosts_seen.get(run.run_id, view.now) for run in ghosts}
    live = [run for run in view.active if run not in ghosts]
    launches: list[Launch] = []
    said: list[str] = []
    for shard in shards(view.parallelism):
        outcome = _of_shard(shard, view, live)
        if isinstance(outcome, Launch):
            launches.append(outcome)
        else:
            said.append(outcome if view.parallelism == 1 else f"shard {shard}: {outcome}")
    # A report that Dagster's storage refuses would take the launches of its tick with it.
    failed = [] if launches else [run.run_id for run in ghosts if view.now - seen[run.run_id] >= _patience(run)]
    return Decision(launches, said, failed, {run_id: since for run_id, since in seen.items() if run_id not in failed})


def backoff_seconds(failures: int) -> float:
    """How long after the last of so many failures in a row the next run waits."""
    return 0.0 if failures == 0 else min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(failures - 1, 10))


def _of_shard(shard: Shard, view: View, live: Collection[RunView]) -> Launch | str:
    partitions = shard.partitions(view.lag)
    if not partitions:
        return "the topic has no partition for this shard"
    lag = sum(view.lag[partition] for partition in partitions)
    if view.paused is not None:
        return f"paused: {view.paused}; lag {lag:,}"
    owners = _unique(view.owners[partition] for partition in partitions if partition in view.owners)
    mine = [run for run in live if run.shard == shard]
    coming = [run for run in mine if run.run_id not in owners and not _never_started(run, view)]
    if owners:
        return _beside_owner(shard, view, live, owners, coming, lag)
    if coming:
        return f"run {_short(coming[0].run_id)} is {_doing(coming[0])}; lag {lag:,}"
    if lag == 0 and not view.lost and all(partition in view.begun for partition in partitions):
        return "caught up: lag 0"
    return _after_failures(shard, view, lag) or Launch(shard)


def _beside_owner(
    shard: Shard, view: View, live: Collection[RunView], owners: list[str], coming: list[RunView], lag: int
) -> Launch | str:
    owning = [run for run in live if run.run_id in owners]
    who = " and ".join(_short(run_id) for run_id in owners)
    draining = f"run {who} is draining; lag {lag:,}" if len(owners) == 1 else f"runs {who} are draining; lag {lag:,}"
    if any(run.definition == view.definition for run in coming):
        return f"{draining}; run {_short(coming[0].run_id)} is to take over"
    for run in owning:
        if run.shard is not None and run.shard.count != shard.count:
            return Launch(shard, "reshard")
        if run.shard is not None and run.definition != view.definition:
            return Launch(shard, "definition")
        if run.shard is not None and view.now - run.started_at >= view.run_max_seconds - LEAD_SECONDS:
            return Launch(shard, AGE)
    return draining


def _after_failures(shard: Shard, view: View, lag: int) -> str | None:
    progress = (view.progress_at.get(partition, 0.0) for partition in shard.partitions(view.lag))
    mended_at = max([view.acted_at, *progress])
    failed: list[RunView] = []
    for run in view.recent:
        if run.shard != shard:
            continue
        if run.status != "FAILURE" or run.started_at <= mended_at or run.definition != view.definition:
            break
        failed.append(run)
    if not failed:
        return None
    wait = (failed[0].ended_at or view.now) + backoff_seconds(len(failed)) - view.now
    if wait <= 0:
        return None
    runs = f"{len(failed)} run{'s' * (len(failed) > 1)}"
    why = failed[0].ended.removeprefix("failed:") or "killed"
    return f"backing off: the last {runs} failed without progress ({why}); next try in {wait:.0f} s; lag {lag:,}"


def _is_ghost(run: RunView, view: View) -> bool:
    """Only a sensor's run can be one: a run launched by hand may be at another asset, without a session of ours."""
    if run.shard is None:
        return False
    if run.status == "NOT_STARTED":  # no queue has it, and nobody else starts it
        return _never_started(run, view)
    due = view.now - run.started_at >= START_GRACE_SECONDS or run.run_id in view.named
    return run.status == "STARTED" and due and run.run_id not in view.present


def _patience(run: RunView) -> float:
    return ENDING_SECONDS if run.ended else GHOST_SECONDS


def _never_started(run: RunView, view: View) -> bool:
    """A daemon that was killed while it launched a run leaves it so. Should it start after all: the ledger fences."""
    return run.status in ("NOT_STARTED", "STARTING") and view.now - run.started_at >= STARTING_SECONDS


def _doing(run: RunView) -> str:
    return "starting" if run.status == "STARTED" else run.status.lower().replace("_", " ")


def _short(run_id: str) -> str:
    return run_id[:8]


def _unique(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))
