"""Whether a COPY moves: one look at PostgreSQL's progress view cannot tell, two looks can."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime

from ..core.clock import SystemClock
from ..core.ports import Clock

_FORGET_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """How far one COPY had come at one look. `state_change` is when its statement began."""

    backend_start: datetime
    state_change: datetime
    bytes_processed: int
    tuples_processed: int


class CopyLooks:
    """Remembers since when each session's COPY has stood at the same place. Threads may share it."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock: Clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._standing: dict[int, tuple[CopyProgress, float]] = {}

    def moved(self, pid: int) -> None:
        """The session is in no COPY now, or its COPY does not wait for the client."""
        with self._lock:
            self._standing.pop(pid, None)

    def seconds_standing(self, pid: int, progress: CopyProgress) -> float | None:
        """Seconds since this process first saw the session's COPY at this place. None at the first look at a session,
        and 0 where it has moved since the last one."""
        now = self._clock.monotonic()
        with self._lock:
            last, since = self._standing.get(pid, (None, now))
            if last == progress:
                return now - since
            recent = {key: seen for key, seen in self._standing.items() if now - seen[1] < _FORGET_SECONDS}
            self._standing = {**recent, pid: (progress, now)}
            return None if last is None or last.backend_start != progress.backend_start else 0.0
