"""`make bench-quick`: the ratio to the plain asyncio design, in a minute. Exit code 1 when the ratio is too small."""

import multiprocessing
import sys
import tempfile
from pathlib import Path

import click

from .system import system
from .throughput import BASELINE, measure, without_dagster


@click.command(context_settings={"show_default": True})
@click.option("--records", default=1_200_000, help="Over both topics.")
@click.option("--at-least", default=2.0, help="The smallest ratio that passes.")
def main(records: int, at_least: float) -> None:
    """Guard against a change that makes the drain slow, by a ratio and never by an absolute time."""
    with tempfile.TemporaryDirectory() as folder, system(Path(folder)) as running:
        produced = running.produce(records, broken_every=0).acknowledged
        baseline = measure(running, produced, [BASELINE])[BASELINE]
        ours = without_dagster(running, produced, {})
    ratio = ours.steady / baseline.steady
    click.echo(f"  {'ours, default settings':<42} {ours}")
    click.echo(f"{ratio:.2f} times the plain asyncio design (at least {at_least:g} required)")
    sys.exit(ratio < at_least)


if __name__ == "__main__":
    multiprocessing.freeze_support()
    main()
