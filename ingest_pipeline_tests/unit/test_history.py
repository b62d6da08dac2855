"""A run's history: nothing is lost when stretches are joined, and the picture is an image that can be read."""

from __future__ import annotations

import base64
import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from ingest_pipeline.core.history import MOST, History
from ingest_pipeline.orchestration.picture import picture


@given(st.lists(st.tuples(st.floats(0, 86_400), st.integers(0, 10_000), st.floats(0, 1e6))))
def test_every_row_is_in_one_stretch_and_the_worst_latency_is_kept(commits: list[tuple[float, int, float]]) -> None:
    history = History(100.0)
    for after, rows, latency in sorted(commits):
        history.add(100.0 + after, rows, latency)
    assert len(history.stretches) <= MOST
    assert sum(one.rows for one in history.stretches) == sum(rows for _, rows, _ in commits)
    assert max((one.latency_ms for one in history.stretches), default=0.0) == max((c[2] for c in commits), default=0.0)


def test_stretches_without_a_commit_are_there() -> None:
    history = History(0.0)
    history.add(0.5, 3, 1.0)
    history.add(4.5, 5, 2.0)
    assert [one.rows for one in history.stretches] == [3, 0, 0, 0, 5]


def test_the_picture_is_an_svg_with_a_line_for_each() -> None:
    history = History(0.0)
    for second in range(10):
        history.add(second + 0.5, 100 * second, 50.0)
    drawn = picture(history)
    assert drawn is not None
    found = re.fullmatch(r"!\[.*\]\(data:image/svg\+xml;base64,(.+)\)", drawn.md_str or "")
    assert found is not None
    root = ElementTree.fromstring(base64.b64decode(found[1]))
    lines = [element for element in root if element.tag.endswith("polyline")]
    assert [len(line.attrib["points"].split()) for line in lines] == [10, 10]


def test_there_is_none_for_a_moment() -> None:
    history = History(0.0)
    history.add(0.5, 1, 1.0)
    assert picture(history) is None
