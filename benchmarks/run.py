"""`make bench`: measure, print, and write docs/benchmarks.md."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import click

from . import document, sections
from .sections import Effort
from .system import System, system

PARTS: dict[str, tuple[str, Callable[[System, Effort], str]]] = {
    "throughput": ("A backlog, drained by sensor-launched runs", sections.throughput),
    "latency": ("Latency, run hand-overs included", sections.latencies),
    "cold": ("From idle to the first row", sections.cold),
    "memory": ("Memory", sections.memory),
    "idle": ("Streams on which nothing comes", sections.idling),
    "trickle": ("Streams on which little comes", sections.trickling),
    "shape": ("What records and batches look like", sections.shape),
    "refused": ("Rows that only the database refuses", sections.refused),
    "kills": ("kill -9", sections.killed),
    "asked": ("As others were asked", sections.asked),
}


@click.command(context_settings={"show_default": True})
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@click.option("--repeats", default=3, help="Of the throughput's designs.")
@click.option("--scale", default=1.0, help="Of all amounts; below 1 to try the bench itself.")
@click.option("--write/--no-write", default=True, help=f"Write {document.DOCUMENT.name}.")
def main(parts: tuple[str, ...], repeats: int, scale: float, write: bool) -> None:
    """Measure these PARTS, or all, each on new servers."""
    order = [title for title, _ in PARTS.values()]
    for part in parts or PARTS:
        title, run = PARTS[part]
        click.echo(f"{part}:")
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, system(Path(folder)) as running:
            body = run(running, Effort(repeats, scale, write))
            click.echo(body)
            if write:
                document.write(title, running.versions(), body, order)


if __name__ == "__main__":
    main()
