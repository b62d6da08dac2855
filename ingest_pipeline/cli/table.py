"""`ingest tail`, `schema`, `grants` and `downgrade`: rows, rights and the ledger's version in PostgreSQL."""

import json
import sys
from typing import Any

import click

from ..core.roles import Role
from ..core.stream import Stream
from ..operations.grants import grant_lines
from ..settings.streams import load_streams
from .json_output import json_option, print_json
from .main import StreamName, open_clients, settings_of_streams


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

    database = open_clients().database()
    console = Console(width=None if sys.stdout.isatty() else 240, markup=False, highlight=False)
    documents: list[dict[str, Any]] = []
    for table in stream.tables:
        names, newest_rows = newest(database, table, rows)
        of_table = {} if stream.route is None else {"table": table.table}
        documents += [of_table | dict(zip(names, row, strict=True)) for row in newest_rows]
        if not as_json:
            printed = Table(*names, title=of_table.get("table"), title_justify="left", box=None, pad_edge=False)
            for row in newest_rows:
                printed.add_row(*map(_cell, row))
            console.print(printed)
    if as_json:
        print_json(documents)


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


@click.command()
@click.argument("version")
@click.option("--yes", is_flag=True, help="Do not ask.")
def downgrade(version: str, yes: bool) -> None:
    """Take the ledger back to VERSION, for a return to older code. Stop all runs before.

    Positions, dead letters and rows stay. The ledger loses what later versions have added: CHANGELOG.md names it.

    Example: ingest downgrade 0006
    """
    from ..postgres.schema import downgrade as go_back

    clients = open_clients()
    ledger = clients.settings.ledger_schema
    if not yes:
        click.confirm(f"take the ledger {ledger} back to version {version}?", abort=True)
    go_back(clients.database(), version)
    click.echo(f"the ledger {ledger} is at version {version}. Start the older code now")


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
