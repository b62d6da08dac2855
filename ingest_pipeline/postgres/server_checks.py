"""Checks of server, database and role for `ingest check`. Every finding is a line."""

from collections.abc import Iterator

from sqlalchemy import Connection, text

from . import pooler
from .database import ENCODING, ENCODING_ADVICE, Database
from .queries import quoted

_FACTS = text("""
    SELECT current_setting('server_encoding') AS encoding, current_database() AS database, current_user AS role,
           current_setting('session_replication_role') AS replication_role""")


_SESSION_LIMIT = text("""
    SELECT least(
        current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
            - coalesce(current_setting('reserved_connections', true)::int, 0),
        nullif((SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user), -1),
        nullif((SELECT datconnlimit FROM pg_database WHERE datname = current_database()), -1))""")


def session_limit(connection: Connection) -> int:
    """Sessions allowed by server, database and role, without the slots reserved for superusers."""
    return int(connection.execute(_SESSION_LIMIT).scalar_one())


def problems(database: Database) -> list[tuple[str, str]]:
    """(subject, problem and way out) for everything that cannot work. Empty if all is well."""
    with database.connect("looking at the server") as connection:
        facts = list(_facts(connection))
    facts += _hosts(database)
    if database.pooler_keeps_sessions() is False:
        facts.append(("pooler", pooler.REFUSAL))
    return facts


def _facts(connection: Connection) -> Iterator[tuple[str, str]]:
    facts = connection.execute(_FACTS).one()
    if facts.encoding != ENCODING:
        yield "encoding", f"database {facts.database} is encoded in {facts.encoding}: {ENCODING_ADVICE}"
    if facts.replication_role != "origin":
        yield (
            "session_replication_role",
            f"is {facts.replication_role}, so neither triggers nor foreign keys of the event tables act:"
            f" ALTER ROLE {quoted(facts.role)} RESET session_replication_role",
        )


def _hosts(database: Database) -> Iterator[tuple[str, str]]:
    kind = database.engine.url.query.get("target_session_attrs")
    if "," in database.where and kind not in ("read-write", "primary"):
        yield (
            "several hosts",
            f"DATABASE_URL names {database.where} with target_session_attrs={kind or 'any'}, so a standby or a former"
            " primary may be taken for the primary: add target_session_attrs=read-write",
        )
