"""Compares an event table with the requirements of a run.

A difference stops the stream, because rows could not be stored or would change silently. A remark is for people, about
an addition to the table that works, but may change or refuse rows.
"""

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, Row

from ..core.columns import ORDINAL, Column, FilledBy
from ..core.stream import COORDINATES, Stream
from .catalog import BELOW, COLUMNS, HAS_ROWS, PRIMARY_KEY, TABLE, TRIGGERS, storage_differences, unique_differences
from .column_types import column_types, type_problems, type_remarks
from .queries import quoted, quoted_table
from .tables import primary_key_name

_NO_COLUMN, _NO_TABLE = " is missing", " does not exist"
_MICROSECONDS, _MILLISECONDS = 6, 3
_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence", "c": "a type"}
_RENAMED = {"v": "VIEW", "m": "MATERIALIZED VIEW", "f": "FOREIGN TABLE", "S": "SEQUENCE"}


def has_table(connection: Connection, stream: Stream, schema: str) -> bool:
    return connection.execute(TABLE, {"name": _name(stream, schema)}).one_or_none() is not None


def actual_columns(connection: Connection, stream: Stream, schema: str) -> dict[str, Row[tuple[object, ...]]]:
    """Column → its facts, see COLUMNS."""
    return {row.name: row for row in connection.execute(COLUMNS, {"name": _name(stream, schema)})}


def table_differences(connection: Connection, stream: Stream, schema: str) -> list[str]:
    """Each difference in words, with the way out. Empty if the table can take the stream's rows."""
    name = _name(stream, schema)
    table = connection.execute(TABLE, {"name": name}).one_or_none()
    if table is None:
        return [_no_table(stream, schema)]
    if table.relkind not in ("r", "p") and (stream.coordinates or not table.takes_rows):
        return [f"{stream.table_name.within(schema)} is {_other_kind(stream, name, table.relkind)}"]
    differences = []
    if table.row_security:
        differences.append(
            f"row-level security applies to role {table.role}, and COPY refuses such a table: ALTER TABLE {name}"
            f" DISABLE ROW LEVEL SECURITY, or let a superuser run ALTER ROLE {quoted(table.role)} BYPASSRLS"
        )
    below = connection.execute(BELOW, {"name": name}).all()
    columns = actual_columns(connection, stream, schema)
    missing = [column for column in stream.table_columns if column.name not in columns]
    if not stream.coordinates:
        differences += [
            f"column {column.name} {column.pg_type} is not there: {add_column(column, name)}, or leave the field out"
            for column in missing
        ]
        missing = []
    has_rows = any(map(_needs_value, missing)) and any(
        connection.execute(HAS_ROWS, {"name": part}).scalar() for part in (name, *(child.name for child in below))
    )
    differences += [_missing(column, name, has_rows) for column in missing]
    problems = None if stream.coordinates else type_problems(connection, stream, name)
    differences += _column_differences(stream, name, columns, problems)
    differences += storage_differences(connection, name, stream.allow_unlogged)
    if stream.partition_by and table.partition_key != "RANGE (event_time)":
        differences.append(
            "it is not partitioned by event_time, as partition_by declares: give the stream another table, or leave"
            " partition_by out"
        )
    if table.partition_key is not None and not below:
        differences.append(f"it is partitioned by {table.partition_key} and has no partition: create one for its rows")
    for child in below:
        if child.relkind == "f":
            differences.append(
                f"partition {child.name} is a foreign table, whose COMMIT is another server's: detach it"
            )
    if not stream.coordinates:
        return differences
    return differences + _key_differences(connection, stream, name, partition_key=table.partition_key, columns=columns)


def in_words(differences: list[str]) -> str:
    """The differences in one line. The line suggests `ingest migrate` for tables and columns that the command adds."""
    added = [difference.endswith((_NO_COLUMN, _NO_TABLE)) for difference in differences]
    advice = ". `ingest migrate` adds what is missing" if all(added) else ". After that, `ingest migrate` adds the rest"
    return "; ".join(differences) + (advice if any(added) else "")


def add_column(column: Column, table: str) -> str:
    """The statement that adds a column to a table with rows. A run writes a nullable column as well."""
    return f"ALTER TABLE {table} ADD {quoted(column.name)} {column.pg_type}"


def table_remarks(connection: Connection, stream: Stream, schema: str) -> list[str]:
    """Additions to a correct table that may change or refuse rows."""
    name = _name(stream, schema)
    table = connection.execute(TABLE, {"name": name}).one()
    below = connection.execute(BELOW, {"name": name}).all()
    columns = actual_columns(connection, stream, schema)
    counted = "" if stream.coordinates else ", and the ledger counts a dropped row as stored"
    remarks = [
        f"trigger {trigger} may change or drop rows before they are stored{counted}"
        for trigger in connection.execute(TRIGGERS, {"name": name}).scalars()
    ]
    remarks += [
        f"column {column.name} is NOT NULL, so a record without a value for it becomes a dead letter"
        for column in stream.table_columns
        if column.nullable and column.name in columns and columns[column.name].not_null
    ]
    if not stream.coordinates:
        remarks += type_remarks(column_types(connection, stream, name))
    if table.partition_key is not None and not any(child.is_default for child in below):
        remarks.append(
            f"it is partitioned by {table.partition_key} without a DEFAULT partition: a row that fits no partition"
            " becomes a dead letter"
        )
    elif table.partition_key is None and below:
        remarks.append(f"tables inherit from it, and queries see their rows, too: {', '.join(c.name for c in below)}")
    if table.is_partition:
        remarks.append("it is a partition itself: a row beyond its bounds becomes a dead letter")
    return remarks


def _no_table(stream: Stream, schema: str) -> str:
    name = stream.table_name.within(schema)
    if stream.coordinates:
        return f"table {name}{_NO_TABLE}"
    return (
        f"table {name} does not exist, and no table is created for a stream with coordinates=False: create it, for"
        f" example as `ingest schema {stream.name}` prints it, or correct table="
    )


def _other_kind(stream: Stream, name: str, relkind: str) -> str:
    kind = _KINDS.get(relkind, "no table")
    if not stream.coordinates and relkind == "v":
        return f"{kind} without an INSTEAD OF INSERT trigger for each row: create it, or name the table behind the view"
    if not stream.coordinates and relkind == "f":
        return f"{kind}, whose COMMIT is another server's, so exactly once cannot hold: connect to that server instead"
    way = "give the stream a table of its own, with another table= or name"
    if relkind in _RENAMED:
        way += f", or ALTER {_RENAMED[relkind]} {name} RENAME TO {quoted(f'{stream.table_name.name}_before')}"
    return f"{kind}: {way}"


def _name(stream: Stream, schema: str) -> str:
    return quoted_table(stream.table_name.within(schema))


def _needs_value(column: Column) -> bool:
    """Whether rows without the column cannot get it as declared."""
    return not column.nullable and column.filled_by is FilledBy.ROW


def _missing(column: Column, table: str, has_rows: bool) -> str:
    difference = f"column {column.name} {column.pg_type}{_NO_COLUMN}"
    if not (has_rows and _needs_value(column)):
        return difference
    if column.name in (*COORDINATES, ORDINAL.name):
        return f"{difference}, and rows without their Kafka coordinates are there: give the stream another table"
    way = add_column(column, table)
    return f"{difference}, and rows without a value for it are there: {way}, or declare the field `| None`"


def _column_differences(
    stream: Stream, name: str, actual: dict[str, Row[tuple[object, ...]]], type_problems: Mapping[str, str] | None
) -> list[str]:
    """`type_problems`: by column, of a table that exists. None: the types are to be exactly as declared."""
    written = {column.name for column in stream.written_columns}
    differences = []
    for column in stream.table_columns:
        row = actual.get(column.name)
        if row is None or column.filled_by is FilledBy.CLOCK:
            continue
        problem = type_problems.get(column.name) if type_problems is not None else _type_problem(column, name, row)
        if problem := problem or _column_problem(column, name, row):
            differences.append(f"column {column.name} {problem}")
    for row in actual.values():
        if row.name not in written and row.not_null and not row.filled:
            differences.append(
                f"column {row.name} is NOT NULL without a default, and no field fills it: ALTER TABLE {name} ALTER"
                f" {quoted(row.name)} DROP NOT NULL, or give it a default"
            )
    return differences


def _type_problem(column: Column, table: str, actual: Row[tuple[object, ...]]) -> str | None:
    alter = f"ALTER TABLE {table} ALTER {quoted(column.name)}"
    if actual.oid != column.pg_oid:
        cast = f"USING {quoted(column.name)}::text::{column.pg_type}"
        return (
            f"is {actual.type}, declared as {column.pg_type}: {alter} TYPE {column.pg_type} {cast}, or give the stream"
            " another table"
        )
    if _rounds(column, actual.modifier):
        return f"is {actual.type}, which rounds values silently: {alter} TYPE {column.pg_type}"
    return None


def _column_problem(column: Column, table: str, actual: Row[tuple[object, ...]]) -> str | None:
    alter = f"ALTER TABLE {table} ALTER {quoted(column.name)}"
    if column.filled_by is FilledBy.SEQUENCE:
        return None if actual.filled else f"is not filled by the database: {alter} ADD GENERATED ALWAYS AS IDENTITY"
    if actual.generated:
        way = f"{alter} DROP EXPRESSION" if actual.generated == "s" else "replace it by a plain column"
        return f"is a generated column, which takes no value of a record: {way}"
    if actual.identity == "a":
        return f"is GENERATED ALWAYS AS IDENTITY, which refuses the record's value: {alter} SET GENERATED BY DEFAULT"
    return None


def _rounds(column: Column, modifier: int) -> bool:
    """Whether the type's modifier, such as a scale, changes values without an error. Kafka's times are milliseconds."""
    if modifier == -1:
        return False
    if column.pg_type == "timestamp with time zone":
        return modifier < (_MILLISECONDS if column.name == "kafka_timestamp" else _MICROSECONDS)
    return True


def _key_differences(
    connection: Connection, stream: Stream, name: str, *, partition_key: str | None, columns: Collection[str]
) -> list[str]:
    """A primary key that detects duplicates. No other key reveals a batch written twice. A keyed stream needs a unique
    index for ON CONFLICT."""
    if stream.key:
        return unique_differences(connection, stream, name)
    key = connection.execute(PRIMARY_KEY, {"name": name}).one_or_none()
    own = primary_key_name(stream)
    if key is None or (key.name, tuple(key.columns)) != (own, stream.primary_key):
        actual = "none" if key is None else f"{key.name} ({', '.join(key.columns)})"
        needed = ", ".join(stream.primary_key)
        of_others = key is not None and not set(key.columns) & set(stream.primary_key)
        if of_others or not set(stream.primary_key) <= set(columns):
            way = "give the stream another table, or declare it with coordinates=False"
        elif partition_key is None:
            drop = "" if key is None else f"DROP CONSTRAINT {quoted(key.name)}, "
            way = f"ALTER TABLE {name} {drop}ADD CONSTRAINT {quoted(own)} PRIMARY KEY ({needed})"
        else:
            way = (
                f"the table is partitioned by {partition_key}, and PostgreSQL wants the key to have that column:"
                " partition by kafka_offset instead, as docs/tables.md shows"
            )
        return [f"the primary key is {actual}, not {own} ({needed}): {way}"]
    if key.deferrable:
        return [f"the primary key {own} is DEFERRABLE, which redrive and replay cannot use: create it again without"]
    return []
