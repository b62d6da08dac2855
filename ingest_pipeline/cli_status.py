"""`ingest status`: where every stream stands; for people, cron and probes."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from .cli import connections, streams

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType

    from .orchestration.status import PartitionStatus, StreamStatus

_WATCH_SECONDS = 2.0
_LEVELS = ("healthy", "degraded", "stopped")
_STYLES = ("green", "yellow", "red")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
@click.option("--watch", is_flag=True, help="Look again every two seconds, in place, until Ctrl-C.")
def status(as_json: bool, watch: bool) -> None:
    """Position, lag, dead letters, gaps and owner of every partition, and what to do about what is wrong.

    Exit code 0 when all streams are healthy, 1 when one is degraded, 2 when one stands still.

    Example: ingest status --json
    """
    from rich.console import Console

    if watch and as_json:
        raise click.UsageError("--watch draws tables; for JSON call again")
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    if watch:
        _watch(console)
        return
    found = _look()
    if as_json:
        click.echo(json.dumps([_plain(each) for each in found], indent=2, default=str))
    else:
        console.print(_drawn(found))
    sys.exit(max((each.level for each in found), default=0))


def _look() -> list[StreamStatus]:
    from .orchestration.status import status_of

    return [status_of(stream, connections()) for stream in streams()]


def _watch(console: Console) -> None:
    from rich.live import Live

    with suppress(KeyboardInterrupt), Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            live.update(_drawn(_look()), refresh=True)
            time.sleep(_WATCH_SECONDS)


def _plain(found: StreamStatus) -> dict[str, Any]:
    partitions = [{**asdict(at), "lag": at.lag, "delay": at.delay} for at in found.partitions]
    return {**asdict(found), "level": _LEVELS[found.level], "lag": found.lag, "partitions": partitions}


def _drawn(found: list[StreamStatus]) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = []
    for each in found:
        lag = "unknown" if each.lag is None else f"{each.lag:,}"
        level = (_LEVELS[each.level], _STYLES[each.level])
        parts.append(Text.assemble((each.stream, "bold"), " ", level, f"  lag {lag}"))
        parts += [Text(f"  {line}") for line in each.said]
        table = Table(
            "partition", "position", "end", "lag", "delay", "rows", "dead letters", "lost", "last commit", "owner"
        )
        table.box = None
        for at in each.partitions:
            table.add_row(*_cells(at))
        if each.partitions:
            parts.append(table)
    return Group(*parts)


def _cells(at: PartitionStatus) -> list[str]:
    numbers = (at.next_offset, at.end, at.lag, at.delay and round(at.delay), at.rows, at.dead_letters, at.lost)
    committed = f"{at.committed_at:%Y-%m-%d %H:%M:%S}" if at.committed_at else "-"
    owner = f"run {at.owner[:8]}" if at.owner else "-"
    return [str(at.partition), *("-" if n is None else f"{n:,}" for n in numbers), committed, owner]
