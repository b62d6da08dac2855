"""Roles of a test's database with exactly the rights that `ingest grants` prints."""

import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import psycopg

from ingest_pipeline.core.roles import Role
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.postgres import roles, schema
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.sql import Schemas
from ingest_pipeline.settings.database_url import database_name, sqlalchemy_url


class PostgresRoles:
    """The owner's role migrates ledger and tables, and grants the other roles their rights."""

    def __init__(self, url: str, streams: Sequence[Stream]) -> None:
        self._superuser, self._streams, self._suffix = url, streams, uuid.uuid4().hex[:8]
        self._made: list[Role] = []

    def __enter__(self) -> Self:
        self.run(self._superuser, "REVOKE ALL ON SCHEMA public FROM PUBLIC")
        self.run(self._superuser, f"REVOKE ALL ON DATABASE {database_name(self._superuser)} FROM PUBLIC")
        self._make(Role.OWNER, self._superuser)
        database = Database(sqlalchemy_url(self.url_of(Role.OWNER)))
        schema.migrate(database, self._streams)
        database.dispose()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for role in self._made:  # the owner first, which revokes what it granted
            self.run(self._superuser, f"DROP OWNED BY {self.name(role)} CASCADE; DROP ROLE {self.name(role)}")

    def name(self, role: Role) -> str:
        return f"{role}_{self._suffix}"

    def url_of(self, role: Role) -> str:
        """The URL of a role. The role is made on first use."""
        if role not in self._made:
            self._make(role, self.url_of(Role.OWNER))
        url = urlsplit(self._superuser)
        return url._replace(netloc=f"{self.name(role)}:secret@{url.netloc.rpartition('@')[2]}").geturl()

    def as_owner(self, statement: str) -> None:
        self.run(self.url_of(Role.OWNER), statement)

    def _make(self, role: Role, grantor: str) -> None:
        self.run(self._superuser, f"CREATE ROLE {self.name(role)} LOGIN PASSWORD 'secret'")
        self._made.append(role)
        database = database_name(self._superuser)
        self.run(grantor, "\n".join(roles.script(role, self.name(role), self._streams, Schemas(), database)))

    @staticmethod
    def run(url: str, statements: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statements)
