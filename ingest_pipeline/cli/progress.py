"""Shows running work: on a terminal a bar with rate and time left, elsewhere a line every few seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import click

LINE_SECONDS = 5.0
_DRAWN_A_SECOND = 4  # drawing more often would slow the work down


class Show(Protocol):
    """Shows how far the work is.

    Args:
        done: how much is done. The rate is `done` over the time since the beginning.
        share: the share of the whole from 0 to 1, if other than `done` of the total.
        more: text for the end of the line.
    """

    def __call__(self, done: int, share: float | None = None, more: str = "") -> None: ...


@contextmanager
def progress(label: str, total: int | None = None, clock: Callable[[], float] = time.monotonic) -> Iterator[Show]:
    """Yields the function to call as work gets done. Writes to stderr.

    Args:
        total: None: not known. The time left is shown only for calls with a share then.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    line = _Line(label, total, clock)
    if not console.is_terminal:
        yield line.show
        return
    columns = (BarColumn(), TextColumn("{task.description}", markup=False))
    bar = Progress(
        *columns,
        console=console,
        transient=True,
        refresh_per_second=_DRAWN_A_SECOND,
        redirect_stdout=sys.stdout.isatty(),  # prints appear above the bar, unless stdout is a file
    )
    with bar:
        task = bar.add_task(label, total=None)

        def show(done: int, share: float | None = None, more: str = "") -> None:
            share = line.share(done, share)
            text = line.text(done, share, more)
            bar.update(task, completed=share or 0.0, total=None if share is None else 1.0, description=text)

        yield show


class _Line:
    """The text of the line, and the time of the last write."""

    def __init__(self, label: str, total: int | None, clock: Callable[[], float]) -> None:
        self._label, self._total, self._clock = label, total, clock
        self._began_at = self._written_at = clock()

    def share(self, done: int, share: float | None) -> float | None:
        """At most 1, since work may turn out longer than expected."""
        if share is None and self._total:
            share = done / self._total
        return None if share is None else min(1.0, share)

    def text(self, done: int, share: float | None, more: str) -> str:
        taken = max(self._clock() - self._began_at, 1e-9)
        of_total = "" if self._total is None else f" of {self._total:,}"
        left = f", {taken * (1 - share) / share:,.0f} s left" if share else ""
        rate = done / taken
        return f"{self._label}: {done:,}{of_total}, {rate:,.{0 if rate >= 10 else 1}f}/s{left}{more}"

    def show(self, done: int, share: float | None = None, more: str = "") -> None:
        now = self._clock()
        if now - self._written_at >= LINE_SECONDS:
            self._written_at = now
            click.echo(self.text(done, self.share(done, share), more), err=True)
