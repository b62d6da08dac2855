"""Puts the names of schemas and tables into SQL statements."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import TextClause, text

from ..core.column_names import TableName
from ..core.stream import Stream
from .queries import quoted, quoted_table

_NAME = re.compile(r"\{(ledger|table)\}")


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
        return list(dict.fromkeys(self.table_name(stream).schema for stream in streams))

    def quoted_table(self, stream: Stream) -> str:
        """The stream's event table as an SQL identifier."""
        return quoted_table(self.table_name(stream))

    def table(self, stream: Stream) -> str:
        """The stream's event table, for use inside `text`."""
        return table_in_text(self.table_name(stream))

    def sql(self, statement: str, stream: Stream | None = None, **parts: str) -> TextClause:
        """The statement with all names in braces replaced.

        Args:
            statement: `{ledger}` stands for the ledger's schema and `{table}` for the stream's event table.
            parts: SQL for other names in braces. A part may contain `{ledger}` and `{table}`.
        """
        for name, part in parts.items():
            statement = statement.replace(f"{{{name}}}", part)
        names = {"ledger": in_text(self.ledger), "table": self.table(stream) if stream else "{table}"}
        return text(_NAME.sub(lambda name: names[name[1]], statement))
