"""A table's name with its schema."""

from __future__ import annotations

from typing import NamedTuple, Self

from .errors import SettingsError


class TableName(NamedTuple):
    """`schema` is "" for a table in DATABASE_SCHEMA."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name

    @classmethod
    def parsed(cls, stream: str, declared: str) -> Self:
        """Of `name` or `schema.name`. Raises SettingsError for another number of dots."""
        parts = declared.split(".")
        if len(parts) > 2 or "" in parts:
            raise SettingsError(f"stream {stream}: table {declared!r} is not a table's name or schema.name")
        return cls(*parts) if len(parts) == 2 else cls("", declared)

    def within(self, database_schema: str) -> TableName:
        """The same name, in DATABASE_SCHEMA if it has no schema of its own."""
        return TableName(self.schema or database_schema, self.name)
