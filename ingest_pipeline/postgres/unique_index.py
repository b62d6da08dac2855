"""Whether a keyed stream's table has a unique index that ON CONFLICT can use."""

from __future__ import annotations

from sqlalchemy import Connection, text

from ..core.stream import Stream
from .queries import quoted

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
        f" ADD PRIMARY KEY ({columns})"
    ]
