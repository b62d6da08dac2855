"""The checks of a stream in a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import dagster as dg

from ...operations.stream_context import StreamContext
from ..checks import CheckResult, Evaluations, check_results
from .check_news import CheckNews
from .journal import Journal


class StreamChecks:
    """Evaluates the checks and reports the news.

    Args:
        key: the asset of the events.
        evaluations: see `check_results`.

    Attributes:
        judged: changes a result, by what the run knows.
    """

    def __init__(
        self,
        context: StreamContext,
        key: dg.AssetKey,
        journal: Journal,
        *,
        evaluations: Evaluations | None,
        news: CheckNews,
    ) -> None:
        self._context, self._key, self._journal = context, key, journal
        self._evaluations, self._news = evaluations, news
        self.judged: Callable[[CheckResult], CheckResult] = lambda result: result

    def evaluate(self, limit_reached: str | None = None) -> Iterator[None]:
        """Evaluate and report the checks one by one.

        Args:
            limit_reached: see `check_results`.
        """
        for result in check_results(self._context, limit_reached, self._evaluations):
            if (news := self.news(result)) is not None:
                self.report(news)
            yield
        self._context.clients.release_idle()

    def evaluate_all(self, limit_reached: str | None = None) -> None:
        for _ in self.evaluate(limit_reached):
            pass

    def news(self, result: CheckResult) -> CheckResult | None:
        """The result to report. None: nothing has changed."""
        return self._news.of(self.judged(result))

    def report(self, result: CheckResult) -> None:
        self._journal.event(result.evaluation(self._key))
