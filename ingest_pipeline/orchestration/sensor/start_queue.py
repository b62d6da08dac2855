"""Lets a few runs start at a time, the longest waiting first, because starts compete for the machine's processors."""

import math
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from ...core.ports import Clock
from ..view import Launch, View

RESERVED_SECONDS = 15.0
"""How long a shard that waits keeps its turn without another tick of its sensor."""
UNSEEN_SECONDS = 5.0
"""How long after a launch another sensor's tick may not see the run in Dagster's storage."""
_FORGOTTEN_SECONDS = 600.0


@dataclass(slots=True)
class _Turn:
    since: float
    asked_at: float


class StartQueue:
    """Shared by the sensors of a process. At most `limit` runs start at the same time."""

    def __init__(self, clock: Clock, limit: int = max(2, os.cpu_count() or 1)) -> None:
        self._clock, self._limit = clock, limit
        self._lock = threading.Lock()
        self._turns: dict[tuple[str, str], _Turn] = {}
        self._launched_at: list[float] = []

    def admit(self, job: str, launches: Sequence[Launch], starting: int) -> list[Launch]:
        """The launches whose turn has come. The other launches wait for a later tick.

        Args:
            starting: runs that have not opened their session with PostgreSQL yet.
        """
        keys = {(job, str(launch.shard)): launch for launch in launches}
        with self._lock:
            now = self._clock.monotonic()
            self._turns = {
                key: turn
                for key, turn in self._turns.items()
                if (key in keys if key[0] == job else now - turn.asked_at < _FORGOTTEN_SECONDS)
            }
            for key in keys:
                self._turns.setdefault(key, _Turn(now, now)).asked_at = now
            self._launched_at = [moment for moment in self._launched_at if now - moment < UNSEEN_SECONDS]
            free = max(0, self._limit - max(starting, len(self._launched_at)))
            waiting = [key for key, turn in self._turns.items() if now - turn.asked_at < RESERVED_SECONDS]
            waiting.sort(key=lambda key: self._turns[key].since)
            admitted = [key for key in waiting[:free] if key in keys]
            for key in admitted:
                del self._turns[key]
                self._launched_at.append(now)
        return [keys[key] for key in admitted]


def starting_runs(view: View, starting_seconds: float) -> int:
    """The sensor runs of all jobs that have not opened their session yet. Old runs may be dead and do not count."""
    longest = {
        "QUEUED": math.inf,
        "NOT_STARTED": starting_seconds,
        "STARTING": starting_seconds,
        "STARTED": view.patience.opening,
    }
    return sum(
        run.shard is not None
        and run.run_id not in view.connected
        and view.now - run.started_at < longest.get(run.status, 0.0)
        for run in (*view.active, *view.elsewhere)
    )
