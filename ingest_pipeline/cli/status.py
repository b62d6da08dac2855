"""`ingest status`: where every stream stands; for people, cron and probes."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from ..operations.levels import LEVELS, worst
from ..settings.streams import load_streams
from .main import StreamName, open_clients

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, Group, RenderableType
    from rich.table import Table

    from ..core.stream import Stream
    from ..operations.partition_status import PartitionStatus
    from ..operations.status import StreamStatus

_WATCH_SECONDS = 2.0
_STYLES = ("green", "yellow", "red", "magenta")
_COLUMNS = (
    *("partition", "position", "end", "lag", "delay", "rows", "rows/s", "dead letters", "open", "lost"),
    *("last commit", "owner"),
)
_TEXTS = ("last commit", "owner")
_ONLY_WHERE_WIDE = ("position", "end", "rows", "dead letters", "lost")


@click.command()
@click.argument("streams", metavar="[STREAM]...", nargs=-1, type=StreamName())
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
@click.option("--watch", is_flag=True, help="Look again every two seconds, in place, until Ctrl-C.")
def status(streams: tuple[Stream, ...], as_json: bool, watch: bool) -> None:
    """Position, lag, dead letters, gaps and owner of every partition, and what to do about what is wrong; of all
    streams, or of those named.

    Exit code 0 when these are healthy, 1 when one is degraded, 2 when one stands still, 3 when the answer is not
    known: the ledger did not answer in time, or a setting or option is wrong. 2 comes before 3, and 3 before 1.

    \b
    position      next offset to be stored
    end           next offset that a producer will write
    lag           offsets between the two
    delay         seconds for which records have waited while the position did not move
    rows          stored so far
    rows/s        over the last minute; of a fast partition the newest 10,000
                  rows over the time since the first of them
    dead letters  records refused so far
    open          of these, those that wait for somebody
    lost          offsets given up by accept-loss
    last commit   when the position moved last
    owner         the run that drains it, and since when its session exists

    A terminal too narrow for all columns shows lag, delay, rows/s, open, last
    commit and owner; --json has everything.

    Example: ingest status --json
    """
    from rich.console import Console

    if watch and as_json:
        raise click.UsageError("--watch draws tables; for JSON call again")
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    looked_at = streams or tuple(load_streams())
    if watch:
        _watch(looked_at, console)
        return
    found = _look(looked_at)
    if as_json:
        click.echo(json.dumps([_plain(each) for each in found], indent=2, default=str))
    else:
        console.print(drawn(found, console))
    sys.exit(worst(each.level for each in found))


def _look(streams: Sequence[Stream]) -> list[StreamStatus]:
    from ..operations.status import status_of

    return [status_of(stream, open_clients(), rates=True) for stream in streams]


def _watch(streams: Sequence[Stream], console: Console) -> None:
    from rich.live import Live

    with suppress(KeyboardInterrupt), Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            live.update(drawn(_look(streams), console), refresh=True)
            time.sleep(_WATCH_SECONDS)


def _plain(found: StreamStatus) -> dict[str, Any]:
    partitions = [
        {**asdict(at), "lag": at.lag, "delay": at.delay, "open_letters": at.open_letters} for at in found.partitions
    ]
    return {**asdict(found), "level": LEVELS[found.level], "lag": found.lag, "partitions": partitions}


def drawn(found: list[StreamStatus], console: Console) -> Group:
    """A table for each stream that fits the console, under what there is to say of it."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    for each in found:
        lag = "unknown" if each.lag is None else f"{each.lag:,}"
        level = (LEVELS[each.level], _STYLES[each.level])
        parts.append(Text.assemble((each.stream, "bold"), " ", level, f"  lag {lag}"))
        parts += [Text(f"  {line}") for line in each.said]
        if not each.partitions:
            continue
        table = _table(each, _COLUMNS)
        if console.measure(table, options=console.options.update(width=500)).maximum > console.width:
            table = _table(each, [name for name in _COLUMNS if name not in _ONLY_WHERE_WIDE])
        parts.append(table)
    return Group(*parts)


def _table(found: StreamStatus, names: Sequence[str]) -> Table:
    from rich.table import Table

    table = Table(box=None)
    for name in names:
        table.add_column(name, justify="left" if name in _TEXTS else "right")
    for at in found.partitions:
        cells = dict(zip(_COLUMNS, _cells(at), strict=True))
        table.add_row(*(cells[name] for name in names))
    return table


def _cells(at: PartitionStatus) -> list[str]:
    places = (at.next_offset, at.end, at.lag, at.delay and round(at.delay), at.rows)
    losses = (at.dead_letters, at.open_letters, at.lost)
    speed = None if at.rows_per_second is None else round(at.rows_per_second, 1 if at.rows_per_second < 10 else None)
    owner = f"{at.owner[:8]} since {_moment(at.owner_since)}" if at.owner else "-"
    numbers = ("-" if n is None else f"{n:,}" for n in (*places, speed, *losses))
    return [str(at.partition), *numbers, _moment(at.committed_at), owner]


def _moment(at: datetime | None) -> str:
    """In this machine's zone; without the day where that is today."""
    if at is None:
        return "-"
    local = at.astimezone()
    return f"{local:%H:%M:%S}" if local.date() == datetime.now().date() else f"{local:%Y-%m-%d %H:%M:%S}"
