"""Since when records wait while a position does not move, by the sensor's watch and PostgreSQL's clock.

Producers' clocks have no say: the times in their records may lie years back or hours ahead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from ..core.start import StoredPosition

if TYPE_CHECKING:
    from ..postgres.ledger import StreamState

NOTED_SECONDS = 15.0
"""A partition that waits for less is not written into the ledger: a run needs some seconds to start."""


class Waiting(NamedTuple):
    """One partition's standstill. It holds while the partition has this incarnation and this next offset.

    Attributes:
        since: in Unix seconds, by PostgreSQL's clock.
    """

    incarnation: int
    next_offset: int
    since: float


def waiting_of(state: StreamState) -> dict[int, Waiting]:
    """What the sensor has written last: partition → its standstill."""
    return {int(partition): Waiting(*values) for partition, values in (state.waiting or {}).items()}


class WaitWatch:
    """What one sensor remembers: since when it sees each partition wait at the same place.

    Args:
        max_delay_seconds: after how long the stream counts as late.
    """

    def __init__(self, max_delay_seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._noted_seconds = min(NOTED_SECONDS, max_delay_seconds / 2)
        self._monotonic = monotonic
        self._seen: dict[int, tuple[int, int, float]] = {}

    def look(
        self, known: Mapping[int, StoredPosition], lag: Mapping[int, int], state: StreamState
    ) -> dict[int, Waiting] | None:
        """What the ledger is to say now. None: it says so already.

        Args:
            lag: partitions that are not among these keep what is known of them.
        """
        now = state.now.timestamp() if state.now is not None else time.time()
        before, found = waiting_of(state), {}
        for partition, records in lag.items():
            if records == 0:
                self._seen.pop(partition, None)
            elif (waits := self._of_partition(partition, known.get(partition), before.get(partition), now)) is not None:
                found[partition] = waits
        kept = {partition: waits for partition, waits in before.items() if partition not in lag}
        return None if {**kept, **found} == before else {**kept, **found}

    def _of_partition(
        self, partition: int, at: StoredPosition | None, before: Waiting | None, now: float
    ) -> Waiting | None:
        place = place_of(at)
        seen = self._seen.get(partition)
        if seen is None or seen[:2] != place:
            seen = self._seen[partition] = (*place, self._monotonic())
        if before is not None and before[:2] == place:
            return before._replace(since=min(before.since, now))  # the clock may have been set back
        waited = self._monotonic() - seen[2]
        return Waiting(*place, now - waited) if waited >= self._noted_seconds else None


def place_of(at: StoredPosition | None) -> tuple[int, int]:
    """(incarnation, next offset). Zeros of a partition that has not begun."""
    return (at.incarnation, at.next_offset) if at is not None else (0, 0)
