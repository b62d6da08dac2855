"""The changes that `ingest migrate` makes to a table, because they lose no value and refuse no row."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection
from sqlalchemy.schema import CreateColumn

from ..core.columns import Column
from ..core.stream import Stream
from .comparison import actual_columns
from .queries import quoted, quoted_table
from .tables import event_table

_WIDER = {(21, "bigint"), (23, "bigint"), (1043, "text"), (1700, "numeric"), (1184, "timestamp with time zone")}
"""(OID of a column's type, declared type). The last two lose their precision's limit."""
_NO_LIMIT = -1


@dataclass(frozen=True, slots=True)
class TableChange:
    """A change of one column.

    Attributes:
        statement: for psql, without a semicolon.
        description: the change after it was made.
    """

    column: Column
    statement: str
    description: str


def table_changes(connection: Connection, stream: Stream, schema: str) -> Iterator[TableChange]:
    """The changes of an existing table, in the order of its declared columns."""
    actual = actual_columns(connection, stream, schema)
    name = stream.table_name.within(schema)
    declared = event_table(stream, schema).c
    for column in stream.table_columns:
        alter = f"ALTER TABLE {quoted_table(name)} ALTER COLUMN {quoted(column.name)}"
        row = actual.get(column.name)
        if row is None:
            definition = CreateColumn(declared[column.name]).compile(dialect=connection.dialect)
            statement = f"ALTER TABLE {quoted_table(name)} ADD COLUMN {definition}"
            yield TableChange(column, statement, f"added column {name}.{column.name}")
            continue
        narrower = row.oid != column.pg_oid or row.modifier != _NO_LIMIT
        if narrower and (row.oid, column.pg_type) in _WIDER and not row.generated:
            description = f"widened column {name}.{column.name} from {row.type} to {column.pg_type}"
            yield TableChange(column, f"{alter} TYPE {column.pg_type}", description)
        if column.nullable and row.not_null:
            yield TableChange(column, f"{alter} DROP NOT NULL", f"dropped NOT NULL of column {name}.{column.name}")
