"""`ingest check`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from itertools import chain

import click

from ..settings.streams import load_streams
from .json_output import json_option, print_json
from .main import open_clients


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
