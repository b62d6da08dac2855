"""The checks of a run: one look for all, and one changed result at a time."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from ingest_pipeline.orchestration.checks import CheckResult
from ingest_pipeline.orchestration.run.check_news import CheckNews
from ingest_pipeline.orchestration.run.run_checks import FIRST_SECONDS, REPORT_SECONDS, RunChecks
from ingest_pipeline.testing import InlineExecutor, SettableClock

LOOK_SECONDS = 600.0


class Streams:
    """Two streams, the results that the servers give for them, and what is reported."""

    def __init__(self) -> None:
        self.clock = SettableClock()
        self.results = {name: {"up_to_date": True, "no_data_loss": True} for name in ("price", "temperature")}
        self.looks = self.released = 0
        self.reported: list[tuple[str, str, bool]] = []
        self.before: dict[str, bool] = {}
        streams: list[Any] = [self._stream(name) for name in self.results]
        self.executor = InlineExecutor()
        self.checks = RunChecks(streams, self.executor)

    def _stream(self, name: str) -> Any:
        clients = SimpleNamespace(clock=self.clock, release_idle=self._release)
        context = SimpleNamespace(clients=clients, name=name)

        def report(result: CheckResult) -> None:
            self.reported.append((name, result.name, result.passed))

        news = CheckNews(only_changes=True, last_passed=lambda check: self.before.get(f"{name} {check}"))
        return SimpleNamespace(
            name=name,
            stream_context=context,
            check_results=self._look,
            report_seconds=LOOK_SECONDS,
            check_news=news.of,
            report_check=report,
        )

    def _release(self) -> None:
        self.released = self.looks

    def _look(self, contexts: Sequence[Any]) -> Mapping[str, list[CheckResult]]:
        self.looks += 1
        return {
            context.name: [CheckResult(name, passed, "") for name, passed in self.results[context.name].items()]
            for context in contexts
        }

    def poll(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.checks.poll()


@pytest.fixture
def streams() -> Streams:
    return Streams()


def test_one_look_is_for_all_streams_and_failures_come_first(streams: Streams) -> None:
    streams.results["temperature"]["up_to_date"] = False
    streams.poll(0)
    assert streams.looks == 0
    streams.poll(FIRST_SECONDS)
    assert streams.looks == streams.released == 1
    for reported in range(1, 5):
        streams.poll(REPORT_SECONDS)
        assert len(streams.reported) == reported, "one at a time, because the drain waits"
    assert streams.reported[0] == ("temperature", "up_to_date", False)
    streams.poll(REPORT_SECONDS)
    assert (streams.looks, len(streams.reported)) == (1, 4)


def test_only_changes_are_reported(streams: Streams) -> None:
    streams.before = {f"{name} {check}": True for name, checks in streams.results.items() for check in checks}
    streams.results["price"]["no_data_loss"] = False
    for _ in range(3):
        streams.poll(LOOK_SECONDS)
        streams.poll(REPORT_SECONDS)
    assert streams.looks > 1
    assert streams.reported == [("price", "no_data_loss", False)]


def test_the_end_of_a_run_reports_at_once_but_not_for_failed_streams(streams: Streams) -> None:
    streams.checks.finish(["price"])
    assert streams.looks == 1
    assert sorted(streams.reported) == [("temperature", "no_data_loss", True), ("temperature", "up_to_date", True)]


def test_a_failure_brings_the_next_look_forward(streams: Streams) -> None:
    streams.poll(0)
    streams.poll(FIRST_SECONDS)
    for _ in range(4):
        streams.poll(REPORT_SECONDS)
    streams.results["price"]["no_data_loss"] = False
    streams.checks.look_soon()
    streams.poll(0)
    streams.poll(REPORT_SECONDS)
    assert streams.looks == 2
    assert streams.reported[-1] == ("price", "no_data_loss", False)


def test_the_end_does_not_wait_for_a_look_that_has_not_begun(streams: Streams) -> None:
    """The executor is busy with streams that are opened again."""
    queued: Future[Any] = Future()
    streams.executor.submit = lambda *_: queued  # type: ignore[method-assign]
    streams.poll(0)
    streams.poll(FIRST_SECONDS)
    streams.checks.finish()
    assert queued.cancelled()
    assert len(streams.reported) == 4


def test_the_end_reports_what_a_look_has_found_before(streams: Streams) -> None:
    streams.results["price"]["no_data_loss"] = False
    streams.poll(0)
    streams.poll(FIRST_SECONDS)
    streams.poll(REPORT_SECONDS)
    assert streams.reported == [("price", "no_data_loss", False)]
    streams.checks.finish()
    assert len(set(streams.reported)) == len(streams.reported) == 4
