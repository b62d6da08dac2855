"""A look at a stream's table: what it is declared as, and its newest rows."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable, DDLElement

from ..core.stream import Stream
from .engine import Database, in_text, quoted
from .tables import event_table

_NEWEST = """
    SELECT found.* FROM {ledger}.position AS at
    CROSS JOIN LATERAL (
        SELECT {columns} FROM {table} AS event
        WHERE event.kafka_incarnation = at.kafka_incarnation AND event.kafka_partition = at.kafka_partition
        ORDER BY event.kafka_offset DESC LIMIT :rows
    ) AS found
    WHERE at.stream = :stream
    ORDER BY found.ingested_at DESC, found.kafka_offset DESC LIMIT :rows"""


def ddl(stream: Stream, schema: str) -> str:
    """The statements that make the stream's table as declared."""
    table = event_table(stream, schema)
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    made: list[DDLElement] = [CreateTable(table), *map(CreateIndex, table.indexes)]
    return "\n".join(f"{str(each.compile(dialect=dialect)).strip()};" for each in made)


def newest(database: Database, stream: Stream, rows: int) -> tuple[list[str], list[tuple[Any, ...]]]:
    """(columns, the newest rows, newest first), found by the primary key, so that it costs the same in a large table.

    Raises:
        StopStream: there is no table yet.
    """
    names = (*stream.columns, "ingested_at")
    table = f"{quoted(database.schemas.events)}.{quoted(stream.table)}"
    statement = _NEWEST.format(
        ledger=in_text(database.schemas.ledger),
        table=table.replace(":", "\\:"),
        columns=", ".join(f"event.{quoted(name)}" for name in names).replace(":", "\\:"),
    )
    with database.connect(f"reading the newest rows of stream {stream.name}") as connection:
        found = connection.execute(text(statement), {"stream": stream.name, "rows": rows})
        return list(names), [tuple(row) for row in found]
