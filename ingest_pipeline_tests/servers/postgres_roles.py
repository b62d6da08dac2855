"""Roles of a test's database with exactly the rights that `ingest grants` prints."""

import uuid
from collections.abc import Sequence
from urllib.parse import urlsplit

import psycopg

from ingest_pipeline.core.roles import Role
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.postgres import roles, schema
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.sql import Schemas
from ingest_pipeline.settings.database_url import database_name, sqlalchemy_url

SUFFIX = uuid.uuid4().hex[:8]
"""Roles belong to the whole server, on which other processes may run tests."""

MAKE_ROLE = """DO $$ BEGIN
    IF to_regrole('{0}') IS NULL THEN CREATE ROLE {0} LOGIN PASSWORD 'secret'; END IF;
END $$;"""


def name_of(role: Role) -> str:
    return f"{role}_{SUFFIX}"


def url_of(url: str, role: Role) -> str:
    """The same database's URL for a role."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{name_of(role)}:secret@{parts.netloc.rpartition('@')[2]}").geturl()


def drop_roles(url: str) -> None:
    """Drop the roles, after the databases in which they have rights."""
    run(url, f"DROP ROLE IF EXISTS {', '.join(map(name_of, Role))}")


def give_to_owner(url: str, streams: Sequence[Stream]) -> None:
    """As a superuser, let the owner's role migrate the database. No other role keeps a right.

    The role also gets every right on tables that a test makes as a superuser.
    """
    database = database_name(url)
    lines = [
        *(MAKE_ROLE.format(name_of(role)) for role in Role),
        "REVOKE ALL ON SCHEMA public FROM PUBLIC;",
        f"REVOKE ALL ON DATABASE {database} FROM PUBLIC;",
        *roles.script(Role.OWNER, name_of(Role.OWNER), streams, Schemas(), database),
        f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO {name_of(Role.OWNER)};",
        f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE ON SEQUENCES TO {name_of(Role.OWNER)};",
    ]
    run(url, "\n".join(lines))


def migrate(url: str, streams: Sequence[Stream]) -> None:
    """As the owner's role, make the ledger and the missing tables."""
    database = Database(sqlalchemy_url(url_of(url, Role.OWNER)))
    schema.migrate(database, streams, only_create=True)
    database.dispose()


def give(url: str, streams: Sequence[Stream], *others: Role, accepts_losses: bool = False) -> None:
    """As the owner's role, give other roles their rights on the ledger and on the streams' tables.

    The roles also get their rights on tables that a test makes as a superuser.
    """
    database, lines = database_name(url), []
    for role in others:
        lines += roles.script(role, name_of(role), streams, Schemas(), database, accepts_losses=accepts_losses)
    later = [line for line in lines if line.startswith("ALTER DEFAULT PRIVILEGES")]
    run(url, "\n".join([f"SET ROLE {name_of(Role.OWNER)};", *lines, "RESET ROLE;", *later]))


def give_to_writer(url: str, streams: Sequence[Stream], schemas: Schemas) -> None:
    """As a superuser, who has made ledger and tables, give the writer's role its rights."""
    lines = roles.script(Role.WRITER, name_of(Role.WRITER), streams, schemas, database_name(url))
    run(url, "\n".join([MAKE_ROLE.format(name_of(Role.WRITER)), *lines]))


def run(url: str, statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statements)


def pipeline_url(url: str, streams: Sequence[Stream], role: Role = Role.WRITER, *, accepts_losses: bool = False) -> str:
    """The URL of a pipeline with a role's rights.

    Except for the owner's role, the ledger and the tables are there, and the operator's role has its rights too.
    """
    give_to_owner(url, streams)
    if role is not Role.OWNER:
        migrate(url, streams)
        give(url, streams, *{role, Role.OPERATOR}, accepts_losses=accepts_losses)
    return url_of(url, role)


class PostgresRoles:
    """Roles in one database, whose ledger and tables the owner's role has made."""

    def __init__(self, url: str, streams: Sequence[Stream]) -> None:
        self._url, self._streams = url, streams
        self._roles = {Role.OWNER}
        give_to_owner(url, streams)
        migrate(url, streams)

    def url_of(self, role: Role) -> str:
        """The URL of a role, which gets its rights on first use."""
        if role not in self._roles:
            give(self._url, self._streams, role)
            self._roles.add(role)
        return url_of(self._url, role)

    def as_owner(self, statement: str) -> None:
        run(url_of(self._url, Role.OWNER), statement)
