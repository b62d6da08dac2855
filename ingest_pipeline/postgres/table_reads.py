"""Reads a stream's table: its declaration, its newest rows, and their number."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable, DDLElement

from ..core.errors import SettingsError
from ..core.stream import Stream
from .database import Database
from .partitions import default_statement
from .queries import quoted_table
from .sql import in_text
from .tables import event_table

_NEWEST_TIMES = """
    SELECT at.kafka_partition AS partition, event.kafka_timestamp
    FROM {ledger}.position AS at CROSS JOIN LATERAL (
        SELECT kafka_timestamp FROM {rows} AS event
        WHERE event.kafka_incarnation = at.kafka_incarnation AND event.kafka_partition = at.kafka_partition
        ORDER BY event.kafka_offset DESC LIMIT 1
    ) AS event
    WHERE at.stream = :stream"""
RATE_SECONDS = 60
RATE_ROWS = 10_000
"""Maximum rows of a partition that the rate is computed from."""
_RECENT = """
    SELECT at.kafka_partition AS partition, count(*) AS looked_at,
           count(*) FILTER (WHERE event.ingested_at > clock_timestamp() - make_interval(secs => :seconds)) AS recent,
           extract(epoch FROM clock_timestamp() - min(event.ingested_at))::float8 AS oldest_seconds
    FROM {ledger}.position AS at CROSS JOIN LATERAL (
        SELECT ingested_at FROM {rows} AS event
        WHERE event.kafka_incarnation = at.kafka_incarnation AND event.kafka_partition = at.kafka_partition
        ORDER BY event.kafka_offset DESC LIMIT :most
    ) AS event
    WHERE at.stream = :stream AND at.updated_at > clock_timestamp() - make_interval(secs => :seconds)
    GROUP BY at.kafka_partition"""
_NEWEST = """
    SELECT found.* FROM {ledger}.position AS at
    CROSS JOIN LATERAL (
        SELECT {columns} FROM {rows} AS event
        WHERE event.kafka_incarnation = at.kafka_incarnation AND event.kafka_partition = at.kafka_partition
        ORDER BY event.kafka_offset DESC LIMIT :rows
    ) AS found
    WHERE at.stream = :stream
    ORDER BY found.ingested_at DESC, found.kafka_offset DESC LIMIT :rows"""

_NEWEST_OF_ALL = """
    SELECT {columns} FROM {rows} AS event ORDER BY event.ingested_at DESC, event.kafka_offset DESC LIMIT :rows"""


def ddl(stream: Stream, schema: str) -> str:
    """The statements to create the stream's tables, for psql."""
    return "\n".join(_ddl(table, schema) for table in stream.tables)


def _ddl(stream: Stream, schema: str) -> str:
    table = event_table(stream, schema)
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # the others double each %
    elements: list[DDLElement] = [CreateTable(table), *map(CreateIndex, table.indexes)]
    statements = [str(element.compile(dialect=dialect)).strip() for element in elements]
    if stream.partition_by:
        statements.append(default_statement(stream.table_name.within(schema)))
    if stream.description:
        comment = stream.description.replace("'", "''")
        statements.append(f"COMMENT ON TABLE {quoted_table(stream.table_name.within(schema))} IS '{comment}'")
    return "\n".join(f"{statement};" for statement in statements)


def newest(database: Database, stream: Stream, rows: int) -> tuple[list[str], list[tuple[Any, ...]]]:
    """(columns, newest rows first), found by the primary key, at the same cost in a large table. Reads a whole keyed
    table.

    Raises:
        SettingsError: the table has no Kafka coordinates.
        StopStream: the table does not exist yet.
    """
    if not stream.coordinates:
        raise SettingsError(
            f"stream {stream.name} has coordinates=False: its newest rows are found by the Kafka coordinates, which its"
            " table does not have"
        )
    names = [column.name for column in stream.table_columns]
    by_partition = _NEWEST if stream.finds_by_coordinates else _NEWEST_OF_ALL
    statement = database.schemas.sql(
        by_partition, stream, columns=", ".join(f"event.{in_text(name)}" for name in names)
    )
    with database.connect(f"reading the newest rows of stream {stream.name}") as connection:
        newest = connection.execute(statement, {"stream": stream.name, "rows": rows})
        return list(names), [tuple(row) for row in newest]


def newest_timestamps(database: Database, stream: Stream) -> dict[int, datetime]:
    """Partition → Kafka timestamp of its newest row, if the row has one."""
    with database.connect(f"reading the newest rows of stream {stream.name}") as connection:
        times = connection.execute(database.schemas.sql(_NEWEST_TIMES, stream), {"stream": stream.name})
        return {row.partition: row.kafka_timestamp for row in times if row.kafka_timestamp is not None}


def rows_per_second(database: Database, stream: Stream, most_rows: int = RATE_ROWS) -> dict[int, float]:
    """Partition → rows per second over the last RATE_SECONDS. Partitions without new rows are left out.

    Reads a partition's newest rows by the primary key, at most `most_rows`. If all are younger than RATE_SECONDS, the
    rate covers the time since the oldest of them.
    """
    parameters = {"stream": stream.name, "seconds": RATE_SECONDS, "most": most_rows}
    with database.connect(f"reading the rate of stream {stream.name}") as connection:
        counts = connection.execute(database.schemas.sql(_RECENT, stream), parameters).all()
    return {row.partition: _rate(row, most_rows) for row in counts}


def _rate(row: Row[Any], most_rows: int) -> float:
    if row.looked_at < most_rows or row.recent < row.looked_at:
        return float(row.recent / RATE_SECONDS)
    return float(row.looked_at / max(row.oldest_seconds, 0.001))
