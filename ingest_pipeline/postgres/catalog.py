"""Facts from PostgreSQL's catalog: columns, keys, where rows go, and whether they survive a crash."""

from sqlalchemy import Connection, text

from ..core.stream import Stream
from .queries import quoted
from .sql import Schemas
from .tables import letter_oids

TABLE = text("""
    SELECT c.relkind, row_security_active(c.oid) AS row_security, current_user AS role,
           pg_get_partkeydef(c.oid) AS partition_key, c.relispartition AS is_partition,
           c.relkind = 'v' AND EXISTS (
               SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgtype & 69 = 69 AND t.tgenabled IN ('O', 'A'))
               AS takes_rows
    FROM pg_class c WHERE c.oid = to_regclass(:name)""")
COLUMNS = text("""
    SELECT a.attname AS name, a.atttypid::bigint AS oid, format_type(a.atttypid, a.atttypmod) AS type,
           a.atttypmod AS modifier, (a.attnotnull OR t.typnotnull) AS not_null, a.attidentity AS identity,
           a.attgenerated AS generated,
           (a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> '' OR t.typdefault IS NOT NULL) AS filled
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = to_regclass(:name) AND a.attnum > 0 AND NOT a.attisdropped""")
PRIMARY_KEY = text("""
    SELECT c.conname AS name, c.condeferrable AS deferrable,
           array(SELECT a.attname::text FROM unnest(c.conkey) WITH ORDINALITY AS k(attnum, place)
                 JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.attnum ORDER BY k.place) AS columns
    FROM pg_constraint c WHERE c.conrelid = to_regclass(:name) AND c.contype = 'p'""")
BELOW = text("""
    WITH RECURSIVE tree AS (
        SELECT inhrelid AS oid FROM pg_inherits WHERE inhparent = to_regclass(:name)
        UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree ON tree.oid = i.inhparent)
    SELECT c.oid::regclass::text AS name, c.relkind,
           coalesce(pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT', false) AS is_default
    FROM tree JOIN pg_class c USING (oid) ORDER BY 1""")
HAS_ROWS = text("SELECT pg_relation_size(to_regclass(:name)) > 0")
"""True after a row was written, also if the row is gone. Needs no right on the table."""
TRIGGERS = text("""
    SELECT t.tgname || CASE WHEN c.oid = to_regclass(:name) THEN '' ELSE ' of ' || c.oid::regclass END
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE (c.oid = to_regclass(:name)
           OR c.relispartition AND c.oid IN (SELECT relid FROM pg_partition_tree(to_regclass(:name))))
      AND t.tgparentid = 0 AND NOT t.tgisinternal AND t.tgtype & 7 = 7 AND t.tgenabled IN ('O', 'A')
    ORDER BY 1""")


SIGNATURE = """
    SELECT bit_xor(part) FROM (
        SELECT hash_record_extended((a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attnotnull,
                                     a.atthasdef, a.attidentity, a.attgenerated, a.attisdropped), 0)
        FROM pg_attribute a WHERE a.attrelid IN ({event_tables}, to_regclass(:letter_table)) AND a.attnum > 0
        UNION ALL
        SELECT hash_record_extended((c.oid, c.relkind, c.relpersistence, c.relhasrules, c.relrowsecurity), 0)
        FROM pg_class c WHERE c.oid IN ({event_tables}, to_regclass(:letter_table))) AS parts(part)"""
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
    parameters = {"table": f"{quoted(schemas.ledger)}.dead_letter", "names": list(oids), "oids": list(oids.values())}
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


_UNIQUE = text("""
    SELECT EXISTS (
        SELECT FROM pg_index i
        WHERE i.indrelid = to_regclass(:name) AND i.indisunique AND i.indimmediate AND i.indisvalid
          AND i.indpred IS NULL AND i.indexprs IS NULL
          AND (SELECT array_agg(a.attname::text ORDER BY a.attname::text COLLATE "C")
               FROM unnest(i.indkey[0:i.indnkeyatts - 1]) AS k(attnum)
               JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum) = CAST(:key AS text[]))""")


def unique_differences(connection: Connection, stream: Stream, name: str) -> list[str]:
    """The missing index in words, with the way out. `name`: of the table, quoted."""
    if connection.execute(_UNIQUE, {"name": name, "key": sorted(stream.key)}).scalar_one():
        return []
    columns = ", ".join(map(quoted, stream.key))
    return [
        f"no primary key or unique index is on ({columns}) alone, without WHERE and not DEFERRABLE: ALTER TABLE {name}"
        f" ADD UNIQUE ({columns})"
    ]
