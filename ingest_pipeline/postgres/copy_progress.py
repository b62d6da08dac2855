"""Detects whether a COPY makes progress, by comparing two looks at PostgreSQL's progress view."""

import threading
from dataclasses import dataclass
from datetime import datetime

from ..core.clock import SystemClock
from ..core.ports import Clock
from .session_settings import FROZEN_SECONDS

_FORGET_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """The progress of a COPY at one look. `state_change` is the start of its statement."""

    backend_start: datetime
    state_change: datetime
    bytes_processed: int
    tuples_processed: int


class CopyLooks:
    """Remembers how long each session's COPY has made no progress. Thread-safe."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.frozen_seconds: float = FROZEN_SECONDS
        self._clock: Clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._standing: dict[int, tuple[CopyProgress, float]] = {}

    def moved(self, pid: int) -> None:
        """Forget the session: it runs no COPY, or its COPY does not wait for the client."""
        with self._lock:
            self._standing.pop(pid, None)

    def seconds_standing(self, pid: int, progress: CopyProgress) -> float | None:
        """Seconds without progress, as seen by this process. None at the first look at a session, 0 after progress."""
        now = self._clock.monotonic()
        with self._lock:
            last, since = self._standing.get(pid, (None, now))
            if last == progress:
                return now - since
            recent = {key: seen for key, seen in self._standing.items() if now - seen[1] < _FORGET_SECONDS}
            self._standing = {**recent, pid: (progress, now)}
            return None if last is None or last.backend_start != progress.backend_start else 0.0
