"""`ingest grants`: the rights of a role, as SQL and as lines of kafka-acls.sh."""

from __future__ import annotations

import click

from ..core.roles import Role
from ..operations.grants import grant_lines
from ..settings.streams import load_streams
from .main import settings_of_streams


@click.command()
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.WRITER.value,
    show_default=True,
    help="Whose rights.",
)
@click.option("--to", "name", metavar="NAME", help="PostgreSQL's role. The default is ingest_ and the role.")
@click.option(
    "--principal", metavar="USER", help="Kafka's principal. The default is User: and KAFKA_SASL_USERNAME, or the role."
)
def grants(role: str, name: str | None, principal: str | None) -> None:
    """Print the rights of a role in PostgreSQL and Kafka, as SQL and as lines of kafka-acls.sh. Asks no server.

    \b
    owner     runs `ingest migrate`, and owns ledger and tables
    writer    Dagster's runs, sensors and maintenance
    operator  a writer who may redrive, discard, replay and accept losses
    reader    runs `ingest status` and `ingest metrics`

    Example: ingest grants --role reader --to grafana
    """
    lines = grant_lines(settings_of_streams(), load_streams(), Role(role), name=name, principal=principal)
    click.echo("\n".join(lines))
