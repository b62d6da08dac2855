"""What long work shows: plain lines by a clock that is set, and a bar on a real terminal."""

import shlex
import sys
from pathlib import Path

import pytest

from ingest_pipeline.cli.progress import LINE_SECONDS, progress
from ingest_pipeline.testing.clock import SettableClock
from ingest_pipeline_tests.unit.test_cli import on_a_terminal

BAR = """
from ingest_pipeline.cli.progress import progress
with progress("offsets", {total}) as show:
    show(1500{more})
"""


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_a_line_every_few_seconds_with_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    clock = SettableClock()
    with progress("offsets", 4000, clock.monotonic) as show:
        for done in range(0, 4000, 100):
            show(done)
            clock.advance(LINE_SECONDS / 4)
    printed = lines(capsys)
    assert len(printed) == 40 / 4 - 1
    assert printed[0] == "offsets: 400 of 4,000, 80/s, 45 s left"
    assert printed[-1] == "offsets: 3,600 of 4,000, 80/s, 5 s left"


def test_where_the_end_is_not_known_there_is_no_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    clock = SettableClock()
    with progress("sent", clock=clock.monotonic) as show:
        clock.advance(10)
        show(55)
    assert lines(capsys) == ["sent: 55, 5.5/s"]


def test_a_share_tells_the_time_left_where_amounts_do_not(capsys: pytest.CaptureFixture[str]) -> None:
    clock = SettableClock()
    with progress("sent", 10_000, clock.monotonic) as show:
        clock.advance(10)
        show(5000, 0.25, ", 3 broken")
        clock.advance(10)
        show(5000, 1.5)
    assert lines(capsys) == [
        "sent: 5,000 of 10,000, 500/s, 30 s left, 3 broken",
        "sent: 5,000 of 10,000, 250/s, 0 s left",
    ]


@pytest.mark.parametrize(("total", "more", "left"), [(3000, "", True), (None, "", False), (None, ", 0.5", True)])
def test_a_terminal_has_a_bar(total: int | None, more: str, left: bool) -> None:
    shown = on_a_terminal({}, "-c", BAR.format(total=total, more=more), program=sys.executable)
    assert "━" in shown
    assert "offsets: 1,500" in shown
    assert ("s left" in shown) is left


def test_what_is_printed_meanwhile_stays_in_its_file(tmp_path: Path) -> None:
    program = BAR.format(total=3000, more="") + "    print('a fault struck')\n"
    command = f"{shlex.join([sys.executable, '-c', program])} > {shlex.quote(str(tmp_path / 'out'))}"
    shown = on_a_terminal({}, "-c", command, program="/bin/sh")
    assert "━" in shown
    assert (tmp_path / "out").read_text() == "a fault struck\n"
