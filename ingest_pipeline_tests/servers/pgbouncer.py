"""A real PgBouncer on 127.0.0.1 for one test, in front of a running PostgreSQL."""

import shutil
import signal
from pathlib import Path
from urllib.parse import urlsplit

from ingest_pipeline.local.child_process import Child
from ingest_pipeline.local.privileges import as_ordinary_user, ordinary_user
from ingest_pipeline.local.server import HOST, LocalServer, free_port

from .broker import ServerUnavailable
from .starting import listens, wait_until_ready

_CONFIGURATION = """
[databases]
* = host={host} port={port} user={user} password={password}
[pgbouncer]
listen_addr = {listen}
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {pool_size}
"""


def program() -> str:
    """The installed PgBouncer. Raises ServerUnavailable."""
    path = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if path is None:
        raise ServerUnavailable("PgBouncer is not installed")
    return path


class PgBouncer(LocalServer):
    """Runs in one of its pool modes: session, transaction or statement."""

    def __init__(self, folder: Path, database_url: str, mode: str, pool_size: int = 20) -> None:
        self._target = urlsplit(database_url)
        self._mode, self._pool_size, self._folder = mode, pool_size, folder
        self.port = free_port()
        self.url = f"postgresql://{self._target.username}@{HOST}:{self.port}{self._target.path}"

    def start(self) -> None:
        file = self._folder / f"{self._mode}.ini"
        file.write_text(
            _CONFIGURATION.format(
                host=self._target.hostname,
                port=self._target.port,
                user=self._target.username,
                password=self._target.password,
                listen=HOST,
                listen_port=self.port,
                mode=self._mode,
                pool_size=self._pool_size,
            )
        )
        if (user := ordinary_user()) is not None:
            shutil.chown(file, *user)
            shutil.chown(self._folder, *user)
        prefix = as_ordinary_user([Path(program()), self._folder])
        command = [*prefix, program(), str(file)]
        self._child = Child("PgBouncer", command, self._folder / "pgbouncer.log", cwd="/", end_signal=signal.SIGTERM)
        wait_until_ready(self._child, lambda: listens(self.port))

    def stop(self) -> None:
        self._child.stop(grace_seconds=10.0)
