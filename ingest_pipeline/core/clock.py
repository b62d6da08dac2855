"""The machine's clock, as the `Clock` port."""

from __future__ import annotations

import time


class SystemClock:
    """Durations from the monotonic clock, Unix time for people, and real sleeping."""

    def monotonic(self) -> float:
        return time.monotonic()

    def time(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(max(0.0, seconds))
