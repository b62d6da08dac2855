"""The state of a shard of several streams in one line."""

from collections.abc import Sequence

from ..view import Share

NAMED_STREAMS = 3
"""Most streams that a line names."""


def summary(shares: Sequence[Share]) -> str:
    """Counts of the streams that are well, then the names of the others and their reasons."""
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
