"""Percentiles of the time from append to commit, in bounded memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

_GROWTH = 1.1


class LatencyHistogram:
    """Counts milliseconds in buckets growing by 10 %. A percentile is accurate to 10 %."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self._count = 0
        self.maximum_ms = 0.0

    def add(self, committed_at_ms: float, appended_at_ms: Iterable[int]) -> None:
        """Count records by the Unix times of append and commit. With clock skew, the delay counts as 0 ms."""
        for appended, count in Counter(appended_at_ms).items():
            delay = max(0.0, committed_at_ms - appended)
            self.maximum_ms = max(self.maximum_ms, delay)
            self._buckets[math.ceil(math.log(max(delay, 1.0), _GROWTH))] += count
            self._count += count

    def percentile_ms(self, share: float) -> float | None:
        """The delay that `share` (0 to 1) of the records did not exceed. None before the first record."""
        remaining = share * self._count
        for bucket in sorted(self._buckets):
            remaining -= self._buckets[bucket]
            if remaining <= 0:
                return float(min(_GROWTH**bucket, self.maximum_ms)) if self._count else None
        return None
