"""Makes and drops the partitions of tables partitioned by event_time."""

import re
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, text

from ..core.column_names import TableName, derived_name
from ..core.partitioning import PartitionBy, bounds_ahead, gaps
from ..core.stream import Stream
from .database import Database
from .queries import quoted_table
from .sql import Schemas, in_text, table_in_text

_STARTED = re.compile(r"_(\d{8})")
_CHILDREN = text(r"""
    WITH children AS MATERIALIZED (  -- other tables' bounds are no times
        SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) AS bounds
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass(:name))
    SELECT relname AS name,
           greatest(CAST(substring(bounds FROM $$FROM \('(.*)'\) TO$$) AS timestamptz), '0001-01-02Z') AS start,
           least(CAST(substring(bounds FROM $$TO \('(.*)'\)$$) AS timestamptz), '9999-12-30Z') AS stop
    FROM children WHERE bounds <> 'DEFAULT' ORDER BY start, stop""")
"""A partition's own bounds count, because partition_by may have been another when the partition was made."""
_EXISTS = text("SELECT to_regclass(:name) IS NOT NULL")

_COLUMNS = text("""
    SELECT attname FROM pg_attribute
    WHERE attrelid = to_regclass(:name) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''""")


def create_default(connection: Connection, stream: Stream, schemas: Schemas) -> None:
    """The partition for times without a partition of their own."""
    table = schemas.table_name(stream)
    connection.execute(text(default_statement(table).replace(":", "\\:")))


def default_statement(table: TableName) -> str:
    return f"CREATE TABLE {quoted_table(_default(table))} PARTITION OF {quoted_table(table)} DEFAULT"


def make_partitions(connection: Connection, stream: Stream, schemas: Schemas) -> tuple[list[str], list[str]]:
    """Make the current partition and future partitions: (names of those made, names that other tables have). Their rows
    move out of the DEFAULT partition.

    After a change of partition_by the older partitions stay, and a new one takes only the time between them. An INSERT
    into the DEFAULT partition waits meanwhile. Every other INSERT goes on.
    """
    table = schemas.table_name(stream)
    existing = _children(connection, table)
    columns = ", ".join(map(in_text, connection.execute(_COLUMNS, {"name": quoted_table(table)}).scalars()))
    made, taken = [], []
    ahead = bounds_ahead(PartitionBy(stream.partition_by), _now(connection))
    for start, stop in (gap for bounds in ahead for gap in gaps(bounds, [row[1:] for row in existing])):
        partition = _partition(table, start)
        if connection.execute(_EXISTS, {"name": quoted_table(partition)}).scalar():
            taken.append(str(partition))
            continue
        names = {
            "table": table_in_text(table),
            "partition": table_in_text(partition),
            "others": table_in_text(_default(table)),
            "columns": columns,
            "start": start.isoformat().replace(":", "\\:"),
            "stop": stop.isoformat().replace(":", "\\:"),
        }
        for statement in _MAKE:
            connection.execute(text(statement.format(**names)))
        made.append(str(partition))
    return made, taken


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
    for name, _, stop in _children(connection, table):  # last, because a DROP locks the whole table up to COMMIT
        if stop <= oldest and _is_made_here(table, name):
            connection.execute(text(f"DROP TABLE {table_in_text(TableName(table.schema, name))}"))
            dropped.append(f"{table.schema}.{name}")
    return dropped, deleted


def maintain(database: Database, stream: Stream) -> str:
    """Make and drop the partitions of a stream's table, each in a transaction of its own. Returns what was done."""
    with database.connect(f"making partitions of stream {stream.name}") as connection:
        made, taken = make_partitions(connection, stream, database.schemas)
    with database.connect(f"dropping partitions of stream {stream.name}") as connection:
        dropped, deleted = drop_partitions(connection, stream, database.schemas)
    return (
        f"{stream.table}: made {', '.join(made) or 'no partition'}, dropped {', '.join(dropped) or 'none'}, deleted"
        f" {deleted:,} rows of the DEFAULT partition"
        + "".join(f". Another table is called {name}: rename that table to get the partition" for name in taken)
    )


def _now(connection: Connection) -> datetime:
    now: Any = connection.execute(text("SELECT now()")).scalar_one()
    return now  # type: ignore[no-any-return]


def _children(connection: Connection, table: TableName) -> list[tuple[str, datetime, datetime]]:
    """(name, start, stop) of the partitions, in the order of their times."""
    return [(row.name, row.start, row.stop) for row in connection.execute(_CHILDREN, {"name": quoted_table(table)})]


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
