"""A real PgBouncer of a test's own on 127.0.0.1, in front of a running PostgreSQL."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from ingest_pipeline.local.privileges import as_ordinary_user, ordinary_user
from ingest_pipeline.local.server_process import HOST, end, free_port

from .broker import ServerUnavailable

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


class PgBouncer:
    """In one of its pool modes: session, transaction or statement."""

    def __init__(self, folder: Path, database_url: str, mode: str, pool_size: int = 20) -> None:
        self._target = urlsplit(database_url)
        self._mode, self._pool_size, self._folder = mode, pool_size, folder
        self.port = free_port()
        self.url = f"postgresql://{self._target.username}@{HOST}:{self.port}{self._target.path}"

    def __enter__(self) -> Self:
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
        with (self._folder / "pgbouncer.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*prefix, program(), str(file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        self._wait_until_it_listens()
        return self

    def __exit__(self, *_: object) -> None:
        end(self._process, signal.SIGTERM, 10.0)

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + 30.0
        while True:
            try:
                socket.create_connection((HOST, self.port), timeout=1.0).close()
                return
            except OSError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    log = (self._folder / "pgbouncer.log").read_text()
                    raise ServerUnavailable(f"PgBouncer does not listen: {log[-300:]}") from error
                time.sleep(0.05)
