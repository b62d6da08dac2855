"""A real Redis on 127.0.0.1, as the broker of Celery workers."""

from __future__ import annotations

import shutil
import signal
import socket
import time
from pathlib import Path

from ingest_pipeline.local.child_process import Child
from ingest_pipeline.local.server import HOST, LocalServer, free_port

from .broker import ServerUnavailable


class RedisServer(LocalServer):
    """Keeps its data in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self.url = f"redis://{HOST}:{self._port}/0"

    def start(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise ServerUnavailable("Redis is not installed")
        command = [program, "--bind", HOST, "--port", str(self._port), "--save", "", "--dir", str(self._folder)]
        self._child = Child("Redis", command, self._folder / "redis.log", end_signal=signal.SIGTERM)
        deadline = time.monotonic() + 30.0
        while True:
            self._child.check()
            try:
                socket.create_connection((HOST, self._port), timeout=1.0).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def stop(self) -> None:
        self._child.stop(grace_seconds=10.0)
