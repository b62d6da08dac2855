"""`ingest tail` and `ingest schema`: a stream's newest rows, and the statements to create its table."""

from __future__ import annotations

import sys

import click

from ..core.stream import Stream
from .main import StreamName, open_clients


@click.command()
@click.argument("stream", type=StreamName())
@click.option("-n", "rows", default=20, show_default=True, type=click.IntRange(1, 10_000), help="How many rows.")
def tail(stream: Stream, rows: int) -> None:
    """Print the newest rows of a stream, the newest first.

    Example: ingest tail temperature -n 5
    """
    from rich.console import Console
    from rich.table import Table

    from ..postgres.table_reads import newest

    names, newest_rows = newest(open_clients().database(), stream, rows)
    table = Table(*names, box=None, pad_edge=False)
    for row in newest_rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    Console(width=None if sys.stdout.isatty() else 240, markup=False, highlight=False).print(table)


@click.command()
@click.argument("stream", type=StreamName())
def schema(stream: Stream) -> None:
    """Print the statements to create a stream's table as declared. Needs no server.

    Example: ingest schema price
    """
    from ..postgres.table_reads import ddl

    click.echo(ddl(stream, open_clients().settings.database_schema))
