"""A tick's decision as a pure function of its view: no Dagster, no clock, no connection."""

from collections.abc import Collection, Sequence
from itertools import takewhile

from ...core.start import unanswered_words
from ..setbacks import (
    backoff_message,
    backoff_wait,
    fruitless_message,
    is_setback,
    runs_without_progress,
    setbacks_of,
    unsuccessful_successors,
)
from ..tags import Shard, shards
from ..view import AGE, STARTING_SECONDS, Decision, Launch, RunView, Share, StatusSince, View

GHOST_SECONDS, ENDING_SECONDS = 8.0, 120.0
"""A run without a session may be ending, and is reported failed only after GHOST_SECONDS. A run with an end reason gets
ENDING_SECONDS, because Dagster's own last steps may take a minute on a busy machine."""
UNBEGUN_SECONDS = 30.0
"""A partition has no position if its leader was away when the run began. At this age the run gets a successor. Younger
runs get none, because runs may be unable to reach a broker that the sensor reaches."""
NAMED_STREAMS = 3
"""Most streams that a skip reason names."""
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
        shares = view.shares(shard)
        outcome = _decide_shard(shard, shares, view, live)
        if isinstance(outcome, Launch):
            launches.append(outcome)
        else:
            message = _message(outcome, shares, view)
            skip_reasons.append(message if view.parallelism == 1 else f"shard {shard}: {message}")
        fruitless = fruitless or fruitless_message(runs_without_progress(shard, shares, view))
    # An error of Dagster's storage during a report would lose this tick's launches.
    failed: list[str] = []
    if not launches:
        waits = {run.run_id: ENDING_SECONDS if run.ended else GHOST_SECONDS for run in ghosts}
        failed = [run_id for run_id, seconds in waits.items() if view.now - ghosts_seen[run_id] >= seconds]
    return Decision(
        launches,
        skip_reasons,
        failed_ghosts=failed,
        ghosts_seen={run_id: since for run_id, since in ghosts_seen.items() if run_id not in failed},
        last_statuses=_last_statuses(view),
        fruitless=fruitless,
    )


def superseded(view: View, launches: Collection[Launch]) -> list[str]:
    """Runs to cancel: their process has not started, and a run of these launches or of today's definition replaces
    them. A slow launcher would otherwise collect runs."""
    launched = [launch.shard for launch in launches]
    return [
        run.run_id
        for run in view.active
        if run.shard is not None and run.unstarted and (run.shard in launched or _is_outdated(run, view))
    ]


def _last_statuses(view: View) -> dict[str, StatusSince]:
    """The next tick's memory of runs. A run without an entry counts as new."""
    judged = [*view.active, *(run for run in view.recent if is_setback(run))]
    return {run.run_id: StatusSince(run.status, view.since(run)) for run in judged}


def _message(reasons: Sequence[str], shares: Sequence[Share], view: View) -> str:
    if not shares:
        return "the topic has no partition for this shard" if len(view.streams) == 1 else "no partition for this shard"
    if len(view.streams) > 1:
        return "; ".join([summary(shares), *reasons])
    share = shares[0]
    if share.stream.held_up is not None:
        reasons = [share.stream.held_up]
    if reasons:
        reasons = [*reasons[:1], f"lag {share.lag:,}", *reasons[1:]]
    else:
        reasons = ["caught up: lag 0"] if share.partitions else ["lag unknown"]
    return "; ".join([*reasons, *([unanswered_words(share.unanswered)] if share.unanswered else [])])


def summary(shares: Sequence[Share]) -> str:
    """The state of a shard of several streams: counts of those that are well, then the others with their reasons."""
    draining, waiting, caught_up = [], [], 0
    troubles: list[str] = []
    for share in shares:
        stream = share.stream
        if stream.held_up is not None:
            troubles.append(f"{stream.name} {stream.held_up}")
        elif stream.stopped and not share.owners:
            troubles.append(f"{stream.name} stopped: {stream.failure}")
        elif share.unanswered:
            troubles.append(f"{stream.name}: a leader does not answer, the lag is not known")
        elif not share.due:
            caught_up += 1
        elif share.owners:
            draining.append(share.lag)
        else:
            waiting.append(share.lag)
    parts = [f"{caught_up:,} caught up"] if caught_up else []
    for word, lags in (("draining", draining), ("waiting", waiting)):
        if lags:
            parts.append(f"{len(lags):,} {word}, lag {sum(lags):,}")
    parts += troubles[:NAMED_STREAMS]
    if more := len(troubles) - NAMED_STREAMS:
        parts += [f"and {more:,} more"] if more > 0 else []
    return "; ".join(parts)


def _decide_shard(shard: Shard, shares: Sequence[Share], view: View, live: Collection[RunView]) -> Launch | list[str]:
    """A launch, or the reasons for none beside the lag."""
    ready = [share for share in shares if share.stream.held_up is None]
    if not ready:
        return []
    owners = list(dict.fromkeys(run_id for share in shares for run_id in share.owners))
    runs = [run for run in live if run.shard == shard and run.run_id not in owners]
    shard_runs = [run for run in runs if not (run.unstarted and _is_outdated(run, view))]
    overdue = [run for run in shard_runs if _is_overdue(run, view)]
    pending = [run for run in shard_runs if run not in overdue]
    due = [share for share in ready if share.due and not share.owners]
    # A run by hand or of another job leaves the other streams to a run of this shard.
    if owners and (not due or any(run.run_id in owners and run.shard is not None for run in live)):
        return _with_owner(shard, ready, view, live, owners=owners, pending=pending, overdue=overdue)
    if pending:
        status = "starting" if pending[0].status == "STARTED" else pending[0].status.lower().replace("_", " ")
        return [f"run {_short(pending[0].run_id)} is {status}"]
    if not due:
        return []
    setbacks = min((setbacks_of(share, shard, view) for share in due), key=lambda runs: backoff_wait(runs, view))
    reason = backoff_message(setbacks, view) or _overdue_message(shard, overdue, view)
    return Launch(shard) if reason is None else [reason]


def _with_owner(
    shard: Shard,
    shares: Sequence[Share],
    view: View,
    live: Collection[RunView],
    *,
    owners: list[str],
    pending: list[RunView],
    overdue: list[RunView],
) -> Launch | list[str]:
    owner_runs = [run for run in live if run.run_id in owners]
    names = " and ".join(_short(run_id) for run_id in owners)
    draining = f"run {names} is draining" if len(owners) == 1 else f"runs {names} are draining"
    if any(run.definition == view.definition for run in pending):
        return [draining, f"run {_short(pending[0].run_id)} will take over"]
    for run in owner_runs:
        if (launch := _successor(run, shard, shares, view)) is not None:
            setbacks = unsuccessful_successors(shard, shares, view, run)
            overdue_successors = [successor for successor in overdue if successor.definition == view.definition]
            reason = backoff_message(setbacks, view) or _overdue_message(shard, overdue_successors, view)
            return launch if reason is None else [draining, reason]
    return [draining]


def _successor(owner: RunView, shard: Shard, shares: Sequence[Share], view: View) -> Launch | None:
    """The owner's successor, if one is due. A run launched by hand gets no successor."""
    if owner.shard is None:
        return None
    if owner.shard.count != shard.count:
        return Launch(shard, "reshard")
    if owner.definition != view.definition:
        return Launch(shard, "definition")
    if view.age(owner) >= view.run_max_seconds - view.patience.lead:
        return Launch(shard, AGE)
    # The run itself tries again to begin a stream.
    unbegun = any(share.unbegun and share.stream.begun and not share.stream.stopped for share in shares)
    return Launch(shard, "partitions") if unbegun and view.age(owner) >= UNBEGUN_SECONDS else None


def _overdue_message(shard: Shard, overdue: list[RunView], view: View) -> str | None:
    """Why overdue runs delay the next launch. Every run in a row that did not start doubles the wait."""
    if not overdue:
        return None
    youngest = min(overdue, key=view.age)
    of_shard = (run for run in view.recent if run.shard == shard)
    canceled = list(takewhile(lambda run: run.never_started and not _is_outdated(run, view), of_shard))
    count = len(overdue) + len(canceled)
    wait = view.patience.starting * 2.0 ** min(count - 1, _STARTS_DOUBLED) - view.age(youngest)
    if wait <= 0:
        return None
    runs = f"{count} run{'s have' if count > 1 else ' has'}"
    return f"backing off: {runs} not started, {_short(youngest.run_id)} the last, next try in {wait:.0f} s"


def _is_ghost(run: RunView, view: View) -> bool:
    """Whether a sensor's run has no working process. A run by hand may work on another asset, without a session."""
    if run.shard is None:
        return False
    if run.status == "NOT_STARTED":  # not in the queue, and no process will start the run
        return _is_overdue(run, view)
    grace_over = view.age(run) >= view.patience.opening or run.run_id in view.recorded_owners
    return run.status == "STARTED" and grace_over and run.run_id not in view.connected


def _is_overdue(run: RunView, view: View) -> bool:
    """A killed daemon leaves launches unfinished. The ledger fences a run with a late start."""
    if run.status == "NOT_STARTED":
        return view.age(run) >= STARTING_SECONDS
    return run.status == "STARTING" and view.age(run) >= view.patience.starting


def _is_outdated(run: RunView, view: View) -> bool:
    """Whether the run was launched for another definition or another number of shards."""
    return run.definition != view.definition or (run.shard is not None and run.shard.count != view.parallelism)


def _short(run_id: str) -> str:
    return run_id[:8]
