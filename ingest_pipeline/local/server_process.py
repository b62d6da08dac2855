"""What a server that the demo or a test starts on this machine needs: a port, and an end by its own pid."""

import os
import random
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil

HOST = "127.0.0.1"

# Below every system's ephemeral range. A client that keeps dialling a dead port from that range can be given
# the same number as its own source port, connects to itself, and the server can then not come back on its
# port.
_PORTS = range(20_000, 32_000)


class LocalServerError(Exception):
    """A server of this machine did not start or stop; the message is one line and says what to do."""


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
    """A port of 127.0.0.1 that nothing listened on a moment ago."""
    for _ in range(200):
        port = random.choice(_PORTS)
        if is_free(port):
            return port
    raise LocalServerError(f"no free port on {HOST} between {_PORTS.start} and {_PORTS.stop}")


def end(process: subprocess.Popen[bytes], sign: signal.Signals, timeout_seconds: float) -> bool:
    """Send ``sign`` to the process and wait for its end; after the timeout SIGKILL its whole session.

    The process must have been started with ``start_new_session=True``. On return it is gone and reaped. True
    when it ended by itself, False when it had to be killed. A process that had ended before is only reaped.
    """
    if process.poll() is None:
        process.send_signal(sign)
    try:
        process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False
    return True


class Guard:
    """Ends a server of ours when this process ends without having done so: by SIGKILL, by a crash in C code.

    A shell in a session of its own waits for the end of a pipe that only this process holds, then sends the
    signal.
    """

    def __init__(self, pid: int, sign: signal.Signals) -> None:
        script = 'read -r _; kill -s "$1" "$2"'
        self._shell = subprocess.Popen(
            ["sh", "-c", script, "sh", sign.name.removeprefix("SIG"), str(pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """End the watch; call it once the server is gone."""
        self._shell.kill()
        self._shell.communicate()


def wait_for_pid(pid: int, timeout_seconds: float) -> bool:
    """Wait for the end of a process that is not our child. False when it still runs after the timeout.

    An orphan that no parent reaps, as in a container without an init, has ended too.
    """
    deadline = time.monotonic() + timeout_seconds
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
    return True


def last_lines(path: Path, count: int = 3) -> str:
    """The last non-empty lines of a log in one, for an error message; empty when there is no log."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return " | ".join([line.strip() for line in lines if line.strip()][-count:])
