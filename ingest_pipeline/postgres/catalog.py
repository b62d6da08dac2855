"""Facts from PostgreSQL's catalog beside columns and keys: where rows go, and whether they survive a crash."""

from __future__ import annotations

from sqlalchemy import Connection, text

from .queries import quoted
from .sql import Schemas
from .tables import letter_oids

SIGNATURE = """
    SELECT bit_xor(part) FROM (
        SELECT hash_record_extended((a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attnotnull,
                                     a.atthasdef, a.attidentity, a.attgenerated, a.attisdropped), 0)
        FROM pg_attribute a WHERE a.attrelid IN (to_regclass(:event_table), to_regclass(:letter_table)) AND a.attnum > 0
        UNION ALL
        SELECT hash_record_extended((c.oid, c.relkind, c.relpersistence, c.relhasrules, c.relrowsecurity), 0)
        FROM pg_class c WHERE c.oid IN (to_regclass(:event_table), to_regclass(:letter_table))) AS parts(part)"""
"""A number that changes with every ALTER that could change a row. Equal numbers need no closer comparison."""

_PERSISTENCE = {"u": "UNLOGGED", "t": "TEMPORARY"}
_STORAGE = text("""
    WITH RECURSIVE tree AS (
        SELECT to_regclass(:name)::oid AS oid
        UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree ON tree.oid = i.inhparent)
    SELECT c.oid::regclass::text AS name, c.relpersistence FROM tree JOIN pg_class c USING (oid)
    WHERE c.relpersistence <> 'p' ORDER BY 1""")
_INSERT_RULES = text("""
    SELECT rulename FROM pg_rewrite WHERE ev_class = to_regclass(:name) AND ev_type = '3' ORDER BY 1""")
_LEDGER = text("""
    SELECT c.relname AS name, c.relpersistence FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND c.relkind IN ('r', 'p') AND c.relpersistence <> 'p' ORDER BY 1""")
_LEDGER_SECURITY = text("""
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND c.relkind IN ('r', 'p') AND row_security_active(c.oid) ORDER BY 1""")
_LETTER_TYPES = text("""
    SELECT c.name, format_type(a.atttypid, NULL) AS actual, format_type(c.oid, NULL) AS declared
    FROM unnest(CAST(:names AS text[]), CAST(:oids AS bigint[])) AS c(name, oid)
    LEFT JOIN pg_attribute a ON a.attrelid = to_regclass(:table) AND a.attname = c.name AND NOT a.attisdropped
    WHERE a.atttypid IS DISTINCT FROM c.oid""")


def storage_differences(connection: Connection, table: str, allow_unlogged: bool) -> list[str]:
    """Reasons why committed rows of this table (a quoted name) could vanish, in words.

    Partitions and child tables count too. An INSERT rule redirects rows of INSERT, but not of COPY.
    """
    differences = []
    for row in connection.execute(_STORAGE, {"name": table}):
        if not (allow_unlogged and row.relpersistence == "u"):
            differences.append(
                f"table {row.name} is {_PERSISTENCE[row.relpersistence]}, so a crash of PostgreSQL empties it while the"
                f" positions stay: {_way_out(row.name, row.relpersistence)}"
            )
    for rule in connection.execute(_INSERT_RULES, {"name": table}).scalars():
        differences.append(f"rule {rule} rewrites each INSERT into the table: drop it, or make it a trigger")
    return differences


def ledger_differences(connection: Connection, schemas: Schemas) -> list[str]:
    """Reasons why the ledger itself is not reliable, in words."""
    differences = [
        f"ledger table {schemas.ledger}.{row.name} is {_PERSISTENCE[row.relpersistence]}, so a crash of PostgreSQL"
        f" empties it: ALTER TABLE {quoted(schemas.ledger)}.{quoted(row.name)} SET LOGGED"
        for row in connection.execute(_LEDGER, {"schema": schemas.ledger})
    ]
    differences += [
        f"row-level security applies to ledger table {schemas.ledger}.{name}, so positions or dead letters would be"
        f" hidden: ALTER TABLE {quoted(schemas.ledger)}.{quoted(name)} DISABLE ROW LEVEL SECURITY"
        for name in connection.execute(_LEDGER_SECURITY, {"schema": schemas.ledger}).scalars()
    ]
    oids = letter_oids()
    parameters = {
        "table": f"{quoted(schemas.ledger)}.dead_letter",
        "names": list(oids),
        "oids": list(oids.values()),
    }
    for row in connection.execute(_LETTER_TYPES, parameters):
        differences.append(
            f"column {row.name} of ledger table {schemas.ledger}.dead_letter is {row.actual or 'missing'}, declared as"
            f" {row.declared}"
        )
    return differences


def _way_out(table: str, persistence: str) -> str:
    if persistence == "t":
        return "make it a permanent table"
    return f"ALTER TABLE {table} SET LOGGED, or declare the stream with allow_unlogged=True"
