"""Whether a pooler before PostgreSQL gives each client a session of its own.

A run's advisory locks belong to a session. A pooler in transaction or statement mode moves a client from session to
session, so the locks would stay behind on one that nobody ends.
"""

from __future__ import annotations

from typing import Any

import psycopg

_PATIENCE_SECONDS = 5.0
_END_SOON = "SELECT set_config('idle_session_timeout', '50ms', false), pg_backend_pid()"
REFUSAL = (
    "DATABASE_URL leads to a pooler in transaction or statement mode, which moves a run from session to session and"
    " leaves its locks behind: let DATABASE_URL lead to PostgreSQL itself, or to a pool in session mode"
)


def has_pooler(connection: psycopg.Connection[Any]) -> bool:
    """Whether the process id that came with the cancel key is another one than the session's own.

    PostgreSQL sends the session's. A pooler makes up a key of its own, in every mode. One in statement mode refuses
    the transaction.
    """
    try:
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        connection.commit()
    except psycopg.errors.ProtocolViolation:
        return True
    return row is None or connection.info.backend_pid != row[0]


def keeps_sessions(spare: psycopg.Connection[Any]) -> bool:
    """Whether the pooler keeps a client on one session. Ends the spare connection's session to see that.

    PostgreSQL ends the session for being idle. In session mode the pooler then ends the client's connection too, since
    the session is the client's own. In transaction mode an idle client has no session, and so sees nothing. In
    statement mode the pooler refuses the transaction.
    """
    try:
        spare.execute(_END_SOON)
        spare.commit()
    except psycopg.Error:
        return False
    try:
        for _ in spare.notifies(timeout=_PATIENCE_SECONDS, stop_after=1):
            pass
    except psycopg.OperationalError:
        return True
    return False
