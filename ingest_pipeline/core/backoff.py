"""Waits between retries, up to a deadline."""

import random
from collections.abc import Callable

from .errors import IngestError
from .ports import Clock

FIRST_SECONDS, LONGEST_SECONDS = 0.2, 5.0


class Backoff:
    """Doubling waits with jitter. The retries of an operation share one Backoff and its deadline.

    Args:
        limit_seconds: deadline for the start of a retry, counted from the creation of the Backoff.
    """

    def __init__(self, clock: Clock, limit_seconds: float, stop: Callable[[], str | None]) -> None:
        self._clock, self._stop = clock, stop
        self._deadline = clock.monotonic() + limit_seconds
        self._seconds = FIRST_SECONDS

    def wait(self, fault: IngestError) -> None:
        """Sleep until the next retry. Raises as `next_seconds`."""
        self._clock.sleep(self.next_seconds(fault))

    def next_seconds(self, fault: IngestError) -> float:
        """How long to wait for the next retry. Raises `fault` when the deadline would pass or `stop` gives a reason."""
        if self._stop() is not None or self._clock.monotonic() + self._seconds > self._deadline:
            raise fault
        seconds = self._seconds * random.uniform(0.5, 1.0)  # noqa: S311 (jitter, not a secret)
        self._seconds = min(self._seconds * 2, LONGEST_SECONDS)
        return seconds
