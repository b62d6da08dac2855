"""A run over time in bounded memory: rows and the highest latency per stretch of equal length."""

from __future__ import annotations

from dataclasses import dataclass, field

MOST = 40
"""Maximum number of stretches, for a picture in Dagster's UI. Beyond the maximum, neighbours merge and the length of a
stretch doubles."""


@dataclass(slots=True)
class Stretch:
    """Committed rows, and the longest time from a record's Kafka timestamp to the commit. 0 without rows."""

    rows: int = 0
    latency_ms: float = 0.0


@dataclass(slots=True)
class History:
    """`started_at` is in monotonic seconds, `seconds` is the length of a stretch."""

    started_at: float
    seconds: float = 1.0
    stretches: list[Stretch] = field(default_factory=list)

    def add(self, now: float, rows: int, latency_ms: float) -> None:
        """Count a commit at `now`, in monotonic seconds."""
        while (index := int(max(0.0, now - self.started_at) / self.seconds)) >= MOST:
            self._halve()
        self.stretches += [Stretch() for _ in range(index + 1 - len(self.stretches))]
        stretch = self.stretches[index]
        stretch.rows += rows
        stretch.latency_ms = max(stretch.latency_ms, latency_ms)

    def _halve(self) -> None:
        pairs = [self.stretches[i : i + 2] for i in range(0, len(self.stretches), 2)]
        self.stretches = [Stretch(sum(s.rows for s in pair), max(s.latency_ms for s in pair)) for pair in pairs]
        self.seconds *= 2
