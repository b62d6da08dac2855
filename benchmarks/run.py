"""`make bench`: measure, print, and write docs/benchmarks.md."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import click

from . import (
    cold_start,
    comparison,
    database_outage,
    document,
    formats,
    idle,
    isolation,
    kills,
    latency,
    many,
    scaling,
    shapes,
    storage,
    throughput,
    upsert,
)
from .effort import Effort
from .system import System, system

PARTS: dict[str, tuple[str, Callable[[System, Effort], str]]] = {
    "throughput": ("A backlog, drained by sensor-launched runs", throughput.section),
    "latency": ("Latency, run hand-overs included", latency.section),
    "cold": ("From idle to the first row", cold_start.section),
    "celery": ("From idle to the first row on Celery", cold_start.celery_section),
    "memory": ("Memory", database_outage.section),
    "storage": ("Growth of Dagster's storage", storage.section),
    "idle": ("Idle streams", idle.idle_section),
    "trickle": ("Streams with little traffic", idle.trickle_section),
    "scaling": ("Measured", scaling.section),
    "many": ("Many streams in one job", many.section),
    "shape": ("What records and batches look like", shapes.section),
    "formats": ("Formats", formats.section),
    "upsert": ("Upserts", upsert.section),
    "refused": ("Rows that only the database refuses", isolation.section),
    "kills": ("kill -9", kills.section),
    "comparison": ("The scenarios of the comparison", comparison.section),
}


@click.command(context_settings={"show_default": True})
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@click.option("--repeats", default=3, help="Of the throughput's designs.")
@click.option("--scale", default=1.0, help="Of all amounts. Less than 1 tries the bench itself.")
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
                page = document.SCALING if part == "scaling" else document.DOCUMENT
                document.write(title, running.versions(), body, order, page)


if __name__ == "__main__":
    main()
