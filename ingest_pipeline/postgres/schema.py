"""Making the ledger and the event tables, and telling what of a table is not as declared."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.schema import CreateColumn, CreateSchema

from ..core.columns import Column, FilledBy
from ..core.errors import NotPermitted, RecordRefused, SchemaMismatch
from ..core.stream import COORDINATES, Stream
from .catalog import ledger_differences, storage_differences
from .engine import Database, in_text
from .errors import mapped_errors
from .queries import quoted
from .tables import event_table, primary_key_name

LEDGER_VERSION = "0004"
_MIGRATIONS = Path(__file__).parent / "migrations"

_ADVICE = "Run `ingest migrate`."
_ADVICE_BY_HAND = "`ingest migrate` adds columns and changes none: alter the table by hand, or give the stream another."

_VERSION_TABLE = text("SELECT to_regclass(:name)")
_COLUMNS = text("""
    SELECT a.attname, a.atttypid::bigint AS oid, format_type(a.atttypid, a.atttypmod) AS type,
           (a.attnotnull OR t.typnotnull) AS attnotnull,
           (a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> '') AS filled
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = to_regclass(:name) AND a.attnum > 0 AND NOT a.attisdropped""")

_PRIMARY_KEY = text("""
    SELECT c.conname, array(SELECT a.attname::text FROM unnest(c.conkey) WITH ORDINALITY AS k(attnum, place)
                            JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.attnum
                            ORDER BY k.place) AS columns
    FROM pg_constraint c WHERE c.conrelid = to_regclass(:name) AND c.contype = 'p'""")


def prepare(database: Database, stream: Stream) -> None:
    """Make sure the ledger and the stream's table exist and are as declared.

    Creates what is missing; changes nothing that exists.

    Raises:
        SchemaMismatch: something exists and differs; names `ingest migrate`.
        NotPermitted: something is missing and the role may not create it.
    """
    with database.connect("reading the ledger's version") as connection:
        if has_ledger(connection, database) and not table_differences(connection, stream, database.schemas.events):
            return
    try:
        migrate(database, [], only_create=True)  # the ledger first: what is wrong with the table is noted in it
        migrate(database, [stream], only_create=True)
    except NotPermitted as error:
        raise NotPermitted(
            f"{error.message.split(';')[0]}; as a role that may create schemas and tables, run: ingest migrate",
            **error.where,
        ) from error


def migrate(database: Database, streams: Iterable[Stream], only_create: bool = False) -> list[str]:
    """Bring ledger and event tables to what this code declares, and say in words what was done.

    One session at a time; the others wait up to 5 s. Adds missing columns, never drops or retypes one.

    Args:
        only_create: leave tables that exist as they are.

    Raises:
        SchemaMismatch: a difference that adding a column does not mend.
    """
    done: list[str] = []
    with database.connect("migrating") as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('ingest migrate', 0))"))
        if ledger_version(connection, database.schemas.ledger) != LEDGER_VERSION:
            _upgrade_ledger(connection, database.schemas.ledger)
            done.append(f"ledger schema {database.schemas.ledger} is at version {LEDGER_VERSION}")
        _create_schema(connection, database.schemas.events)
        for stream in streams:
            table = event_table(stream, database.schemas.events)
            if not has_table(connection, stream, database.schemas.events):
                table.create(connection)
                done.append(f"created table {database.schemas.events}.{stream.table}")
            elif not only_create:
                done += _add_columns(connection, stream, database.schemas.events)
            if wrong := table_differences(connection, stream, database.schemas.events):
                raise SchemaMismatch(_say(stream, database, wrong, _ADVICE if only_create else _ADVICE_BY_HAND))
    return done


def verify_table(connection: Connection, stream: Stream, database: Database) -> None:
    """Compare the stream's table and the ledger with what this code relies on.

    Binary COPY would store a wrong type as garbage.

    Raises:
        SchemaMismatch: naming each difference and what to do.
    """
    if wrong := table_differences(connection, stream, database.schemas.events):
        raise SchemaMismatch(_say(stream, database, wrong, _ADVICE))
    if wrong := ledger_differences(connection, database.schemas):
        raise SchemaMismatch(f"stream {stream.name}: {'; '.join(wrong)}", stream=stream.name)


def hold_table(connection: Connection, stream: Stream, database: Database) -> None:
    """Keep everybody from altering the table until the open transaction ends, and verify it as it is now.

    Raises:
        SchemaMismatch: see verify_table.
    """
    table = f"{in_text(database.schemas.events)}.{in_text(stream.table)}"
    connection.execute(text(f"SELECT FROM ONLY {table} WHERE false"))
    verify_table(connection, stream, database)


def has_table(connection: Connection, stream: Stream, schema: str) -> bool:
    """Whether the stream's table exists, as declared or not."""
    return bool(_columns(connection, stream, schema))


def table_differences(connection: Connection, stream: Stream, schema: str) -> list[str]:
    """Each difference in words; empty when the table can take the stream's rows."""
    found = _columns(connection, stream, schema)
    if not found:
        return [f"table {schema}.{stream.table} does not exist"]
    wrong = []
    for column in _relied_on(stream).values():
        if column.name not in found:
            wrong.append(f"column {column.name} {column.pg_type} is missing")
        elif found[column.name][0] != column.pg_oid:
            wrong.append(f"column {column.name} is {found[column.name][1]}, declared as {column.pg_type}")
        elif column.filled_by is FilledBy.SEQUENCE and not found[column.name][3]:
            wrong.append(f"column {column.name} is not filled by the database")
    for name, (_, _, not_null, filled) in found.items():
        if name not in stream.columns and not_null and not filled:
            wrong.append(f"column {name} is NOT NULL without a default, and no field fills it")
    wrong += storage_differences(connection, f"{quoted(schema)}.{quoted(stream.table)}", stream.allow_unlogged)
    key = _primary_key(connection, stream, schema)
    if key != (primary_key_name(stream.table), COORDINATES):
        seen = f"{key[0]} ({', '.join(key[1])})" if key else "none"
        wrong.append(f"the primary key is {seen}, not {primary_key_name(stream.table)} ({', '.join(COORDINATES)})")
    return wrong


def _relied_on(stream: Stream) -> dict[str, Column]:
    """The declared columns without which rows could not be stored as declared; `ingested_at` is none of them."""
    return {column.name: column for column in stream.table_columns if column.filled_by is not FilledBy.CLOCK}


def ledger_version(connection: Connection, schema: str) -> str | None:
    """The ledger's Alembic version; None when there is no ledger."""
    if connection.execute(_VERSION_TABLE, {"name": f"{quoted(schema)}.schema_version"}).scalar() is None:
        return None
    return connection.execute(text(f"SELECT version_num FROM {in_text(schema)}.schema_version")).scalar()  # noqa: S608 (quoted identifier)


def has_ledger(connection: Connection, database: Database) -> bool:
    """Whether there is a ledger. Raises SchemaMismatch when it is that of another version."""
    version = ledger_version(connection, database.schemas.ledger)
    if version not in (None, LEDGER_VERSION):
        raise SchemaMismatch(
            f"the ledger {database.schemas.ledger} at {database.where} has version {version}, this code needs"
            f" {LEDGER_VERSION}: run `ingest migrate`"
        )
    return version is not None


def _columns(connection: Connection, stream: Stream, schema: str) -> dict[str, tuple[int, str, bool, bool]]:
    rows = connection.execute(_COLUMNS, {"name": f"{quoted(schema)}.{quoted(stream.table)}"})
    return {row.attname: (row.oid, row.type, row.attnotnull, row.filled) for row in rows}


def _primary_key(connection: Connection, stream: Stream, schema: str) -> tuple[str, tuple[str, ...]] | None:
    """(name, columns in order). A duplicate of it is no record's fault: nothing else tells a batch written twice."""
    row = connection.execute(_PRIMARY_KEY, {"name": f"{quoted(schema)}.{quoted(stream.table)}"}).one_or_none()
    return None if row is None else (row.conname, tuple(row.columns))


def _add_columns(connection: Connection, stream: Stream, schema: str) -> list[str]:
    found = _columns(connection, stream, schema)
    table = event_table(stream, schema)
    done = []
    for name in _relied_on(stream):
        if name not in found:
            column = CreateColumn(table.c[name]).compile(dialect=connection.dialect)
            try:
                with mapped_errors(f"adding column {name}"):
                    connection.execute(
                        text(f"ALTER TABLE {in_text(schema)}.{in_text(stream.table)} ADD COLUMN {column}")
                    )
            except RecordRefused as error:
                raise SchemaMismatch(
                    f"stream {stream.name}: table {schema}.{stream.table} holds rows, which have no value for the new"
                    f" column {name}: declare the field `| None`, or add the column by hand",
                    stream=stream.name,
                    sqlstate=error.sqlstate,
                ) from error
            done.append(f"added column {schema}.{stream.table}.{name}")
    return done


def _create_schema(connection: Connection, schema: str) -> None:
    known = connection.execute(text("SELECT 1 FROM pg_namespace WHERE nspname = :schema"), {"schema": schema})
    if known.scalar() is None:
        connection.execute(CreateSchema(schema))


def _upgrade_ledger(connection: Connection, schema: str) -> None:
    from alembic import command
    from alembic.config import Config

    _create_schema(connection, schema)
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes.update(connection=connection, ledger_schema=schema)
    command.upgrade(config, "head")


def _say(stream: Stream, database: Database, wrong: list[str], advice: str) -> str:
    table = f"{database.schemas.events}.{stream.table}"
    return f"stream {stream.name}: table {table} is not as declared: {'; '.join(wrong)}. {advice}"
