"""Names of a table, its indexes and its columns, and which of them are allowed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Self

from .columns import COORDINATE_COLUMNS, INGESTED_AT, KAFKA_TIMESTAMP
from .errors import SettingsError
from .fields import Field


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


RESERVED = (*(column.name for column in COORDINATE_COLUMNS), KAFKA_TIMESTAMP.name, INGESTED_AT.name)
SYSTEM_COLUMNS = ("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid")
"""PostgreSQL adds these columns to every table."""
POSTGRES_NAME_BYTES = 63
MOST_COLUMNS = 1600
"""PostgreSQL's limit per table."""


def taken_names(coordinates: bool = True) -> dict[str, str]:
    """Reserved name → the reason. `coordinates`: the table has the package's own columns."""
    return {
        **dict.fromkeys(RESERVED if coordinates else (), "every event table has a column of that name already"),
        **dict.fromkeys(SYSTEM_COLUMNS, "every table of PostgreSQL has a system column of that name"),
    }


def index_names(table: str) -> tuple[str, str]:
    """Names of an event table's primary key and of the index on event_time. Both share the table's schema."""
    return derived_name(table, "_pkey"), derived_name(table, "_event_time_brin")


def derived_name(table: str, suffix: str) -> str:
    """The table's name and a suffix. A name too long for PostgreSQL is cut and made unique by a hash."""
    if len(table.encode()) + len(suffix) <= POSTGRES_NAME_BYTES:
        return table + suffix
    suffix = f"_{hashlib.sha256(table.encode()).hexdigest()[:8]}{suffix}"
    return table.encode()[: POSTGRES_NAME_BYTES - len(suffix)].decode(errors="ignore") + suffix


def check_sizes(stream: str, table: TableName, columns: Sequence[str]) -> None:
    """Raises SettingsError for a name that PostgreSQL would cut, and for too many columns."""
    for name in (*filter(None, table), *columns):
        if "\0" in name or not 1 <= len(name.encode()) <= POSTGRES_NAME_BYTES:
            raise SettingsError(
                f"stream {stream}: {name!r} does not fit PostgreSQL's {POSTGRES_NAME_BYTES} bytes for a name"
            )
    if len(columns) > MOST_COLUMNS:
        raise SettingsError(
            f"stream {stream}: {len(columns):,} columns are more than PostgreSQL's {MOST_COLUMNS:,}. To keep a"
            " Struct inside the event in one jsonb column, declare its field Annotated[..., AsJson]"
        )


def check_fields(stream: str, owner: str, fields: Iterable[Field], taken: Mapping[str, str]) -> None:
    """Raises SettingsError for fields with a reserved column name, or with the same column name."""
    by_name: dict[str, Field] = {}
    for why in dict.fromkeys(taken.values()):
        if reserved := [item for item in fields if taken.get(item.name) == why]:
            first = reserved[0]
            raise SettingsError(
                f"{', '.join(f'{owner}.{item.dotted}' for item in reserved)}: {why}. Rename the field and keep its JSON"
                f' key: `{first.attribute}_value: ... = field(name="{first.json_name}")`'
            )
    for item in fields:
        if (other := by_name.setdefault(item.name, item)) is not item:
            raise SettingsError(
                f"stream {stream}: {owner}.{other.dotted} and {owner}.{item.dotted} would both be column {item.name}:"
                " rename one"
            )


def check_option_names(stream: str, options: Mapping[str, str], taken: Mapping[str, str]) -> None:
    """Raises SettingsError for an option whose column has a taken name. `options`: option → column, "" for none."""
    taken = dict(taken)
    for option, column in options.items():
        if column in taken:
            raise SettingsError(f"stream {stream}: {option} {column!r}: {taken[column]}")
        if column:
            taken[column] = f"that is the {option}"
