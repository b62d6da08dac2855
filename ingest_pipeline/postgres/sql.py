"""Puts the names of schemas and tables into SQL statements."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import TextClause, text

from ..core.column_names import TableName
from ..core.stream import Stream
from ..core.streams import tables_of
from .queries import quoted, quoted_table

_NAME = re.compile(r"\{(ledger|rows|holds)\}")


def in_text(name: str) -> str:
    """A name as an identifier inside SQLAlchemy's `text`, which takes `:word` for a parameter."""
    return quoted(name).replace(":", "\\:")


def table_in_text(table: TableName) -> str:
    return f"{in_text(table.schema)}.{in_text(table.name)}"


@dataclass(frozen=True)
class Schemas:
    """Names of the schemas of the event tables and of the ledger. `events` holds tables declared without a schema."""

    events: str = "public"
    ledger: str = "ingest"

    def table_name(self, stream: Stream) -> TableName:
        return stream.table_name.within(self.events)

    def of_tables(self, streams: Iterable[Stream]) -> list[str]:
        """The schemas of the streams' tables."""
        return list(dict.fromkeys(self.table_name(table).schema for table in tables_of(streams)))

    def quoted_table(self, stream: Stream) -> str:
        """The stream's event table as an SQL identifier."""
        return quoted_table(self.table_name(stream))

    def table(self, stream: Stream) -> str:
        """The stream's event table, for use inside `text`."""
        return table_in_text(self.table_name(stream))

    def rows(self, stream: Stream) -> str:
        """The stream's rows, in any of its tables, in the place of a table inside `text`.

        A relation of several tables, or of one that streams share, has only the columns that every table has.
        """
        if stream.route is None and not (stream.topic_column and stream.coordinates):
            return self.table(stream)
        columns = "kafka_incarnation, kafka_partition, kafka_offset, kafka_timestamp, ingested_at"
        columns = "*" if stream.route is None else columns
        where = f" WHERE {in_text(stream.topic_column)} = '{stream.topic}'" if stream.topic_column else ""
        parts = (f"SELECT {columns} FROM {self.table(table)}{where}" for table in stream.tables)  # noqa: S608
        return f"({' UNION ALL '.join(parts)})"

    def holds(self, stream: Stream) -> str:
        """A condition that is false, and locks the stream's tables against any ALTER until COMMIT."""
        return " OR ".join(f"EXISTS (SELECT FROM ONLY {self.table(table)} WHERE false)" for table in stream.tables)

    def sql(self, statement: str, stream: Stream | None = None, **parts: str) -> TextClause:
        """The statement with all names in braces replaced.

        Args:
            statement: `{ledger}` stands for the ledger's schema, `{rows}` and `{holds}` for those of the stream.
            parts: SQL for other names in braces. A part may contain the names above, so it has no declared identifier.
        """
        for name, part in parts.items():
            statement = statement.replace(f"{{{name}}}", part)
        names = {"ledger": in_text(self.ledger)}
        if stream is not None:
            names |= {"rows": self.rows(stream), "holds": self.holds(stream)}
        return text(_NAME.sub(lambda name: names[name[1]], statement))
