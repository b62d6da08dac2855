"""`ingest downgrade`: take the ledger back for older code."""

from __future__ import annotations

import click

from .main import open_clients


@click.command()
@click.argument("version")
@click.option("--yes", is_flag=True, help="Do not ask.")
def downgrade(version: str, yes: bool) -> None:
    """Take the ledger back to VERSION, for a return to older code. Stop all runs before.

    Positions, dead letters and rows stay. The ledger loses what later versions have added: CHANGELOG.md names it.

    Example: ingest downgrade 0006
    """
    from ..postgres.downgrade import downgrade as go_back

    clients = open_clients()
    ledger = clients.settings.ledger_schema
    if not yes:
        click.confirm(f"take the ledger {ledger} back to version {version}?", abort=True)
    go_back(clients.database(), version)
    click.echo(f"the ledger {ledger} is at version {version}. Start the older code now")
