"""`ingest status`: every stream's position and health, for people, cron and probes."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

import click

from ..operations.levels import worst
from ..settings.streams import load_streams
from .main import StreamName, context_of

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType
    from rich.table import Table

    from ..core.stream import Stream
    from ..operations.judgement import StreamStatus
    from ..operations.partition_status import PartitionStatus

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
    """Show position, lag, dead letters, gaps and owner of every partition, and the remedy for every fault.

    Without a STREAM all streams are shown.

    The exit code is the gravest level shown, in the order 0 healthy, 1 degraded, 3 unknown, 2 stopped. A stream is
    unknown while a server leaves a question about the stream unanswered. A wrong setting or option gives 3 as well.

    \b
    position      next offset to be stored
    end           next offset to be written by a producer
    lag           offsets between the two
    delay         seconds for which records have waited while the position did not move
    rows          stored so far
    rows/s        over the last minute, or over the newest 10,000 rows of a
                  fast partition
    dead letters  records refused so far
    open          dead letters waiting for an operator
    lost          offsets given up by accept-loss
    last commit   when the position moved last
    owner         the draining run, and since when its session exists

    A terminal too narrow for all columns shows lag, delay, rows/s, open, last
    commit and owner. --json has everything.

    Example: ingest status --json
    """
    from rich.console import Console

    from ..operations.status import document

    if watch and as_json:
        raise click.UsageError("--watch draws tables and excludes --json. Call `ingest status --json`")
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    shown = streams or tuple(load_streams())
    if watch:
        _watch(shown, console)
        return
    statuses = _statuses(shown)
    if as_json:
        click.echo(document(statuses))
    else:
        console.print(drawn(statuses, console), soft_wrap=not console.is_terminal)  # a pipe gets whole lines
    sys.exit(worst(stream.level for stream in statuses))


def _statuses(streams: Sequence[Stream]) -> list[StreamStatus]:
    from ..operations.status import statuses

    return statuses(map(context_of, streams), True, sensor_reasons)


def sensor_reasons(jobs: Collection[str]) -> Mapping[str, str]:
    """Why the sensors of the jobs do not look."""
    from ..orchestration.sensor_states import reasons_of_folder  # takes more than a second

    return reasons_of_folder(jobs)


def _watch(streams: Sequence[Stream], console: Console) -> None:
    from rich.live import Live

    with suppress(KeyboardInterrupt), Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            live.update(drawn(_statuses(streams), console), refresh=True)
            time.sleep(_WATCH_SECONDS)


def drawn(statuses: Sequence[StreamStatus], console: Console) -> Group:
    """Every stream's level and messages, and a table to fit the console."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    for stream in statuses:
        level = (stream.level.label, _STYLES[stream.level])
        parts.append(Text.assemble((stream.stream, "bold"), " ", level, f"  lag {stream.lag_words}"))
        parts += [Text(f"  {message}") for message in stream.messages]
        if not stream.partitions:
            continue
        table = _table(stream, _COLUMNS)
        if console.measure(table, options=console.options.update(width=500)).maximum > console.width:
            table = _table(stream, [name for name in _COLUMNS if name not in _ONLY_WHERE_WIDE])
        parts.append(table)
    return Group(*parts)


def _table(stream: StreamStatus, names: Sequence[str]) -> Table:
    from rich.table import Table

    table = Table(box=None)
    for name in names:
        table.add_column(name, justify="left" if name in _TEXTS else "right")
    for row in stream.partitions:
        cells = dict(zip(_COLUMNS, _cells(row), strict=True))
        table.add_row(*(cells[name] for name in names))
    return table


def _cells(row: PartitionStatus) -> list[str]:
    offsets = (row.next_offset, row.end, row.lag, row.delay and round(row.delay), row.rows)
    refused = (row.dead_letters, row.open_letters, row.lost)
    rate = row.rows_per_second
    rate = None if rate is None else round(rate, 1 if rate < 10 else None)
    since = f" since {_moment(row.owner_since)}" if row.owner_since else ""
    owner = f"{row.owner[:8]}{since}" if row.owner else "-"
    numbers = ("-" if number is None else f"{number:,}" for number in (*offsets, rate, *refused))
    return [str(row.partition), *numbers, _moment(row.committed_at), owner]


def _moment(moment: datetime | None) -> str:
    """In the machine's zone. Today's day is left out."""
    if moment is None:
        return "-"
    local = moment.astimezone()
    return f"{local:%H:%M:%S}" if local.date() == datetime.now().date() else f"{local:%Y-%m-%d %H:%M:%S}"
