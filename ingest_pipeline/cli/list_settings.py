"""`ingest settings`."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from ..settings import describe
from .json_output import json_option, print_json
from .main import settings_of_streams


@click.command()
@click.option("--set-only", is_flag=True, help="Only the settings that differ from their default.")
@json_option
def settings(set_only: bool, as_json: bool) -> None:
    """List all settings with value, default and meaning. Secrets are masked.

    Example: BATCH_SIZE=500 ingest settings --set-only
    """
    from rich.console import Console
    from rich.table import Table

    rows = [row for row in describe(settings_of_streams()) if not set_only or row.value != row.default]
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    table = Table("setting", "value", "default", "meaning", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row.name, row.value, row.default, row.meaning)
    Console(width=None if sys.stdout.isatty() else 200).print(table)
