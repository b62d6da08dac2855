"""The checks of a run's streams, evaluated by one look beside the drain."""

from collections import deque
from collections.abc import Collection, Sequence
from concurrent.futures import Executor, Future
from typing import TypeAlias

from ..checks import CheckResult
from .drained_stream import DrainedStream

FIRST_SECONDS = 5.0
"""Time from the first batch to the first look."""
REPORT_SECONDS = 0.25
"""Interval of the reported results. The drain waits for each, up to 20 ms with SQLite."""
News: TypeAlias = list[tuple[DrainedStream, CheckResult]]


class RunChecks:
    """Looks from time to time, and reports the results that `DrainedStream.check_news` returns one by one."""

    def __init__(self, streams: Sequence[DrainedStream], executor: Executor) -> None:
        self._streams, self._executor, self._seconds = streams, executor, streams[0].report_seconds
        self._clients = streams[0].stream_context.clients
        self._look_at: float | None = None
        self._report_at = 0.0
        self._look: Future[News] | None = None
        self._news: deque[tuple[DrainedStream, CheckResult]] = deque()

    def poll(self) -> None:
        """Called after every round of the drain."""
        now = self._clients.clock.monotonic()
        if self._look_at is None:
            self._look_at = now + min(FIRST_SECONDS, self._seconds)
        if self._look is not None and self._look.done():
            self._news.extend(self._look.result())
            self._look = None
        if self._news:
            if now >= self._report_at:
                self._report_at = now + REPORT_SECONDS
                self._report()
        elif self._look is None and now >= self._look_at:
            self._look_at = now + self._seconds
            self._look = self._executor.submit(self.look)

    def look_soon(self) -> None:
        """Look at the next poll without a look and without results to report."""
        self._look_at = 0.0

    def finish(self, reported: Collection[str] = ()) -> None:
        """Report the results at the end of the run. Streams in `reported` have reported theirs."""
        if self._look is not None and not self._look.cancel():
            self._news.extend(self._look.result())
        news = [*self._news, *self.look()]
        newest = {(stream.name, result.name): (stream, result) for stream, result in news}
        self._news = deque(item for item in newest.values() if item[0].name not in reported)
        while self._news:
            self._report()

    def look(self) -> News:
        """The news of all streams, failed checks first."""
        results = self._streams[0].check_results([stream.stream_context for stream in self._streams])
        every = ((stream, stream.check_news(result)) for stream in self._streams for result in results[stream.name])
        news = [(stream, result) for stream, result in every if result is not None]
        self._clients.release_idle()
        return sorted(news, key=lambda item: item[1].passed)

    def _report(self) -> None:
        stream, result = self._news.popleft()
        stream.report_check(result)
