"""Creates and migrates the ledger and the event tables, and refuses tables that differ from their declarations."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text
from sqlalchemy.schema import CreateSchema

from ..core.errors import RecordRefused, SchemaMismatch, SettingsError, UnknownFault
from ..core.stream import Stream
from ..core.streams import tables_of
from . import blockers
from .catalog import ledger_differences
from .comparison import add_column, has_table, in_words, table_differences
from .database import Database
from .errors import MIGRATING, mapped_errors
from .partitions import create_default, make_partitions
from .queries import quoted, quoted_table
from .sql import Schemas, in_text
from .table_changes import table_changes
from .tables import event_table

if TYPE_CHECKING:
    from alembic.config import Config

LEDGER_VERSION = "0007"
_MIGRATIONS = Path(__file__).parent / "migrations"

_VERSION_TABLE = text("SELECT to_regclass(:name)")


def prepare(database: Database, streams: Iterable[Stream]) -> None:
    """Make sure the ledger and the streams' tables exist as declared. Creates missing tables and changes nothing else.

    Raises:
        SchemaMismatch: an existing table differs. The message names each way out.
        NotPermitted: a table is missing and the role may not create it.
    """
    with database.connect("reading the ledger's version") as connection:
        ledger = has_ledger(connection, database)
        schema = database.schemas.events
        tables = tables_of(streams)
        differing = [table for table in tables if not ledger or table_differences(connection, table, schema)]
    if not ledger:
        migrate(database, [], only_create=True)  # first, so that an error about a table is noted in the ledger
    if differing:
        migrate(database, differing, only_create=True)


def migrate(database: Database, streams: Iterable[Stream], only_create: bool = False) -> list[str]:
    """Bring ledger and event tables to this code's declarations. Returns a sentence for every change.

    Sessions migrate one at a time and wait up to 5 s for each other. No column is dropped, and table_changes lists all
    changes of a table. Tables of streams with coordinates=False are only compared. Statements have no time-out, because
    a statement may rewrite a large table or index millions of dead letters. `only_create` leaves existing tables as
    they are.

    Raises:
        SchemaMismatch: a difference that needs another change, or a ledger of newer code.
        DatabaseUnavailable: another session locked a table for longer than 5 s. The message names the session.
    """
    tables = tables_of(streams)
    done: list[str] = []
    with _migrating(database, tables) as connection:
        version = ledger_version(connection, database.schemas.ledger)
        refuse_newer(version, database)
        if version != LEDGER_VERSION:
            _upgrade_ledger(connection, database.schemas.ledger)
            done.append(f"ledger schema {database.schemas.ledger} is at version {LEDGER_VERSION}")
        for table in tables:
            if table.coordinates:
                done += _create_or_extend(connection, table, database.schemas, only_create)
            if wrong := table_differences(connection, table, database.schemas.events):
                raise SchemaMismatch(_message(table, database, wrong))
    return done


def downgrade(database: Database, version: str) -> None:
    """Undo the ledger's migrations after this version. Event tables stay.

    Raises:
        SettingsError: the ledger has no such version, or is not newer.
        DatabaseUnavailable: another session locked a table for longer than 5 s. The message names the session.
    """
    from alembic import command

    ledger = database.schemas.ledger
    with _migrating(database, []) as connection:
        present = ledger_version(connection, ledger)
        if present is None or not version.isdecimal() or not 1 <= int(version) < int(present):
            raise SettingsError(f"the ledger {ledger} has version {present}, and {version} is no earlier one")
        command.downgrade(migrations(connection, ledger), f"{int(version):04}")


@contextmanager
def _migrating(database: Database, tables: Collection[Stream]) -> Iterator[Connection]:
    with blockers.named(database, tables), database.connect(MIGRATING, statement_seconds=0) as connection:
        connection.execute(text(f"SELECT pg_advisory_xact_lock({blockers.MIGRATION_LOCK})"))
        yield connection


def verify_table(connection: Connection, stream: Stream, database: Database) -> None:
    """Compare the stream's tables and the ledger with this code's declarations.

    Binary COPY would store garbage in a column of another type.

    Raises:
        SchemaMismatch: names every difference and its remedy.
    """
    for table in stream.tables:
        if wrong := table_differences(connection, table, database.schemas.events):
            raise SchemaMismatch(_message(table, database, wrong))
    if wrong := ledger_differences(connection, database.schemas):
        raise SchemaMismatch(f"stream {stream.name}: {'; '.join(wrong)}", stream=stream.name)


def compared_tables(database: Database, streams: Sequence[Stream]) -> dict[str, tuple[bool, list[str]]]:
    """Stream → whether its tables exist, and the differences."""
    described = f"the table of stream {streams[0].name}" if len(streams) == 1 else f"{len(streams)} tables"
    events = database.schemas.events
    with database.connect(f"comparing {described}") as connection:
        return {
            stream.name: (
                all(has_table(connection, table, events) for table in stream.tables),
                [
                    f"table {table.table}: {difference}" if stream.route else difference
                    for table in stream.tables
                    for difference in table_differences(connection, table, events)
                ],
            )
            for stream in streams
        }


def hold_table(connection: Connection, stream: Stream, database: Database) -> None:
    """Lock the stream's tables against ALTER until the open transaction ends, and verify them.

    Raises:
        SchemaMismatch: see verify_table.
    """
    connection.execute(text(f"SELECT {database.schemas.holds(stream)}"))
    verify_table(connection, stream, database)


def ledger_version(connection: Connection, schema: str) -> str | None:
    if connection.execute(_VERSION_TABLE, {"name": f"{quoted(schema)}.schema_version"}).scalar() is None:
        return None
    return connection.execute(text(f"SELECT version_num FROM {in_text(schema)}.schema_version")).scalar()  # noqa: S608 (quoted identifier)


def has_ledger(connection: Connection, database: Database) -> bool:
    """Whether there is a ledger. Raises SchemaMismatch for a ledger of another version."""
    version = ledger_version(connection, database.schemas.ledger)
    refuse_newer(version, database)
    if version not in (None, LEDGER_VERSION):
        raise SchemaMismatch(
            f"the ledger {database.schemas.ledger} at {database.where} has version {version}, this code needs"
            f" {LEDGER_VERSION}: run `ingest migrate`"
        )
    return version is not None


def refuse_newer(version: str | None, database: Database) -> None:
    if version is not None and version > LEDGER_VERSION:
        raise SchemaMismatch(
            f"the ledger {database.schemas.ledger} at {database.where} has version {version}, this code knows"
            f" {LEDGER_VERSION}: newer code has migrated it, so start that code here"
        )


def _create_or_extend(connection: Connection, stream: Stream, schemas: Schemas, only_create: bool) -> list[str]:
    name = schemas.table_name(stream)
    _create_schema(connection, name.schema)
    if not has_table(connection, stream, schemas.events):
        event_table(stream, schemas.events).create(connection)
        if stream.partition_by:
            create_default(connection, stream, schemas)
            make_partitions(connection, stream, schemas)
        return [f"created table {name}"]
    return [] if only_create else _change(connection, stream, schemas.events)


def _change(connection: Connection, stream: Stream, schema: str) -> list[str]:
    done = []
    for change in table_changes(connection, stream, schema):
        try:
            with mapped_errors(f"changing column {change.column.name}"):
                connection.execute(text(change.statement.replace(":", "\\:")))
        except RecordRefused as error:
            table = stream.table_name.within(schema)
            raise SchemaMismatch(
                f"stream {stream.name}: table {table} holds rows, which have no value for the new column"
                f" {change.column.name}: {add_column(change.column, quoted_table(table))}, or declare the field"
                " `| None`",
                stream=stream.name,
                sqlstate=error.sqlstate,
            ) from error
        except UnknownFault as error:
            raise SchemaMismatch(
                f"stream {stream.name}: {change.statement} fails: {error.message}", stream=stream.name
            ) from error
        done.append(change.description)
    return done


def has_schema(connection: Connection, schema: str) -> bool:
    found = connection.execute(text("SELECT FROM pg_namespace WHERE nspname = :schema"), {"schema": schema})
    return found.first() is not None


def _create_schema(connection: Connection, schema: str) -> None:
    if not has_schema(connection, schema):
        connection.execute(CreateSchema(schema))


def _upgrade_ledger(connection: Connection, schema: str) -> None:
    from alembic import command

    _create_schema(connection, schema)
    command.upgrade(migrations(connection, schema), "head")


def migrations(connection: Connection, schema: str) -> Config:
    """The ledger's migrations for Alembic, on the connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes.update(connection=connection, ledger_schema=schema)
    return config


def _message(stream: Stream, database: Database, differences: list[str]) -> str:
    table = database.schemas.table_name(stream)
    return f"stream {stream.name}: table {table} is not as declared: {in_words(differences)}"
