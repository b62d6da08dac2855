"""Small batches for slow tables: the other streams of a run wait only briefly for every transaction."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from .lane import Lane
from .ports import Source

SHARE_SECONDS = 0.25
"""How much longer than the others' transactions a transaction may take."""
FIRST_RECORDS = 100
"""Records of a stream's first batch. Every quick full batch doubles the next batch."""
_INTERRUPTED = 100
"""Divisor of a batch interrupted by PostgreSQL. The writer divides its statements likewise."""


class FairShare:
    """Limits the batches of lanes that share a connection.

    A commit that is slow for every stream leaves the limits alone, because smaller batches would not help.
    """

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._limits = {lane.stream: lane.batch.limits for lane in lanes}
        self._seconds: dict[str, float] = {}
        for lane in lanes:
            self._set_limit(lane, FIRST_RECORDS)

    def stored(self, lane: Lane, records: int, seconds: float, source: Source) -> None:
        """Set the limit of the next batch.

        Surplus records may have filled the next batch, and a full batch keeps the run from reading. A slow lane reads
        these records again.
        """
        others = [other_seconds for stream, other_seconds in self._seconds.items() if stream != lane.stream]
        usual = median(others) if others else self._seconds.get(lane.stream, seconds)
        self._seconds[lane.stream] = seconds
        excess, limits = seconds - usual, lane.batch.limits
        if excess > SHARE_SECONDS:
            self._set_limit(lane, int(records * SHARE_SECONDS / excess))
        elif excess <= SHARE_SECONDS / 2 and records >= limits.records * limits.batches_per_commit:
            self._set_limit(lane, 2 * records)
        if excess > SHARE_SECONDS / 2 and lane.batch.due:
            lane.read_again(source)

    def interrupted(self, lane: Lane, records: int, seconds: float) -> None:
        """PostgreSQL ended the transaction. The wait for a lock is shorter than a share."""
        if seconds > SHARE_SECONDS:
            self._set_limit(lane, records // _INTERRUPTED)

    def _set_limit(self, lane: Lane, records: int) -> None:
        limits = self._limits[lane.stream]
        records = max(1, min(records, limits.records * limits.batches_per_commit))
        lane.batch.limits = replace(
            limits, records=min(limits.records, records), batches_per_commit=max(1, records // limits.records)
        )
