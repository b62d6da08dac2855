"""A clock that only a test moves, and an executor without threads for such a clock."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any


class SettableClock:
    """Implements the `Clock` port. `sleep` returns at once and moves the clock by the given seconds.

    `monotonic` starts at 0. `time` shows the same clock as Unix time.
    """

    def __init__(self, unix_time: float = 1_700_000_000.0) -> None:
        self._started_at = unix_time
        self._elapsed = 0.0

    def monotonic(self) -> float:
        return self._elapsed

    def time(self) -> float:
        return self._started_at + self._elapsed

    def sleep(self, seconds: float) -> None:
        self.advance(max(0.0, seconds))

    def advance(self, seconds: float) -> None:
        """Move the clock forward. Raises ValueError for a negative duration."""
        if seconds < 0:
            raise ValueError(f"a monotonic clock cannot go back by {-seconds:g} s")
        self._elapsed += seconds


class InlineExecutor(Executor):
    """Calls a submitted function at once, in the caller's thread."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future
