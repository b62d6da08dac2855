"""Puts the names of schemas and tables into SQL statements."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy import TextClause, text

from ..core.stream import Stream
from .queries import quoted

_NAME = re.compile(r"\{(ledger|table)\}")


def in_text(name: str) -> str:
    """A name as an identifier inside SQLAlchemy's `text`, which takes `:word` for a parameter."""
    return quoted(name).replace(":", "\\:")


@dataclass(frozen=True)
class Schemas:
    """Names of the schemas of the event tables and of the ledger."""

    events: str = "public"
    ledger: str = "ingest"

    def table(self, stream: Stream) -> str:
        """The stream's event table, for use inside `text`."""
        return f"{in_text(self.events)}.{in_text(stream.table)}"

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
