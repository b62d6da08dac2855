"""`ingest status`: where every stream stands; for people, cron and probes."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from .cli import connections, streams

if TYPE_CHECKING:
    from .orchestration.status import PartitionStatus, StreamStatus

_LEVELS = ("healthy", "degraded", "stopped")
_STYLES = ("green", "yellow", "red")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
def status(as_json: bool) -> None:
    """Position, lag, dead letters, gaps and owner of every partition, and what to do about what is wrong.

    Exit code 0 when all streams are healthy, 1 when one is degraded, 2 when one stands still.

    Example: ingest status --json
    """
    from .orchestration.status import status_of

    found = [status_of(stream, connections()) for stream in streams()]
    if as_json:
        click.echo(json.dumps([_plain(each) for each in found], indent=2, default=str))
    else:
        _print(found)
    sys.exit(max((each.level for each in found), default=0))


def _plain(found: StreamStatus) -> dict[str, Any]:
    partitions = [{**asdict(at), "lag": at.lag} for at in found.partitions]
    return {**asdict(found), "level": _LEVELS[found.level], "lag": found.lag, "partitions": partitions}


def _print(found: list[StreamStatus]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    for each in found:
        lag = "unknown" if each.lag is None else f"{each.lag:,}"
        console.print(f"[bold]{each.stream}[/] [{_STYLES[each.level]}]{_LEVELS[each.level]}[/]  lag {lag}")
        for line in each.said:
            console.print(f"  {line}", markup=False)
        table = Table("partition", "position", "end", "lag", "rows", "dead letters", "lost", "last commit", "owner")
        table.box = None
        for at in each.partitions:
            table.add_row(*_cells(at))
        if each.partitions:
            console.print(table)


def _cells(at: PartitionStatus) -> list[str]:
    numbers = (at.next_offset, at.end, at.lag, at.rows, at.dead_letters, at.lost)
    committed = f"{at.committed_at:%Y-%m-%d %H:%M:%S}" if at.committed_at else "-"
    owner = f"run {at.owner[:8]}" if at.owner else "-"
    return [str(at.partition), *("-" if n is None else f"{n:,}" for n in numbers), committed, owner]
