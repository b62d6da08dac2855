"""How long work is shown: a bar with rate and time left on a terminal, else a plain line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import click

LINE_SECONDS = 5.0
_DRAWN_A_SECOND = 4  # more would take time from what is measured


class Show(Protocol):
    """Takes what is done so far.

    Args:
        done: how much; the rate is that over the time since the beginning.
        share: of the whole, from 0 to 1, where it is not `done` of the total.
        more: put at the end of the line.
    """

    def __call__(self, done: int, share: float | None = None, more: str = "") -> None: ...


@contextmanager
def progress(what: str, total: int | None = None, clock: Callable[[], float] = time.monotonic) -> Iterator[Show]:
    """Gives the function to call as work gets done. Writes to stderr.

    Args:
        total: None where it is not known; then without a share no time left is shown.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    line = _Line(what, total, clock)
    if not console.is_terminal:
        yield line.show
        return
    columns = (BarColumn(), TextColumn("{task.description}", markup=False))
    bar = Progress(
        *columns,
        console=console,
        transient=True,
        refresh_per_second=_DRAWN_A_SECOND,
        redirect_stdout=sys.stdout.isatty(),  # what is printed meanwhile goes above the bar, but not out of a file
    )
    with bar:
        task = bar.add_task(what, total=None)

        def show(done: int, share: float | None = None, more: str = "") -> None:
            share = line.share(done, share)
            text = line.text(done, share, more)
            bar.update(task, completed=share or 0.0, total=None if share is None else 1.0, description=text)

        yield show


class _Line:
    """What is said, on a terminal and elsewhere."""

    def __init__(self, what: str, total: int | None, clock: Callable[[], float]) -> None:
        self._what, self._total, self._clock = what, total, clock
        self._began = self._said = clock()

    def share(self, done: int, share: float | None) -> float | None:
        """At most 1: work may turn out longer than was thought."""
        if share is None and self._total:
            share = done / self._total
        return None if share is None else min(1.0, share)

    def text(self, done: int, share: float | None, more: str) -> str:
        taken = max(self._clock() - self._began, 1e-9)
        of = "" if self._total is None else f" of {self._total:,}"
        left = f", {taken * (1 - share) / share:,.0f} s left" if share else ""
        rate = done / taken
        return f"{self._what}: {done:,}{of}, {rate:,.{0 if rate >= 10 else 1}f}/s{left}{more}"

    def show(self, done: int, share: float | None = None, more: str = "") -> None:
        now = self._clock()
        if now - self._said >= LINE_SECONDS:
            self._said = now
            click.echo(self.text(done, self.share(done, share), more), err=True)
