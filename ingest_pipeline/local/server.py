"""The base of the servers of demo and tests on this machine: address, ports, start and stop."""

import random
import socket
from abc import ABC, abstractmethod
from typing import Self

HOST = "127.0.0.1"

# Below every system's ephemeral range. A client that dials a dead port of that range again and again can get the same
# number as its own source port. It then connects to itself, and the server cannot come back on its port.
_PORTS = range(20_000, 32_000)


class LocalServerError(Exception):
    """A local server did not start or stop. The message is one line and says what to do."""


class LocalServer(ABC):
    """A server, run within a `with` block or from `start` to `stop`."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def start(self) -> None:
        """Start the server. On return clients can connect. Does nothing while the server runs."""

    @abstractmethod
    def stop(self) -> None:
        """End the server. On return its process is gone. Does nothing for an ended server."""


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:``port`` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port of 127.0.0.1, free a moment ago."""
    for _ in range(200):
        port = random.choice(_PORTS)
        if is_free(port):
            return port
    raise LocalServerError(f"no free port on {HOST} between {_PORTS.start} and {_PORTS.stop}")
