"""Names the sessions blocking a migration."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Row, text

from ..core.errors import DatabaseUnavailable
from ..core.stream import Stream
from .database import Database

MIGRATION_LOCK = "hashtextextended('ingest migrate', 0)"
"""The key of the advisory lock that a migration takes first."""
_LOCK_NOT_AVAILABLE = "55P03"
_SHOWN = 3
_SESSIONS = text(f"""
    SELECT a.pid, a.usename, a.application_name, l.object,
           extract(epoch FROM clock_timestamp() - a.xact_start)::bigint AS seconds
    FROM (
        SELECT k.pid, min(coalesce(c.relname, 'the lock of ingest migrate')) AS object
        FROM pg_locks k LEFT JOIN pg_class c ON c.oid = k.relation LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN unnest(CAST(:schemas AS text[]), CAST(:tables AS text[])) AS t(schema, name)
            ON n.nspname = t.schema AND c.relname = t.name
        WHERE k.granted AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND (c.relkind IN ('r', 'p') AND (n.nspname = :ledger OR t.name IS NOT NULL)
               OR k.locktype = 'advisory' AND (k.classid::bigint << 32 | k.objid::bigint) = {MIGRATION_LOCK})
        GROUP BY k.pid
    ) AS l JOIN pg_stat_activity a USING (pid)
    WHERE a.pid <> pg_backend_pid() ORDER BY a.xact_start NULLS LAST, a.pid LIMIT {_SHOWN}""")  # noqa: S608 (constants)


@contextmanager
def named(database: Database, streams: Collection[Stream]) -> Iterator[None]:
    """Wrap a migration of these tables. If a lock was not granted in time, the error names the sessions that hold it.

    Raises:
        DatabaseUnavailable: the migration's own error, with the sessions.
    """
    try:
        yield
    except DatabaseUnavailable as error:
        if error.sqlstate != _LOCK_NOT_AVAILABLE:
            raise
        tables = [database.schemas.table_name(stream) for stream in streams]
        parameters = {
            "ledger": database.schemas.ledger,
            "schemas": [table.schema for table in tables],
            "tables": [table.name for table in tables],
        }
        with database.connect("looking for the sessions that hold the tables") as connection:
            sessions = connection.execute(_SESSIONS, parameters).all()
        holders = "; ".join(map(_described, sessions)) or "a session that has let go since"
        message = f"{error.message}. Held by {holders}. Nothing was changed: let them finish, then migrate again"
        raise DatabaseUnavailable(message, **error.where) from error


def _described(session: Row[Any]) -> str:
    since = "" if session.seconds is None else f", in a transaction for {session.seconds:,} s"
    who = f"{session.application_name or 'unnamed'}, role {session.usename}{since}"
    return f"session {session.pid} ({who}): {session.object}"
