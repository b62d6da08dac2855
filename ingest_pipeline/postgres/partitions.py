"""Makes and drops the partitions of tables partitioned by event_time."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, text

from ..core.column_names import TableName, derived_name
from ..core.partitioning import PartitionBy, bounds_ahead
from ..core.stream import Stream
from .database import Database
from .queries import quoted_table
from .sql import Schemas, in_text, table_in_text

_STARTED = re.compile(r"_(\d{8})")
_CHILDREN = text(r"""
    WITH children AS MATERIALIZED (  -- other tables' bounds are no times
        SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) AS bounds
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass(:name))
    SELECT relname FROM children
    WHERE CAST(:oldest AS timestamptz) IS NULL
       OR CAST(substring(bounds FROM $$TO \('(.*)'\)$$) AS timestamptz) <= :oldest
    ORDER BY 1""")
"""A partition's own bounds count, because partition_by may have been another when the partition was made."""

_COLUMNS = text("""
    SELECT attname FROM pg_attribute
    WHERE attrelid = to_regclass(:name) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''""")


def create_default(connection: Connection, stream: Stream, schemas: Schemas) -> None:
    """The partition for times without a partition of their own."""
    table = schemas.table_name(stream)
    connection.execute(text(default_statement(table).replace(":", "\\:")))


def default_statement(table: TableName) -> str:
    return f"CREATE TABLE {quoted_table(_default(table))} PARTITION OF {quoted_table(table)} DEFAULT"


def make_partitions(connection: Connection, stream: Stream, schemas: Schemas) -> list[str]:
    """The names of the partitions made: the current partition and future partitions. Their rows move out of the DEFAULT
    partition.

    An INSERT into the DEFAULT partition waits meanwhile. Every other INSERT goes on.
    """
    table = schemas.table_name(stream)
    existing = set(_children(connection, table))
    columns = ", ".join(map(in_text, connection.execute(_COLUMNS, {"name": quoted_table(table)}).scalars()))
    made = []
    for start, stop in bounds_ahead(PartitionBy(stream.partition_by), _now(connection)):
        partition = _partition(table, start)
        if partition.name in existing:
            continue
        names = {
            "table": table_in_text(table),
            "partition": table_in_text(partition),
            "others": table_in_text(_default(table)),
            "columns": columns,
            "start": f"{start:%Y-%m-%d}T00\\:00\\:00Z",
            "stop": f"{stop:%Y-%m-%d}T00\\:00\\:00Z",
        }
        for statement in _MAKE:
            connection.execute(text(statement.format(**names)))
        made.append(str(partition))
    return made


def drop_partitions(connection: Connection, stream: Stream, schemas: Schemas) -> tuple[list[str], int]:
    """Drop what is older than `keep`: (names of partitions, rows of the DEFAULT partition). A partition of another name
    stays."""
    table = schemas.table_name(stream)
    if stream.keep is None:
        return [], 0
    oldest = _now(connection) - stream.keep
    others = table_in_text(_default(table))
    deleted = connection.execute(text(f"DELETE FROM {others} WHERE event_time < :oldest"), {"oldest": oldest}).rowcount  # noqa: S608 (quoted identifier)
    dropped = []
    for name in _children(connection, table, oldest):  # last, because a DROP locks the whole table up to COMMIT
        if _is_made_here(table, name):
            connection.execute(text(f"DROP TABLE {table_in_text(TableName(table.schema, name))}"))
            dropped.append(f"{table.schema}.{name}")
    return dropped, deleted


def maintain(database: Database, stream: Stream) -> str:
    """Make and drop the partitions of a stream's table, each in a transaction of its own. Returns what was done."""
    with database.connect(f"making partitions of stream {stream.name}") as connection:
        made = make_partitions(connection, stream, database.schemas)
    with database.connect(f"dropping partitions of stream {stream.name}") as connection:
        dropped, deleted = drop_partitions(connection, stream, database.schemas)
    return (
        f"{stream.name}: made {', '.join(made) or 'no partition'}, dropped {', '.join(dropped) or 'none'}, deleted"
        f" {deleted:,} rows of the DEFAULT partition"
    )


def _now(connection: Connection) -> datetime:
    now: Any = connection.execute(text("SELECT now()")).scalar_one()
    return now  # type: ignore[no-any-return]


def _children(connection: Connection, table: TableName, oldest: datetime | None = None) -> list[str]:
    """The names of the partitions. With `oldest`, only of those whose rows are all older."""
    return list(connection.execute(_CHILDREN, {"name": quoted_table(table), "oldest": oldest}).scalars())


def _partition(table: TableName, start: datetime) -> TableName:
    return TableName(table.schema, derived_name(table.name, f"_{start:%Y%m%d}"))


def _default(table: TableName) -> TableName:
    return TableName(table.schema, derived_name(table.name, "_default"))


def _is_made_here(table: TableName, name: str) -> bool:
    date = _STARTED.fullmatch(name[-9:])
    if date is None:
        return False
    try:
        start = datetime.strptime(date[1], "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return False
    return _partition(table, start).name == name


_MAKE = (
    "LOCK TABLE {others} IN SHARE ROW EXCLUSIVE MODE",
    "CREATE TABLE {partition} (LIKE {table} INCLUDING ALL)",
    """
    WITH moved AS (DELETE FROM {others} WHERE event_time >= '{start}' AND event_time < '{stop}' RETURNING {columns})
    INSERT INTO {partition} ({columns}) SELECT {columns} FROM moved""",
    "ALTER TABLE {table} ATTACH PARTITION {partition} FOR VALUES FROM ('{start}') TO ('{stop}')",
)
