"""A primary and its streaming standby, both real and both on 127.0.0.1, to fail over from one to the other."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg

from ingest_pipeline.local.postgres import EmbeddedPostgres, binaries
from ingest_pipeline.local.privileges import as_ordinary_user, ordinary_user
from ingest_pipeline.local.server import HOST
from ingest_pipeline_tests.waiting import wait_for

_SECONDS = 60.0


class Standby(EmbeddedPostgres):
    """A copy of a running primary that follows it until it is promoted."""

    def __init__(self, data_dir: Path, primary: EmbeddedPostgres) -> None:
        super().__init__(data_dir)
        data_dir.mkdir()
        shutil.copy(primary.data_dir / "password", data_dir / "password")
        if (user := ordinary_user()) is not None:
            os.chown(data_dir, *user)
        prefix = as_ordinary_user([binaries() / "pg_basebackup", data_dir])
        command = [*prefix, str(binaries() / "pg_basebackup"), "-D", str(data_dir / "cluster"), "-d", primary.url]
        subprocess.run([*command, "-R", "-X", "stream", "-c", "fast", "--no-sync"], check=True, cwd="/")


class Pair:
    """A running `primary` that streams to a running `standby`."""

    def __init__(self, folder: Path) -> None:
        self.primary = EmbeddedPostgres(folder / "primary")
        self._folder = folder

    def __enter__(self) -> Self:
        self.primary.start()
        try:
            self.standby = Standby(self._folder / "standby", self.primary)
            self.standby.start()
            self.wait_for_streaming()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "standby"):
            self.standby.crash()
        self.primary.crash()

    @property
    def url(self) -> str:
        """A URL with both servers, from which the client chooses the primary."""
        primary, standby = urlsplit(self.primary.url), urlsplit(self.standby.url)
        servers = f"{primary.username}:{primary.password}@{HOST}:{primary.port},{HOST}:{standby.port}"
        return primary._replace(netloc=servers, query="target_session_attrs=read-write").geturl()

    def wait_for_streaming(self) -> None:
        self._wait(self.primary, "SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'")

    def commit_on_both(self) -> None:
        """Make every COMMIT wait for the standby."""
        query(self.primary, "ALTER SYSTEM SET synchronous_standby_names = '*'")
        query(self.primary, "SELECT pg_reload_conf()")
        self._wait(self.primary, "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'")

    def fence_primary(self) -> None:
        """Make the primary refuse writes. On return the standby has everything that the primary committed."""
        query(self.primary, "ALTER SYSTEM SET default_transaction_read_only = on")
        query(self.primary, "SELECT pg_reload_conf()")
        self._wait(self.primary, "SHOW default_transaction_read_only", "on")
        (end,) = query(self.primary, "SELECT pg_current_wal_lsn()::text")
        self._wait(self.standby, f"SELECT pg_last_wal_replay_lsn() >= '{end}'::pg_lsn")

    def promote(self) -> None:
        query(self.standby, "SELECT pg_promote()")
        self._wait(self.standby, "SELECT pg_is_in_recovery()", False)

    def _wait(self, server: EmbeddedPostgres, question: str, answer: Any = True) -> None:
        wait_for(question, lambda: query(server, question) == [answer])


def query(server: EmbeddedPostgres, statement: str) -> list[Any]:
    """Rows of one column as that column."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return [row[0] if len(row) == 1 else row for row in (cursor.fetchall() if cursor.description else [])]
