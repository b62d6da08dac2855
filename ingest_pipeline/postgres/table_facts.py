"""Queries of an event table's catalog entries. `:name` is the quoted table."""

from __future__ import annotations

from sqlalchemy import text

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
