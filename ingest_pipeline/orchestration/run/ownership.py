"""Ownership of a run's partitions: how long a run waits for owners, and the names of the owners in its reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import dagster as dg

from ...core.ledger import HandoverRequest, Holder
from ...core.ports import LedgerSession
from .. import tags
from ..patience import SUCCESSOR_SECONDS, successor_seconds
from ..view import AGE

SURPLUS_SECONDS = 1.0
"""How long a run that is no successor tries to own its shard."""


def own(
    session: LedgerSession,
    partitions: list[int],
    run: dg.DagsterRun,
    *,
    run_max_seconds: float,
    stop: Callable[[], str | None],
) -> dict[int, Holder]:
    """Own the partitions, and return the owners of the others. A sensor's run owns its whole shard or nothing, and a
    run by hand owns the free partitions."""
    if tags.shard_of(run.tags) is None:
        return session.own(partitions, exact=False)
    if (why := run.tags.get(tags.SUCCESSOR)) is not None:
        request = HandoverRequest.AT_MAXIMUM_AGE if why == AGE else HandoverRequest.NOW
        seconds = successor_seconds(run_max_seconds) if why == AGE else SUCCESSOR_SECONDS
        return session.own(partitions, exact=True, announce=request, wait_seconds=seconds, stop=stop)
    return session.own(partitions, exact=True, wait_seconds=SURPLUS_SECONDS, stop=stop)


def surplus_message(stream: str, shard: tags.Shard, owners: Mapping[int, Holder]) -> str:
    """For a run that owns nothing."""
    names = ", ".join(sorted({f"run {holder.run_id[:8]}" for holder in owners.values()})) or "another run"
    return f"shard {shard} of {stream} is drained by {names}: nothing to do here"


def owners_metadata(owners: Mapping[int, Holder]) -> dict[str, str]:
    """The partitions that a run by hand left to their owners."""
    if not owners:
        return {}
    names = [f"partition {partition}: run {holder.run_id[:8]}" for partition, holder in sorted(owners.items())]
    return {"drained_by_others": ", ".join(names)}
