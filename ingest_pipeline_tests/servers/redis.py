"""A real Redis on 127.0.0.1, as the broker of Celery workers."""

import shutil
import signal
from pathlib import Path

from ingest_pipeline.local.child_process import Child
from ingest_pipeline.local.server import HOST, LocalServer, free_port

from .broker import ServerUnavailable
from .starting import listens, wait_until_ready


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
        wait_until_ready(self._child, lambda: listens(self._port))

    def stop(self) -> None:
        self._child.stop(grace_seconds=10.0)
