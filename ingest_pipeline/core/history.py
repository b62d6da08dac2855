"""How a run went over time, in bounded memory: counts and the worst latency of equal stretches."""

from __future__ import annotations

from dataclasses import dataclass, field

MOST = 40
"""Stretches kept, as many as a picture in Dagster's UI has room for; when there would be more, two become one and
stretches are twice as long from then on."""


@dataclass(slots=True)
class Stretch:
    """Rows committed in it, and the longest time from a record's Kafka timestamp to its commit; 0 without rows."""

    rows: int = 0
    latency_ms: float = 0.0


@dataclass(slots=True)
class History:
    """Begins at `started_at`, monotonic seconds; `seconds` is the length of a stretch."""

    started_at: float
    seconds: float = 1.0
    stretches: list[Stretch] = field(default_factory=list)

    def add(self, at: float, rows: int, latency_ms: float) -> None:
        """Count a commit at a moment, monotonic seconds."""
        while (index := int(max(0.0, at - self.started_at) / self.seconds)) >= MOST:
            self._halve()
        self.stretches += [Stretch() for _ in range(index + 1 - len(self.stretches))]
        here = self.stretches[index]
        here.rows += rows
        here.latency_ms = max(here.latency_ms, latency_ms)

    def _halve(self) -> None:
        pairs = [self.stretches[i : i + 2] for i in range(0, len(self.stretches), 2)]
        self.stretches = [Stretch(sum(one.rows for one in pair), max(one.latency_ms for one in pair)) for pair in pairs]
        self.seconds *= 2
