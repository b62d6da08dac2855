"""Compares the rights of the connected role with the rights that drains, commands and jobs need."""

from collections.abc import Sequence

from sqlalchemy import Connection, TextClause, text

from ..core.roles import Role
from ..core.stream import Stream
from ..core.streams import tables_of
from . import roles
from .queries import quoted
from .roles import Grant, Kind
from .sql import Schemas

MINIMUM_VERSION = 140_000
"""PostgreSQL 14, the first version with idle_session_timeout."""

_MAY_LOOK = text("""
    SELECT NOT EXISTS (SELECT FROM pg_namespace n LEFT JOIN pg_class c
                           ON c.relnamespace = n.oid AND c.relname = 'schema_version' AND n.nspname = :ledger
                       WHERE (n.nspname = :ledger OR n.nspname = ANY(CAST(:events AS text[])))
                         AND NOT (has_schema_privilege(n.oid, 'USAGE')
                                  AND coalesce(has_table_privilege(c.oid, 'SELECT'), true)))""")
_MAY_CREATE = text("""
    SELECT coalesce(has_schema_privilege((SELECT oid FROM pg_namespace WHERE nspname = :schema), 'CREATE'),
                    has_database_privilege(current_database(), 'CREATE'))""")
_LACKS: dict[Kind, TextClause] = {
    "DATABASE": text("SELECT NOT has_database_privilege(:name, :right)"),
    "SCHEMA": text("SELECT NOT has_schema_privilege(oid, :right) FROM pg_namespace WHERE nspname = :name"),
    "TABLE": text("""
        SELECT NOT has_table_privilege(c.oid, :right) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = :name AND c.relname = :table"""),
}
"""Statements without a row for a schema or a table that does not exist."""

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
    connection: Connection,
    streams: Sequence[Stream],
    schemas: Schemas,
    absent_too: bool = False,
    *,
    role: Role = Role.OPERATOR,
    accepts_losses: bool = False,
) -> list[str]:
    """The GRANT statements that the connected role lacks for the work of `role`. Needs no right on schemas and tables.

    Args:
        absent_too: also the rights on schemas and tables that do not exist yet.
        accepts_losses: see roles.grants.
    """
    user, database = connection.execute(text("SELECT current_user, current_database()")).one()
    statements = []
    for grant in roles.grants(role, streams, schemas, database, accepts_losses=accepts_losses):
        if lacking := [right for right in grant.privileges if _lacks(connection, grant, right, absent_too)]:
            statements.append(grant.sql(user, lacking))
    sequences = dict.fromkeys(
        sequence
        for table in dict.fromkeys(map(schemas.table_name, tables_of(streams)))
        for sequence in connection.execute(
            _SEQUENCES_WITHOUT_USAGE, {"schema": table.schema, "table": table.name}
        ).scalars()
    )
    return statements + [f"GRANT USAGE ON SEQUENCE {sequence} TO {quoted(user)}" for sequence in sequences]


def _lacks(connection: Connection, grant: Grant, privilege: str, absent_too: bool) -> bool:
    names = dict(zip(("name", "table"), grant.names, strict=False))
    lacks: bool | None = connection.execute(_LACKS[grant.kind], {**names, "right": privilege}).scalar()
    return absent_too if lacks is None else lacks


def may_look(connection: Connection, schemas: Schemas, streams: Sequence[Stream]) -> bool:
    """Whether this role may read the ledger's version and look up tables, as far as the schemas exist."""
    parameters = {"ledger": schemas.ledger, "events": schemas.of_tables(streams)}
    return bool(connection.execute(_MAY_LOOK, parameters).scalar())


def may_create(connection: Connection, schemas: Schemas, streams: Sequence[Stream]) -> bool:
    """Whether this role could create the missing tables, in existing schemas or in the database."""
    names = (*schemas.of_tables(streams), schemas.ledger)
    return all(connection.execute(_MAY_CREATE, {"schema": schema}).scalar() for schema in names)
