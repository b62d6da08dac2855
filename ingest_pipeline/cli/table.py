"""`ingest tail` and `ingest schema`: a stream's newest rows, and the statements to create its table."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from ..core.stream import Stream
from .json_output import json_option, print_json
from .main import StreamName, open_clients


@click.command()
@click.argument("stream", type=StreamName())
@click.option("-n", "rows", default=20, show_default=True, type=click.IntRange(1, 10_000), help="How many rows.")
@json_option
def tail(stream: Stream, rows: int, as_json: bool) -> None:
    """Print the newest rows of a stream, the newest first.

    Example: ingest tail temperature -n 5
    """
    from rich.console import Console
    from rich.table import Table

    from ..postgres.table_reads import newest

    names, newest_rows = newest(open_clients().database(), stream, rows)
    if as_json:
        print_json([dict(zip(names, row, strict=True)) for row in newest_rows])
        return
    table = Table(*names, box=None, pad_edge=False)
    for row in newest_rows:
        table.add_row(*map(_cell, row))
    Console(width=None if sys.stdout.isatty() else 240, markup=False, highlight=False).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


@click.command()
@click.argument("stream", type=StreamName())
def schema(stream: Stream) -> None:
    """Print the statements to create a stream's table as declared. Needs no server.

    Example: ingest schema price
    """
    from ..postgres.table_reads import ddl

    click.echo(ddl(stream, open_clients().settings.database_schema))
