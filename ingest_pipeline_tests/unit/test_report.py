"""What a run reports, with its latencies and history: never a reason to end it, never long without a sign of life."""

import logging
import re
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import dagster as dg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingest_pipeline.core.background import Background
from ingest_pipeline.core.errors import IngestError, KafkaUnavailable, NotPermitted, TopicMissing
from ingest_pipeline.core.progress import MOST, History, LatencyHistogram, Progress
from ingest_pipeline.core.record import NextOffset, Position
from ingest_pipeline.orchestration.run.picture import INLINE, picture
from ingest_pipeline.orchestration.run.report import FIRST_REPORT_SECONDS, Reporter
from ingest_pipeline.testing import MemoryBroker, MemoryTopic, SettableClock
from ingest_pipeline_tests.samples import READING, STEADY
from ingest_pipeline_tests.unit.scripted_kafka import at_once


class SilentTopic(MemoryTopic):
    """Raises what it is given instead of telling the ends."""

    def __init__(self, error: IngestError) -> None:
        super().__init__(MemoryBroker({"reading": 1}), "reading")
        self.error = error

    def end_offsets(self, partitions: Collection[int]) -> dict[int, NextOffset]:
        raise self.error


def reporter(
    clock: SettableClock,
    topic: MemoryTopic,
    emitted: list[Any],
    log_seconds: float = 0.0,
    first_report_seconds: float = FIRST_REPORT_SECONDS,
    background: Background = at_once,
) -> Reporter:
    return Reporter(
        stream=READING,
        key=dg.AssetKey("reading"),
        event=dg.AssetObservation,
        emit=emitted.append,
        topic=topic,
        clock=clock,
        report_seconds=60.0,
        log=logging.getLogger("test"),
        row_count=lambda: None,
        log_seconds=log_seconds,
        first_report_seconds=first_report_seconds,
        background=background,
    )


@pytest.mark.parametrize(
    "error",
    [KafkaUnavailable("away"), NotPermitted("a right was taken away"), TopicMissing("deleted")],
)
def test_a_broker_that_does_not_tell_the_ends_costs_the_lag_alone(error: IngestError) -> None:
    clock, emitted = SettableClock(), list[Any]()
    report = reporter(clock, SilentTopic(error), emitted)
    progress = Progress(clock.monotonic(), 1000)
    progress.to_offsets[0] = 5
    clock.advance(61)
    report(progress)
    assert len(emitted) == 1
    assert "lag" not in emitted[0].metadata


def test_a_report_does_not_wait_for_a_silent_leader() -> None:
    clock, emitted, questions = SettableClock(), list[Any](), list[tuple[Future[Any], Callable[[], Any]]]()

    def later(question: Callable[[], Any]) -> Future[Any]:
        questions.append((Future(), question))
        return questions[-1][0]

    broker = MemoryBroker({"reading": 1})
    report = reporter(clock, MemoryTopic(broker, "reading"), emitted, background=later)
    progress = Progress(clock.monotonic(), 1000)
    progress.to_offsets[0] = 0
    clock.advance(61)
    report(progress)
    report(progress)
    assert (len(questions), emitted) == (1, [])
    broker.append("reading", 0, b"{}")
    ((answer, question),) = questions
    answer.set_result(question())
    for _ in range(2):
        report(progress)
    assert [event.metadata["lag"].value for event in emitted] == [1]


@pytest.mark.parametrize(("log_seconds", "expected"), [(0.0, ["1", "1", "1", "1"]), (10.0, ["1", "3"])])
def test_commits_between_two_log_lines_are_counted_in_the_next(
    log_seconds: float, expected: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    clock = SettableClock()
    report = reporter(clock, MemoryTopic(MemoryBroker({"reading": 1}), "reading"), [], log_seconds)
    progress = Progress(clock.monotonic(), 1000)
    with caplog.at_level(logging.INFO, "test"):
        for _ in range(4):
            progress.batches += 1
            report(progress)
            clock.advance(4)
        progress_lines = [str(record.fields["batches"]) for record in caplog.records]  # type: ignore[attr-defined]
    assert progress_lines == expected


@pytest.mark.parametrize(
    ("first", "first_report_seconds", "expected"),
    [
        (True, FIRST_REPORT_SECONDS, [0, 1, 1, 1, 2, 2]),
        (True, 2 * FIRST_REPORT_SECONDS + 1, [0, 0, 0, 1, 2, 2]),
        (False, FIRST_REPORT_SECONDS, [0, 0, 0, 0, 1, 1]),
    ],
)
def test_a_new_stream_reports_soon_after_its_first_commit(
    first: bool, first_report_seconds: float, expected: list[int]
) -> None:
    clock, emitted = SettableClock(), list[Any]()
    topic = MemoryTopic(MemoryBroker({"reading": 1}), "reading")
    report = reporter(clock, topic, emitted, first_report_seconds=first_report_seconds)
    report.restart(first=first)
    progress = Progress(clock.monotonic(), 1000)
    clock.advance(20)
    report(progress)
    progress.batches = 1
    seen = []
    for seconds in (0, FIRST_REPORT_SECONDS, 1, FIRST_REPORT_SECONDS, 60, 1):
        clock.advance(seconds)
        report(progress)
        seen.append(len(emitted))
    assert seen == expected


def test_offsets_follow_a_topic_created_again_with_fewer_partitions() -> None:
    progress = Progress(0.0, 10)
    progress.own({0: Position(0, 1, NextOffset(5)), 1: Position(1, 1, NextOffset(9))})
    progress.own({0: Position(0, 2, NextOffset(0))})
    assert progress.from_offsets == progress.to_offsets == {0: 0}


@STEADY
@given(st.lists(st.tuples(st.floats(0, 86_400), st.integers(0, 10_000), st.floats(0, 1e6))))
def test_every_row_is_in_one_stretch_and_the_worst_latency_is_kept(commits: list[tuple[float, int, float]]) -> None:
    history = History(100.0)
    for after, rows, latency in sorted(commits):
        history.add(100.0 + after, rows, latency)
    assert len(history.stretches) <= MOST
    assert sum(stretch.rows for stretch in history.stretches) == sum(rows for _, rows, _ in commits)
    assert max((stretch.latency_ms for stretch in history.stretches), default=0.0) == max(
        (c[2] for c in commits), default=0.0
    )


def test_stretches_without_a_commit_are_there() -> None:
    history = History(0.0)
    history.add(0.5, 3, 1.0)
    history.add(4.5, 5, 2.0)
    assert [stretch.rows for stretch in history.stretches] == [3, 0, 0, 0, 5]


def test_the_picture_is_an_svg_with_a_line_for_each() -> None:
    history = History(0.0)
    for second in range(11):
        history.add(second + 0.5, 100 * second, 50.0)
    rate, delay = lines(history)
    assert [x for x, _ in rate] == [x for x, _ in delay] == list(range(0, 261, 26))
    heights = [y for _, y in rate]
    assert heights == sorted(heights, reverse=True) and heights[0] - heights[-1] == 54
    assert {y for _, y in delay} == {101}, "always the longest"


@STEADY
@given(st.lists(st.tuples(st.floats(0, 90_000), st.integers(0, 10**9), st.floats(0, 1e8)), min_size=1, max_size=150))
@example([(second + 0.5, 10**9 * (second % 2), 1e8 * (second % 2)) for second in range(120)])
def test_the_ui_shows_every_picture_in_its_place(commits: list[tuple[float, int, float]]) -> None:
    history = History(0.0)
    for after, rows, latency in [*sorted(commits), (90_000.0, 1, 1.0)]:
        history.add(after, rows, latency)
    drawn = picture(history)
    assert drawn is not None and len(drawn.md_str or "") < INLINE
    assert all(line[-1][0] == 260 and len(line) <= 40 for line in lines(history))


def lines(history: History) -> list[list[tuple[int, int]]]:
    """The points of the picture's lines."""
    drawn = picture(history)
    assert drawn is not None
    image = re.fullmatch(r"!\[.*\]\(data:image/svg\+xml,([^ ()]+)\)", drawn.md_str or "")
    assert image is not None
    paths = [element for element in ElementTree.fromstring(unquote(image[1])) if element.tag.endswith("path")]
    return [points(path.attrib["d"]) for path in paths]


def points(path: str) -> list[tuple[int, int]]:
    """`M0,77l12-5,…`: where it starts, then steps."""
    start, _, steps = path.removeprefix("M").partition("l")
    x, y = map(int, start.split(","))
    points = [(x, y)]
    for dx, dy in re.findall(r"(\d+)([+-]\d+)", steps):
        x, y = x + int(dx), y + int(dy)
        points.append((x, y))
    return points


def test_there_is_none_for_a_moment() -> None:
    history = History(0.0)
    history.add(0.5, 1, 1.0)
    assert picture(history) is None


@STEADY
@given(st.lists(st.integers(0, 10_000_000), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_a_percentile_is_within_ten_percent(delays: list[int], share: float) -> None:
    histogram = LatencyHistogram()
    now = 20_000_000
    histogram.add(now, [now - delay for delay in delays])
    rank = max(1, -(-int(share * 1000) * len(delays) // 1000))
    true = sorted(delays)[rank - 1]
    percentile = histogram.percentile_ms(share)
    assert percentile is not None
    assert true / 1.11 - 1 <= percentile <= max(true * 1.11, 1.0) + 1
    assert histogram.maximum_ms == max(delays)


def test_nothing_counted_has_no_percentile() -> None:
    assert LatencyHistogram().percentile_ms(0.5) is None


def test_a_clock_that_is_ahead_of_ours_counts_as_no_delay() -> None:
    histogram = LatencyHistogram()
    histogram.add(1000, [5000])
    assert (histogram.percentile_ms(0.99), histogram.maximum_ms) == (0.0, 0.0)
