"""`ingest …`. An error is a line on stderr with a hint, and exit code 1. Tracebacks are shown only on demand."""

from __future__ import annotations

import getpass
import importlib
import io
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from datetime import datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import EnvironmentFault, IngestError, LedgerConflict, SettingsError, Superseded, UnknownFault
from ..core.stream import Stream
from ..core.streams import by_name
from ..core.timestamps import parse_instant
from ..settings import Settings, settings_of
from ..settings.streams import load_streams

if TYPE_CHECKING:
    from ..operations.clients import Clients
    from ..operations.stream_context import StreamContext

_COMMANDS = {
    "accept-loss": "ingest_pipeline.cli.recovery:accept_loss",
    "check": "ingest_pipeline.cli.check:check",
    "dead-letters": "ingest_pipeline.cli.dead_letters:dead_letters",
    "downgrade": "ingest_pipeline.cli.table:downgrade",
    "demo": "ingest_pipeline.cli.demo:demo",
    "grants": "ingest_pipeline.cli.table:grants",
    "load": "ingest_pipeline.cli.load:load",
    "metrics": "ingest_pipeline.cli.metrics:metrics",
    "replay": "ingest_pipeline.cli.recovery:replay",
    "schema": "ingest_pipeline.cli.table:schema",
    "settings": "ingest_pipeline.cli.check:settings",
    "simulate": "ingest_pipeline.cli.demo:simulate",
    "status": "ingest_pipeline.cli.status:status",
    "stream-from-topic": "ingest_pipeline.cli.stream_from_topic:stream_from_topic",
    "tail": "ingest_pipeline.cli.table:tail",
}
_LOGGING = ("demo", "metrics", "simulate")
"""Commands that run for long. They log to stderr what the client of Kafka reports."""
_ERROR_CODES = {"status": 3}
"""Command → the exit code of its errors, usage errors included, where 1 and 2 have another meaning."""


class IngestGroup(click.Group):
    """Imports a command's module when the command is used, and turns errors into a line with a hint."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **more: Any) -> Any:
        """Writes the code of a character unknown to the terminal. Takes the command line for UTF-8."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        if args is None:
            args = [os.fsencode(word).decode(errors="backslashreplace") for word in sys.argv[1:]]
        return super().main(args, *rest, **more)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_COMMANDS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _COMMANDS:
            module, _, name = _COMMANDS[cmd_name].partition(":")
            command: click.Command = getattr(importlib.import_module(module), name)
            return command
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggests the nearest command. Click itself compares only with the commands that are already imported."""
        commands = self.list_commands(ctx)
        near = get_close_matches(args[0], commands, n=1)
        if near and args[0] not in commands and not ctx.resilient_parsing:
            ctx.fail(f"there is no command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return self._invoke_with_hints(ctx)
        except click.ClickException as error:
            code = _ERROR_CODES.get(str(ctx.invoked_subcommand))
            if code is None:
                raise
            error.show()
            raise click.exceptions.Exit(code) from None

    def _invoke_with_hints(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click handles these itself, a closed pipe (`| head`) included
        except Exception as error:
            if ctx.params.get("traceback"):
                traceback.print_exc()
                raise click.exceptions.Exit(_ERROR_CODES.get(str(ctx.invoked_subcommand), 1)) from None
            raise click.ClickException(_one_line(error, str(ctx.invoked_subcommand))) from None


class StreamName(click.ParamType[Stream]):
    """A stream's name, completed by the shell."""

    name = "stream"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Stream:
        streams = by_name(load_streams())
        if value not in streams:
            self.fail(f"there is no stream {value!r}. Streams: {', '.join(streams)}", param, ctx)
        return streams[value]

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        try:
            names = list(by_name(load_streams()))
        except IngestError:  # no error while a line is typed: the command itself reports it
            return []
        return [click.shell_completion.CompletionItem(name) for name in names if name.startswith(incomplete)]


class Instant(click.ParamType[datetime]):
    """A time in the form of timestamps, see docs/streams.md. A time without a zone is UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return parse_instant(str(value))
        except ValueError as error:
            self.fail(f"{value!r}: {error}. Example: 2026-01-31T06:00:00Z", param, ctx)


@click.group(cls=IngestGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ingest-pipeline", prog_name="ingest")
@click.option(
    "--traceback",
    is_flag=True,
    help="Show the traceback of an error and Kafka's client log: ingest --traceback status.",
)
@click.pass_context
def main(ctx: click.Context, traceback: bool) -> None:
    """Copy Kafka topics into PostgreSQL tables, exactly once, run by Dagster.

    Settings come from the environment and from .env. `ingest settings` lists all settings.

    Example: ingest status
    """
    if not traceback and ctx.invoked_subcommand not in _LOGGING:
        logging.getLogger(__package__.partition(".")[0]).addHandler(logging.NullHandler())


@main.command()
@click.option("--dry-run", is_flag=True, help="Print the statements and change nothing.")
def migrate(dry_run: bool) -> None:
    """Create or update the ledger and every stream's table.

    Missing columns are added, int columns become bigint, varchar columns become text, and a field `| None` drops NOT
    NULL. Any other difference is printed. No column is dropped.

    Example: DATABASE_URL=postgresql://owner@localhost/events ingest migrate
    """
    from ..postgres import migration_plan, schema

    if dry_run:
        plan = migration_plan.planned(open_clients().database(), load_streams())
        click.echo("\n".join(plan) or "-- nothing to do: the ledger and all tables are as declared")
        return
    changes = schema.migrate(open_clients().database(), load_streams())
    click.echo("\n".join(changes) or "nothing to do: the ledger and all tables are as declared")


@main.command()
@click.argument("stream", type=StreamName())
@click.option(
    "--reason", default="by hand", show_default=True, help="The reason that the sensor and `ingest status` show."
)
def pause(stream: Stream, reason: str) -> None:
    """Stop a stream's runs within a batch, on every machine, until `ingest resume`.

    Example: ingest pause price --reason "table is being rebuilt"
    """
    context_of(stream).ledger.pause(reason, getpass.getuser())
    click.echo(f"{stream.name} is paused: {reason}")


@main.command()
@click.argument("stream", type=StreamName())
def resume(stream: Stream) -> None:
    """Let a paused stream go on. Its sensor launches a run within seconds.

    Example: ingest resume price
    """
    context_of(stream).ledger.resume()
    click.echo(f"{stream.name} goes on")


def _one_line(error: Exception, command: str) -> str:
    """The error's message and a hint. An unexpected error shows only its class, since its text may hold a payload."""
    from ..local.server import LocalServerError

    if isinstance(error, SettingsError):
        return f"{error.message}\nHint: `ingest {command} --help`. docs/configuration.md lists every setting."
    if isinstance(error, EnvironmentFault):
        return f"{error.message}\nHint: `ingest check` tries every server, table and right."
    if isinstance(error, (UnknownFault, Superseded, LedgerConflict)):
        return f'{error.message}\nHint: docs/operations.md, "When a stream stops".'
    if isinstance(error, IngestError | LocalServerError):  # its message says what to do
        return str(error)
    return f"unexpected error {type(error).__name__}\nHint: `ingest --traceback {command} …` shows where."


def settings_of_streams() -> Settings:
    return settings_of(load_streams())


def open_clients() -> Clients:
    """The clients of the environment's settings, made once for a command and closed at its end."""
    from ..operations.clients import Clients

    root = click.get_current_context().find_root()
    if root.obj is None:
        root.obj = Clients(settings_of_streams())
        root.call_on_close(root.obj.close)
    clients: Clients = root.obj
    return clients


def context_of(stream: Stream) -> StreamContext:
    from ..operations.stream_context import StreamContext

    return StreamContext(stream, open_clients())


if __name__ == "__main__":
    main()
