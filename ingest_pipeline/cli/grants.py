"""`ingest grants`: the rights of a role, as SQL and as lines of kafka-acls.sh."""

from __future__ import annotations

import click

from ..core.roles import Role
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
    from ..kafka import acls
    from ..kafka.client import bootstrap_servers
    from ..postgres import roles
    from ..postgres.sql import Schemas

    settings, streams, chosen = settings_of_streams(), load_streams(), Role(role)
    name = name or f"ingest_{role}"
    script = roles.script(
        chosen,
        name,
        streams,
        Schemas(settings.database_schema, settings.ledger_schema),
        database=settings.database_name,
        accepts_losses=settings.accepts_losses,
    )
    click.echo("\n".join(script))
    commands = acls.script(
        chosen,
        principal or f"User:{settings.kafka.get('sasl.username', name)}",
        bootstrap_servers(settings.kafka),
        topics=[stream.topic for stream in streams],
        groups=[f"{settings.kafka_group_prefix}{stream.name}" for stream in streams],
        adopted_groups=[group for stream in settings.streams.values() if (group := stream.adopt_group)],
    )
    for number, command in enumerate(commands):
        if not number:
            click.echo("\n# In a shell, with the login of a Kafka administrator in --command-config:")
        click.echo(command)
