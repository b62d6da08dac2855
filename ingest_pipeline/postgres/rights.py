"""Compares the rights of the connected role with the rights that drains, commands and jobs need."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

from ..core.choices import OnConflict
from ..core.stream import Stream
from .queries import quoted
from .sql import Schemas

MINIMUM_VERSION = 140_000
"""PostgreSQL 14, the first version with idle_session_timeout."""

_NEEDED = {
    "position": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "past_position": ("SELECT", "INSERT"),
    "dead_letter": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "settled_letters": ("SELECT", "INSERT", "UPDATE"),
    "loss": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "accounting": ("SELECT",),
    "gap": ("INSERT",),
    "stream_state": ("SELECT", "INSERT", "UPDATE"),
    "alert": ("SELECT", "INSERT", "UPDATE"),
    "incarnation": ("SELECT", "INSERT", "UPDATE"),
    "ledger": ("SELECT",),
    "schema_version": ("SELECT",),
}
_NO_USAGE = text("SELECT NOT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = :schema")
_MAY_LOOK = text("""
    SELECT NOT EXISTS (SELECT FROM pg_namespace n LEFT JOIN pg_class c
                           ON c.relnamespace = n.oid AND c.relname = 'schema_version' AND n.nspname = :ledger
                       WHERE (n.nspname = :ledger OR n.nspname = ANY(CAST(:events AS text[])))
                         AND NOT (has_schema_privilege(n.oid, 'USAGE')
                                  AND coalesce(has_table_privilege(c.oid, 'SELECT'), true)))""")
_MAY_CREATE = text("""
    SELECT coalesce(has_schema_privilege((SELECT oid FROM pg_namespace WHERE nspname = :schema), 'CREATE'),
                    has_database_privilege(current_database(), 'CREATE'))""")
_WITHOUT_TEMPORARY = text("""
    SELECT current_database() WHERE NOT has_database_privilege(current_database(), 'TEMPORARY')""")
"""A keyed stream's rows go through a temporary table."""
_MAY_NOT = text("""
    SELECT NOT has_table_privilege(c.oid, :right) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND c.relname = :table""")

_SEQUENCES_WITHOUT_USAGE = text("""
    SELECT DISTINCT s.oid::regclass::text
    FROM pg_attrdef default_ JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = default_.oid
    JOIN pg_class s ON d.refclassid = 'pg_class'::regclass AND s.oid = d.refobjid AND s.relkind = 'S'
    JOIN pg_class c ON c.oid = default_.adrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND c.relname = :table
      AND CASE WHEN s.relkind = 'S' THEN NOT has_sequence_privilege(s.oid, 'USAGE') END ORDER BY 1""")
"""Rights on the sequences behind column defaults, such as a serial column's. An identity column needs none."""


def server_version(connection: Connection) -> tuple[int, str]:
    """(server_version_num, server_version)."""
    row = connection.execute(
        text("SELECT current_setting('server_version_num')::int AS number, current_setting('server_version') AS name")
    ).one()
    return row.number, row.name


def missing_rights(
    connection: Connection, streams: Sequence[Stream], schemas: Schemas, absent_too: bool = False
) -> list[str]:
    """The missing GRANT statements. Needs no right to look at schemas and tables.

    Args:
        absent_too: also the rights on schemas and tables that do not exist yet.
    """
    role = quoted(connection.execute(text("SELECT current_user")).scalar_one())
    grants = []
    tables = [schemas.table_name(stream) for stream in streams]
    for schema in dict.fromkeys((schemas.ledger, *schemas.of_tables(streams))):
        no_usage = connection.execute(_NO_USAGE, {"schema": schema}).scalar()
        if no_usage or (no_usage is None and absent_too):
            grants.append(f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {role}")
    needed = {(schemas.ledger, table): rights for table, rights in _NEEDED.items()}
    needed |= {(table.schema, table.name): _table_rights(stream) for stream, table in zip(streams, tables, strict=True)}
    for (schema, table), rights in needed.items():
        names = {"schema": schema, "table": table}
        may_not = {right: connection.execute(_MAY_NOT, {**names, "right": right}).scalar() for right in rights}
        missing = [right for right, refused in may_not.items() if refused or (refused is None and absent_too)]
        if missing:
            grants.append(f"GRANT {', '.join(missing)} ON {quoted(schema)}.{quoted(table)} TO {role}")
    sequences = dict.fromkeys(
        sequence
        for table in tables
        for sequence in connection.execute(
            _SEQUENCES_WITHOUT_USAGE, {"schema": table.schema, "table": table.name}
        ).scalars()
    )
    grants += [f"GRANT USAGE ON SEQUENCE {sequence} TO {role}" for sequence in sequences]
    if any(stream.key for stream in streams):
        without_temporary = connection.execute(_WITHOUT_TEMPORARY).scalars()
        grants += [f"GRANT TEMPORARY ON DATABASE {quoted(database)} TO {role}" for database in without_temporary]
    return grants


def _table_rights(stream: Stream) -> tuple[str, ...]:
    updates = bool(stream.key) and stream.on_conflict == OnConflict.UPDATE
    return ("SELECT", "INSERT", *(["UPDATE"] if updates else []), *(["DELETE"] if stream.deletes else []))


def may_look(connection: Connection, schemas: Schemas, streams: Sequence[Stream]) -> bool:
    """Whether this role may read the ledger's version and look up tables, as far as the schemas exist."""
    parameters = {"ledger": schemas.ledger, "events": schemas.of_tables(streams)}
    return bool(connection.execute(_MAY_LOOK, parameters).scalar())


def may_create(connection: Connection, schemas: Schemas, streams: Sequence[Stream]) -> bool:
    """Whether this role could create the missing tables, in existing schemas or in the database."""
    names = (*schemas.of_tables(streams), schemas.ledger)
    return all(connection.execute(_MAY_CREATE, {"schema": schema}).scalar() for schema in names)
