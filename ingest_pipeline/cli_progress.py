"""How long work is shown: a bar with rate and time left on a terminal, else a plain line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

LINE_SECONDS = 5.0


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Gives a function that takes how much of `total` is done. Writes to stderr."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(what, total)
        return
    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn(what), BarColumn(), TaskProgressColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    started = time.monotonic()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total, rate="")

        def show(done: int) -> None:
            per_second = done / max(time.monotonic() - started, 1e-9)
            bar.update(task, completed=done, rate=f"{per_second:,.0f}/s")

        yield show


def _lines(what: str, total: int) -> Callable[[int], None]:
    started = said = time.monotonic()

    def show(done: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= LINE_SECONDS:
            said = now
            per_second = done / (now - started)
            left = (total - done) / per_second if per_second else 0.0
            click.echo(f"{what}: {done:,} of {total:,}, {per_second:,.0f}/s, {left:,.0f} s left", err=True)

    return show
