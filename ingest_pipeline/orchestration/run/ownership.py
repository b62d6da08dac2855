"""Ownership of a run's partitions: how long a run waits for owners, and the names of the owners in its reports."""

from collections.abc import Callable, Mapping, Sequence

import dagster as dg

from ...core.end_reasons import EndReason
from ...core.ledger import HandoverRequest, Holder
from ...core.ownership import take_ownership
from .. import tags
from ..patience import SUCCESSOR_SECONDS, successor_seconds
from ..view import AGE
from .drained_stream import DrainedStream

SURPLUS_SECONDS = 1.0
"""How long a run that is no successor tries to own its shard."""

Owners = Mapping[str, Mapping[int, Holder]]
"""Stream → partition → owner."""


def own(
    streams: Sequence[DrainedStream], run: dg.DagsterRun, *, run_max_seconds: float, stop: Callable[[], str | None]
) -> Owners:
    """Own the partitions of prepared streams, and return the owners of the others. A sensor's run owns its whole share
    of a stream or nothing, and a run by hand owns the free partitions."""
    prepared = {stream.lane.session: stream for stream in streams if stream.opening is not None}
    wanted = {session: stream.opening.partitions for session, stream in prepared.items() if stream.opening is not None}
    clock = streams[0].stream_context.clients.clock
    if tags.shard_of(run.tags) is None:
        others = take_ownership(wanted, clock, exact=False)
    elif (why := run.tags.get(tags.SUCCESSOR)) is not None:
        request = HandoverRequest.AT_MAXIMUM_AGE if why == AGE else HandoverRequest.NOW
        seconds = successor_seconds(run_max_seconds) if why == AGE else SUCCESSOR_SECONDS
        others = take_ownership(wanted, clock, exact=True, request=request, wait_seconds=seconds, stop=stop)
    else:
        others = take_ownership(wanted, clock, exact=True, wait_seconds=SURPLUS_SECONDS, stop=stop)
    for session, stream in prepared.items():
        if session.positions or not others.get(session):
            stream.begin()
        else:
            stream.lane.end_reason = EndReason.SUPERSEDED
    return {stream.name: others[session] for session, stream in prepared.items() if session in others}


def surplus_message(job: str, shard: tags.Shard, owners: Owners) -> str:
    """For a run that owns nothing."""
    run_ids = {holder.run_id[:8] for holders in owners.values() for holder in holders.values()}
    names = ", ".join(sorted(f"run {run_id}" for run_id in run_ids)) or "another run"
    return f"shard {shard} of {job} is drained by {names}: nothing to do here"
