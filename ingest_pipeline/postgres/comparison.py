"""Compares an event table with the requirements of a run.

A difference stops the stream, because rows could not be stored or would change silently. A remark is for people: it
names an addition to the table that works, but may change or refuse rows.
"""

from __future__ import annotations

from sqlalchemy import Connection, Row, text

from ..core.columns import ORDINAL, Column, FilledBy
from ..core.stream import COORDINATES, Stream
from .catalog import storage_differences
from .queries import quoted, quoted_table
from .tables import primary_key_name
from .unique_index import unique_differences

_NO_COLUMN, _NO_TABLE = " is missing", " does not exist"
_MICROSECONDS, _MILLISECONDS = 6, 3
_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence", "c": "a type"}
_RENAMED = {"v": "VIEW", "m": "MATERIALIZED VIEW", "f": "FOREIGN TABLE", "S": "SEQUENCE"}
_TABLE = text("""
    SELECT c.relkind, row_security_active(c.oid) AS row_security, current_user AS role,
           pg_get_partkeydef(c.oid) AS partition_key, c.relispartition AS is_partition
    FROM pg_class c WHERE c.oid = to_regclass(:name)""")
_COLUMNS = text("""
    SELECT a.attname AS name, a.atttypid::bigint AS oid, format_type(a.atttypid, a.atttypmod) AS type,
           a.atttypmod AS modifier, (a.attnotnull OR t.typnotnull) AS not_null, a.attidentity AS identity,
           a.attgenerated AS generated,
           (a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> '') AS filled
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = to_regclass(:name) AND a.attnum > 0 AND NOT a.attisdropped""")
_PRIMARY_KEY = text("""
    SELECT c.conname AS name, c.condeferrable AS deferrable,
           array(SELECT a.attname::text FROM unnest(c.conkey) WITH ORDINALITY AS k(attnum, place)
                 JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.attnum ORDER BY k.place) AS columns
    FROM pg_constraint c WHERE c.conrelid = to_regclass(:name) AND c.contype = 'p'""")
_BELOW = text("""
    WITH RECURSIVE tree AS (
        SELECT inhrelid AS oid FROM pg_inherits WHERE inhparent = to_regclass(:name)
        UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree ON tree.oid = i.inhparent)
    SELECT c.oid::regclass::text AS name, c.relkind,
           coalesce(pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT', false) AS is_default
    FROM tree JOIN pg_class c USING (oid) ORDER BY 1""")
_HAS_ROWS = text("SELECT pg_relation_size(to_regclass(:name)) > 0")
"""True after a row was written, also if the row is gone. Needs no right on the table."""
_TRIGGERS = text("""
    SELECT t.tgname || CASE WHEN c.oid = to_regclass(:name) THEN '' ELSE ' of ' || c.oid::regclass END
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE (c.oid = to_regclass(:name)
           OR c.relispartition AND c.oid IN (SELECT relid FROM pg_partition_tree(to_regclass(:name))))
      AND t.tgparentid = 0 AND NOT t.tgisinternal AND t.tgtype & 7 = 7 AND t.tgenabled IN ('O', 'A')
    ORDER BY 1""")


def has_table(connection: Connection, stream: Stream, schema: str) -> bool:
    """Whether the stream's table exists, as declared or not."""
    return connection.execute(_TABLE, {"name": _name(stream, schema)}).one_or_none() is not None


def column_names(connection: Connection, stream: Stream, schema: str) -> set[str]:
    """The columns of the stream's table."""
    return set(_columns(connection, stream, schema))


def table_differences(connection: Connection, stream: Stream, schema: str) -> list[str]:
    """Each difference in words, with the way out. Empty if the table can take the stream's rows."""
    name = _name(stream, schema)
    table = connection.execute(_TABLE, {"name": name}).one_or_none()
    if table is None:
        return [f"table {stream.table_name.within(schema)}{_NO_TABLE}"]
    if table.relkind not in ("r", "p"):
        kind = _KINDS.get(table.relkind, "no table")
        way = "give the stream a table of its own, with another table= or name"
        if table.relkind in _RENAMED:
            way += f", or ALTER {_RENAMED[table.relkind]} {name} RENAME TO {quoted(f'{stream.table_name.name}_before')}"
        return [f"{stream.table_name.within(schema)} is {kind}: {way}"]
    differences = []
    if table.row_security:
        differences.append(
            f"row-level security applies to role {table.role}, and COPY refuses such a table: ALTER TABLE {name}"
            f" DISABLE ROW LEVEL SECURITY, or let a superuser run ALTER ROLE {quoted(table.role)} BYPASSRLS"
        )
    below = connection.execute(_BELOW, {"name": name}).all()
    columns = _columns(connection, stream, schema)
    missing = [column for column in stream.table_columns if column.name not in columns]
    has_rows = any(map(_needs_value, missing)) and any(
        connection.execute(_HAS_ROWS, {"name": part}).scalar() for part in (name, *(child.name for child in below))
    )
    differences += [_missing(column, name, has_rows) for column in missing]
    differences += _column_differences(stream, name, columns)
    differences += storage_differences(connection, name, stream.allow_unlogged)
    if table.partition_key is not None and not below:
        differences.append(f"it is partitioned by {table.partition_key} and has no partition: create one for its rows")
    for child in below:
        if child.relkind == "f":
            differences.append(
                f"partition {child.name} is a foreign table, whose COMMIT is another server's: detach it"
            )
    return differences + _key_differences(connection, stream, name, table.partition_key)


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
    table = connection.execute(_TABLE, {"name": name}).one()
    below = connection.execute(_BELOW, {"name": name}).all()
    columns = _columns(connection, stream, schema)
    remarks = [
        f"trigger {trigger} may change or drop rows before they are stored"
        for trigger in connection.execute(_TRIGGERS, {"name": name}).scalars()
    ]
    remarks += [
        f"column {column.name} is NOT NULL, so a record without a value for it becomes a dead letter"
        for column in stream.table_columns
        if column.nullable and column.name in columns and columns[column.name].not_null
    ]
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


def _name(stream: Stream, schema: str) -> str:
    return quoted_table(stream.table_name.within(schema))


def _columns(connection: Connection, stream: Stream, schema: str) -> dict[str, Row[tuple[object, ...]]]:
    return {row.name: row for row in connection.execute(_COLUMNS, {"name": _name(stream, schema)})}


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


def _column_differences(stream: Stream, name: str, actual: dict[str, Row[tuple[object, ...]]]) -> list[str]:
    differences = []
    for column in stream.table_columns:
        row = actual.get(column.name)
        if row and column.filled_by is not FilledBy.CLOCK and (problem := _column_problem(column, name, row)):
            differences.append(f"column {column.name} {problem}")
    for row in actual.values():
        if row.name not in stream.columns and row.not_null and not row.filled:
            differences.append(
                f"column {row.name} is NOT NULL without a default, and no field fills it: ALTER TABLE {name} ALTER"
                f" {quoted(row.name)} DROP NOT NULL, or give it a default"
            )
    return differences


def _column_problem(column: Column, table: str, actual: Row[tuple[object, ...]]) -> str | None:
    alter = f"ALTER TABLE {table} ALTER {quoted(column.name)}"
    if actual.oid != column.pg_oid:
        cast = f"USING {quoted(column.name)}::text::{column.pg_type}"
        return (
            f"is {actual.type}, declared as {column.pg_type}: {alter} TYPE {column.pg_type} {cast}, or give the stream"
            " another table"
        )
    if column.filled_by is FilledBy.SEQUENCE:
        return None if actual.filled else f"is not filled by the database: {alter} ADD GENERATED ALWAYS AS IDENTITY"
    if actual.generated:
        way = f"{alter} DROP EXPRESSION" if actual.generated == "s" else "replace it by a plain column"
        return f"is a generated column, which takes no value of a record: {way}"
    if actual.identity == "a":
        return f"is GENERATED ALWAYS AS IDENTITY, which refuses the record's value: {alter} SET GENERATED BY DEFAULT"
    if _rounds(column, actual.modifier):
        return f"is {actual.type}, which rounds values silently: {alter} TYPE {column.pg_type}"
    return None


def _rounds(column: Column, modifier: int) -> bool:
    """Whether the type's modifier, such as a scale, changes values without an error. Kafka's times are milliseconds."""
    if modifier == -1:
        return False
    if column.pg_type == "timestamp with time zone":
        return modifier < (_MILLISECONDS if column.name == "kafka_timestamp" else _MICROSECONDS)
    return True


def _key_differences(connection: Connection, stream: Stream, name: str, partition_key: str | None) -> list[str]:
    """A primary key that detects duplicates. Only this key reveals a batch written twice. A keyed stream needs a
    unique index for ON CONFLICT."""
    if stream.key:
        return unique_differences(connection, stream, name)
    key = connection.execute(_PRIMARY_KEY, {"name": name}).one_or_none()
    own = primary_key_name(stream)
    if key is None or (key.name, tuple(key.columns)) != (own, stream.primary_key):
        actual = "none" if key is None else f"{key.name} ({', '.join(key.columns)})"
        columns = ", ".join(stream.primary_key)
        if partition_key is None:
            way = f"ALTER TABLE {name} ADD CONSTRAINT {quoted(own)} PRIMARY KEY ({columns})"
        else:
            way = (
                f"the table is partitioned by {partition_key}, and PostgreSQL wants the key to have that column:"
                " partition by kafka_offset instead, as docs/tables.md shows"
            )
        return [f"the primary key is {actual}, not {own} ({columns}): {way}"]
    if key.deferrable:
        return [f"the primary key {own} is DEFERRABLE, which redrive and replay cannot use: create it again without"]
    return []
