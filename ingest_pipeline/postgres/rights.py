"""What the role that is connected may do, compared with what a drain needs."""

from __future__ import annotations

from sqlalchemy import Connection, text

from ..core.stream import Stream
from .engine import Schemas

MINIMUM_VERSION = 140_000
"""PostgreSQL 14: the first with idle_session_timeout."""

_NEEDED = {
    "position": ("SELECT", "INSERT", "UPDATE"),
    "dead_letter": ("INSERT",),
    "gap": ("INSERT",),
    "stream_state": ("SELECT", "INSERT", "UPDATE"),
    "incarnation": ("SELECT", "INSERT", "UPDATE"),
    "ledger": ("SELECT",),
}


def server_version(connection: Connection) -> tuple[int, str]:
    """(server_version_num, server_version)."""
    row = connection.execute(
        text("SELECT current_setting('server_version_num')::int AS number, current_setting('server_version') AS name")
    ).one()
    return row.number, row.name


def missing_rights(connection: Connection, stream: Stream, schemas: Schemas) -> list[str]:
    """The GRANT statements that are missing, for tables that exist."""
    quote = connection.dialect.identifier_preparer.quote
    wanted = {f"{quote(schemas.ledger)}.{table}": rights for table, rights in _NEEDED.items()}
    wanted[f"{quote(schemas.events)}.{quote(stream.table)}"] = ("SELECT", "INSERT")
    role = quote(connection.execute(text("SELECT current_user")).scalar_one())
    grants = []
    for table, rights in wanted.items():
        for right in rights:
            if not _may(connection, table, right):
                grants.append(f"GRANT {right} ON {table} TO {role}")
    return grants


def may_create(connection: Connection, schemas: Schemas) -> bool:
    """Whether missing tables could be created by this role: in schemas that exist, or in the database."""
    return all(
        bool(
            connection.execute(
                text(
                    "SELECT coalesce(has_schema_privilege((SELECT oid FROM pg_namespace WHERE nspname = :schema),"
                    " 'CREATE'), has_database_privilege(current_database(), 'CREATE'))"
                ),
                {"schema": schema},
            ).scalar()
        )
        for schema in (schemas.events, schemas.ledger)
    )


def _may(connection: Connection, table: str, right: str) -> bool:
    question = text("SELECT has_table_privilege(to_regclass(:name), :right)")
    return bool(connection.execute(question, {"name": table, "right": right}).scalar())
