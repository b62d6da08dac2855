"""What `ingest migrate` would do, as SQL. Changes nothing and locks nothing."""

from collections.abc import Iterable

from sqlalchemy import Connection

from ..core.stream import Stream
from ..core.streams import tables_of
from .comparison import has_table, table_differences
from .database import Database
from .queries import quoted
from .schema import LEDGER_VERSION, has_schema, ledger_version, refuse_newer
from .table_changes import table_changes
from .table_reads import ddl


def planned(database: Database, streams: Iterable[Stream]) -> list[str]:
    """The statements in order. A comment names the ledger's migration, and every difference that no statement mends.

    Raises:
        SchemaMismatch: the ledger belongs to newer code.
    """
    lines: list[str] = []
    with database.connect("planning a migration") as connection:
        version = ledger_version(connection, database.schemas.ledger)
        refuse_newer(version, database)
        if version != LEDGER_VERSION:
            before = f"from version {version}" if version else "from nothing"
            lines.append(f"-- the ledger {database.schemas.ledger} goes {before} to version {LEDGER_VERSION}")
        for table in tables_of(streams):
            lines += [line for line in _of_table(connection, table, database.schemas.events) if line not in lines]
    return lines


def _of_table(connection: Connection, stream: Stream, schema: str) -> list[str]:
    table = stream.table_name.within(schema)
    if stream.coordinates and not has_table(connection, stream, schema):
        missing = [] if has_schema(connection, table.schema) else [f"CREATE SCHEMA {quoted(table.schema)};"]
        return [*missing, ddl(stream, schema)]
    changes = list(table_changes(connection, stream, schema)) if stream.coordinates else []
    mended = tuple(f"column {change.column.name} " for change in changes)
    return [f"{change.statement};" for change in changes] + [
        f"-- by hand, for stream {stream.name}: {difference}"
        for difference in table_differences(connection, stream, schema)
        if not difference.startswith(mended)
    ]
