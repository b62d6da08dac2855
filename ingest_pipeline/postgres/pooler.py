"""Detects a pooler between the product and PostgreSQL, and whether it is in session mode.

A run's advisory locks belong to a session. A pooler in transaction or statement mode moves a client between sessions,
so the locks would stay behind on a session that lives on.
"""

from typing import Any

import psycopg

_PATIENCE_SECONDS = 5.0
_END_SOON = "SELECT set_config('idle_session_timeout', '50ms', false), pg_backend_pid()"
REFUSAL = (
    "DATABASE_URL leads to a pooler in transaction or statement mode, which moves a run from session to session and"
    " leaves its locks behind: let DATABASE_URL lead to PostgreSQL itself, or to a pool in session mode"
)


def has_pooler(connection: psycopg.Connection[Any]) -> bool:
    """Whether the process id from the cancel key differs from the session's own.

    PostgreSQL sends its own process id. A pooler invents a key in every mode. A pooler in statement mode refuses the
    transaction.
    """
    try:
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        connection.commit()
    except psycopg.errors.ProtocolViolation:
        return True
    return row is None or connection.info.backend_pid != row[0]


def keeps_sessions(spare: psycopg.Connection[Any]) -> bool:
    """Whether the pooler keeps a client on one session. The test ends the session of a spare connection.

    PostgreSQL ends the idle session. In session mode the pooler then closes the client's connection. In transaction
    mode an idle client has no session, so nothing happens. In statement mode the pooler refuses the transaction.
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
