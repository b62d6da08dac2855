"""`ingest check` and `ingest settings`."""

import sys
from dataclasses import asdict
from itertools import chain

import click

from ..settings import describe
from ..settings.streams import load_streams
from .json_output import json_option, print_json
from .main import open_clients, settings_of_streams


@click.command()
@json_option
def check(as_json: bool) -> None:
    """Check Kafka, PostgreSQL, tables, rights and Dagster's configuration. A line says OK, or DO with the remedy.

    The exit code is 1 when something needs doing. Example: ingest check
    """
    from ..operations.check import findings
    from ..orchestration.instance_check import instance_findings

    clients, streams = open_clients(), load_streams()
    every = []
    for finding in chain(findings(clients, streams), instance_findings(clients, streams)):
        every.append(finding)
        if not as_json:
            click.echo(f"{'OK  ' if finding.ok else 'DO  '} {finding.what}: {finding.message}")
    if as_json:
        print_json([asdict(finding) for finding in every])
    sys.exit(not all(finding.ok for finding in every))


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
