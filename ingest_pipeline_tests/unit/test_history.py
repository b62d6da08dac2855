"""A run's history: nothing is lost when stretches are joined, and the picture is an image that can be read."""

from __future__ import annotations

import re
from urllib.parse import unquote
from xml.etree import ElementTree

from hypothesis import example, given
from hypothesis import strategies as st

from ingest_pipeline.core.progress import MOST, History
from ingest_pipeline.orchestration.run.picture import INLINE, picture
from ingest_pipeline_tests.samples import STEADY


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
