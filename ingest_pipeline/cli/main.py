"""`ingest …`: thin calls into the folders. An error is one line on stderr and a hint, exit code 1, no traceback."""

from __future__ import annotations

import getpass
import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import EnvironmentFault, IngestError, LedgerConflict, SettingsError, Superseded, UnknownFault
from ..core.stream import Stream, by_name
from ..core.timestamps import parse_instant
from ..settings import Settings, describe, load_settings
from ..settings.streams import load_streams

if TYPE_CHECKING:
    from ..operations.clients import Clients

_ELSEWHERE = {
    "accept-loss": "ingest_pipeline.cli.accept_loss:accept_loss",
    "dead-letters": "ingest_pipeline.cli.dead_letters:dead_letters",
    "demo": "ingest_pipeline.cli.demo:demo",
    "metrics": "ingest_pipeline.cli.metrics:metrics",
    "replay": "ingest_pipeline.cli.replay:replay",
    "schema": "ingest_pipeline.cli.table:schema",
    "simulate": "ingest_pipeline.cli.demo:simulate",
    "status": "ingest_pipeline.cli.status:status",
    "tail": "ingest_pipeline.cli.table:tail",
}
_ERROR_CODES = {"status": 3}
"""The exit code of an error where 1 and 2 say something else; a usage error is one, too."""


class IngestGroup(click.Group):
    """Finds the commands that live in other modules when they are asked for, and turns our errors into one line."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **more: Any) -> Any:
        """A terminal that cannot show a character gets its code instead. Words of a command line are UTF-8."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        if args is None:
            args = [os.fsencode(word).decode(errors="backslashreplace") for word in sys.argv[1:]]
        return super().main(args, *rest, **more)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _ELSEWHERE:
            module, _, name = _ELSEWHERE[cmd_name].partition(":")
            command: click.Command = getattr(importlib.import_module(module), name)
            return command
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return self._told(ctx)
        except click.ClickException as error:
            code = _ERROR_CODES.get(str(ctx.invoked_subcommand))
            if code is None:
                raise
            error.show()
            raise click.exceptions.Exit(code) from None

    def _told(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click's own; and it knows what to do when `| head` has gone
        except Exception as error:
            if ctx.params.get("traceback"):
                traceback.print_exc()
                raise click.exceptions.Exit(_ERROR_CODES.get(str(ctx.invoked_subcommand), 1)) from None
            raise click.ClickException(_one_line(error, str(ctx.invoked_subcommand))) from None


class StreamName(click.ParamType[Stream]):
    """The name of a stream; completes in the shell."""

    name = "stream"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Stream:
        known = by_name(load_streams())
        if value not in known:
            self.fail(f"there is no stream {value!r}; streams: {', '.join(known)}", param, ctx)
        return known[value]

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        try:
            names = list(by_name(load_streams()))
        except IngestError:  # in the middle of a line is no place to say so; the command itself will
            return []
        return [click.shell_completion.CompletionItem(name) for name in names if name.startswith(incomplete)]


class Instant(click.ParamType[datetime]):
    """A time as docs/streams.md describes timestamps. UTC where it names no zone."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return parse_instant(str(value))
        except ValueError as error:
            self.fail(f"{value!r}: {error}; an example is 2026-01-31T06:00:00Z", param, ctx)


@click.group(cls=IngestGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--traceback", is_flag=True, help="Show the traceback of an error: ingest --traceback status.")
def main(**_: bool) -> None:
    """Kafka topics into PostgreSQL tables, exactly once, run by Dagster.

    Settings come from the environment and .env: `ingest settings` lists them.

    Example: ingest status
    """


@main.command()
@click.option("--set-only", is_flag=True, help="Only those that differ from their default.")
def settings(set_only: bool) -> None:
    """All settings with value, default and meaning; secrets masked.

    Example: BATCH_SIZE=500 ingest settings --set-only
    """
    from rich.console import Console
    from rich.table import Table

    table = Table("setting", "value", "default", "meaning", box=None, pad_edge=False)
    for row in describe(_settings()):
        if not set_only or row.value != row.default:
            table.add_row(row.name, row.value, row.default, row.meaning)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@main.command()
def migrate() -> None:
    """Create or bring up to date the ledger and every stream's table.

    Adds columns that a stream declares and its table lacks; never drops or retypes one.

    Example: DATABASE_URL=postgresql://owner@db/events ingest migrate
    """
    from ..postgres import schema

    done = schema.migrate(open_clients().database(), load_streams())
    click.echo("\n".join(done) or "nothing to do: the ledger and all tables are as declared")


@main.command()
def check() -> None:
    """Look at Kafka, PostgreSQL, tables, rights and Dagster's configuration: a line each, OK or what to do.

    Exit code 1 when something needs doing. Example: ingest check
    """
    from ..operations.check import findings
    from ..orchestration.instance_check import instance_findings

    clients, streams = open_clients(), load_streams()
    wrong = 0
    for finding in chain(findings(clients, streams), instance_findings(clients, streams)):
        wrong += not finding.ok
        click.echo(f"{'OK  ' if finding.ok else 'DO  '} {finding.what}: {finding.message}")
    sys.exit(1 if wrong else 0)


@main.command()
@click.argument("stream", type=StreamName())
@click.option("--reason", default="paused by hand", show_default=True, help="Shown by the sensor and in status.")
def pause(stream: Stream, reason: str) -> None:
    """Stop a stream within a batch, wherever it runs, until `ingest resume`.

    Example: ingest pause price --reason "table is being rebuilt"
    """
    ledger = open_clients().ledger(stream)
    ledger.prepare()
    ledger.pause(reason, getpass.getuser())
    click.echo(f"{stream.name} is paused: {reason}")


@main.command()
@click.argument("stream", type=StreamName())
def resume(stream: Stream) -> None:
    """Let a paused stream go on; its sensor launches a run within seconds.

    Example: ingest resume price
    """
    ledger = open_clients().ledger(stream)
    ledger.prepare()
    ledger.resume()
    click.echo(f"{stream.name} goes on")


def _one_line(error: Exception, command: str) -> str:
    """What happened, and a hint. Of an error that is not ours only the class: its text may hold anything."""
    if isinstance(error, SettingsError):
        return f"{error.message}\nHint: `ingest {command} --help`; every setting is in docs/configuration.md."
    if isinstance(error, EnvironmentFault):
        return f"{error.message}\nHint: `ingest check` tries every server, table and right."
    if isinstance(error, (UnknownFault, Superseded, LedgerConflict)):
        return f'{error.message}\nHint: docs/operations.md, "When a stream stops".'
    if isinstance(error, IngestError):  # its message says what to do
        return error.message
    return f"unexpected error {type(error).__name__}\nHint: `ingest --traceback {command} …` shows where."


def _settings() -> Settings:
    return load_settings(list(by_name(load_streams())))


def open_clients() -> Clients:
    """What the environment's settings point at; one for a command, closed at its end."""
    from ..operations.clients import Clients

    root = click.get_current_context().find_root()
    if root.obj is None:
        root.obj = Clients(_settings())
        root.call_on_close(root.obj.close)
    found: Clients = root.obj
    return found


if __name__ == "__main__":
    main()
