"""The rights of every role in PostgreSQL, printed by `ingest grants` and tried by `ingest check`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..core.choices import OnConflict
from ..core.column_names import TableName
from ..core.roles import Role
from ..core.stream import Stream
from ..core.streams import tables_of
from .queries import quoted
from .sql import Schemas

LEDGER_TABLES = (
    "position",
    "past_position",
    "dead_letter",
    "settled_letters",
    "loss",
    "accounting",
    "gap",
    "stream_state",
    "alert",
    "incarnation",
    "ledger",
    "schema_version",
)
_READER: Mapping[str, tuple[str, ...]] = dict.fromkeys(LEDGER_TABLES, ("SELECT",))
_WRITER: Mapping[str, tuple[str, ...]] = {
    "position": ("INSERT", "UPDATE"),
    "dead_letter": ("INSERT", "DELETE"),
    "settled_letters": ("INSERT", "UPDATE"),
    "loss": ("INSERT", "UPDATE", "DELETE"),
    "stream_state": ("INSERT", "UPDATE"),
    "alert": ("INSERT", "UPDATE"),
    "incarnation": ("INSERT", "UPDATE"),
}
_ACCEPT_LOSSES: Mapping[str, tuple[str, ...]] = {
    "position": ("DELETE",),
    "past_position": ("INSERT",),
    "gap": ("INSERT",),
}
_SETTLE_LETTERS: Mapping[str, tuple[str, ...]] = {"dead_letter": ("UPDATE",)}

Kind = Literal["DATABASE", "SCHEMA", "TABLE"]


@dataclass(frozen=True, slots=True)
class Grant:
    """Privileges on a database, a schema or a table.

    Attributes:
        names: the database, the schema, or the schema and its table.
    """

    kind: Kind
    names: tuple[str, ...]
    privileges: tuple[str, ...]

    def sql(self, role: str, privileges: Iterable[str] | None = None) -> str:
        """The statement, or the statement for a part of the privileges."""
        target = ".".join(map(quoted, self.names))
        kind = "" if self.kind == "TABLE" else f"{self.kind} "
        return f"GRANT {', '.join(privileges or self.privileges)} ON {kind}{target} TO {quoted(role)}"


def grants(
    role: Role, streams: Sequence[Stream], schemas: Schemas, database: str, *, accepts_losses: bool = False
) -> Iterator[Grant]:
    """The role's grants.

    Args:
        accepts_losses: a stream has ON_DATA_LOSS=continue, so its runs accept losses themselves.
    """
    of_tables = schemas.of_tables(streams)
    if role is Role.OWNER:
        yield Grant("DATABASE", (database,), ("CONNECT", "TEMPORARY"))
        for schema in dict.fromkeys((schemas.ledger, *of_tables)):
            yield Grant("SCHEMA", (schema,), ("USAGE", "CREATE"))
        return
    writes = role is not Role.READER
    # A replay and the rows of a stream with a key go through a temporary table.
    temporary = role is Role.OPERATOR or (writes and any(stream.key for stream in streams))
    yield Grant("DATABASE", (database,), ("CONNECT", "TEMPORARY") if temporary else ("CONNECT",))
    for schema in dict.fromkeys((schemas.ledger, *(of_tables if writes else ()))):
        yield Grant("SCHEMA", (schema,), ("USAGE",))
    parts = [_READER]
    if writes:
        parts.append(_WRITER)
    if role is Role.OPERATOR or (writes and accepts_losses):
        parts.append(_ACCEPT_LOSSES)
    # A deletion discards the open letters of its key.
    if role is Role.OPERATOR or (writes and any(stream.deletes for stream in streams)):
        parts.append(_SETTLE_LETTERS)
    for table in LEDGER_TABLES:
        privileges = tuple(privilege for part in parts for privilege in part.get(table, ()))
        yield Grant("TABLE", (schemas.ledger, table), privileges)
    if writes:
        privileges_of: dict[TableName, dict[str, None]] = {}
        for stream in tables_of(streams):
            privileges_of.setdefault(schemas.table_name(stream), {}).update(dict.fromkeys(_of_events(stream)))
        for name, of_table in privileges_of.items():
            yield Grant("TABLE", tuple(name), tuple(of_table))


def _of_events(stream: Stream) -> tuple[str, ...]:
    updates = bool(stream.key) and stream.on_conflict == OnConflict.UPDATE
    return ("SELECT", "INSERT", *(["UPDATE"] if updates else []), *(["DELETE"] if stream.deletes else []))


def script(
    role: Role, name: str, streams: Sequence[Stream], schemas: Schemas, database: str, *, accepts_losses: bool = False
) -> Iterator[str]:
    """Lines for psql that give the role `name` all its rights, those on later tables included."""
    of_tables = schemas.of_tables(streams)
    granted = grants(role, streams, schemas, database, accepts_losses=accepts_losses)
    if role is Role.OWNER:
        yield "-- As a superuser, before `ingest migrate`:"
        for schema in dict.fromkeys((schemas.ledger, *of_tables)):
            yield f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)};"
        for grant in granted:
            yield f"{grant.sql(name)} WITH GRANT OPTION;"
        return
    yield "-- As the role that ran `ingest migrate`, and again after a new ledger version or a new stream:"
    for grant in granted:
        yield f"{grant.sql(name)};"
    if role is Role.READER:
        yield f"{_later(schemas.ledger)} GRANT SELECT ON TABLES TO {quoted(name)};"
        return
    for schema in of_tables:
        yield f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {quoted(schema)} TO {quoted(name)};"
        yield f"{_later(schema)} GRANT SELECT, INSERT ON TABLES TO {quoted(name)};"
        yield f"{_later(schema)} GRANT USAGE ON SEQUENCES TO {quoted(name)};"


def _later(schema: str) -> str:
    return f"ALTER DEFAULT PRIVILEGES IN SCHEMA {quoted(schema)}"
