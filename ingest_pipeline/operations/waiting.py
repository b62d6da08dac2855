"""Since when records wait while a position does not move, by the sensor's watch and PostgreSQL's clock.

Producers' clocks do not count, because the times in their records may lie years back or hours ahead.
"""

from collections.abc import Mapping
from typing import NamedTuple

from ..core.ledger import StreamState
from ..core.ports import Clock
from ..core.record import StoredPosition

NOTED_SECONDS = 15.0
"""A shorter wait is not written to the ledger, because a run needs some seconds to start."""


class Waiting(NamedTuple):
    """A partition's standstill. A change of the incarnation or the next offset ends the standstill.

    Attributes:
        since: in Unix seconds, by PostgreSQL's clock.
    """

    incarnation: int
    next_offset: int
    since: float


def waiting_of(state: StreamState) -> dict[int, Waiting]:
    """Partition → standstill, as last written by the sensor."""
    return {int(partition): Waiting(*values) for partition, values in (state.waiting or {}).items()}


class WaitWatch:
    """A sensor's memory: since when every partition waits at the same next offset."""

    def __init__(self, max_delay_seconds: float, clock: Clock) -> None:
        self._noted_seconds = min(NOTED_SECONDS, max_delay_seconds / 2)
        self._clock = clock
        self._seen: dict[int, tuple[int, int, float]] = {}

    def look(
        self, positions: Mapping[int, StoredPosition], lag: Mapping[int, int], state: StreamState
    ) -> dict[int, Waiting] | None:
        """The standstills to write to the ledger. None: the ledger is up to date.

        Args:
            lag: partition → records. A missing partition keeps the standstill of the ledger.
        """
        now = state.now.timestamp() if state.now is not None else self._clock.time()
        written = waiting_of(state)
        waiting = {partition: entry for partition, entry in written.items() if partition not in lag}
        for partition, records in lag.items():
            if records == 0:
                self._seen.pop(partition, None)
                continue
            offset = resume_at(positions.get(partition))
            if (entry := self._of_partition(partition, offset, written.get(partition), now)) is not None:
                waiting[partition] = entry
        return None if waiting == written else waiting

    def _of_partition(
        self, partition: int, offset: tuple[int, int], written: Waiting | None, now: float
    ) -> Waiting | None:
        seen = self._seen.get(partition)
        if seen is None or seen[:2] != offset:
            seen = self._seen[partition] = (*offset, self._clock.monotonic())
        if written is not None and written[:2] == offset:
            return written._replace(since=min(written.since, now))  # the clock may have been set back
        seconds = self._clock.monotonic() - seen[2]
        return Waiting(*offset, now - seconds) if seconds >= self._noted_seconds else None


def resume_at(position: StoredPosition | None) -> tuple[int, int]:
    """(incarnation, next offset). Zeros before the partition's beginning."""
    return (position.incarnation, position.next_offset) if position is not None else (0, 0)
