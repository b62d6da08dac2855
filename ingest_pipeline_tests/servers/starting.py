"""Waiting for the start of a server that is a child process."""

import socket
import time
from collections.abc import Callable

from ingest_pipeline.local.child_process import Child
from ingest_pipeline.local.server import HOST

from .broker import ServerUnavailable


def wait_until_ready(child: Child, ready: Callable[[], bool]) -> None:
    """End a child that is not ready in time, and raise ServerUnavailable with the last words of its log."""
    deadline = time.monotonic() + 60.0
    while not ready():
        if not child.runs or time.monotonic() > deadline:
            child.stop(grace_seconds=10.0)
            last_words = " ".join(child.log_path.read_text().split())[-300:]
            raise ServerUnavailable(f"{child.name} does not answer: {last_words}")
        time.sleep(0.1)


def listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1.0).close()
    except OSError:
        return False
    return True
