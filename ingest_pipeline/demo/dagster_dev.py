"""``dagster dev`` as a child process, with an environment and a DAGSTER_HOME of the demo's own."""

import importlib.resources
import os
import signal
import socket
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import ingest_pipeline

from ..local.child_process import Child
from ..local.server import HOST, LocalServerError, free_port, is_free
from .dagster_api import DagsterApi

_READY_SECONDS = 120.0
_OURS = ("KAFKA_", "DATABASE_", "LEDGER_", "DAGSTER_")


def choose_port(wanted: int) -> int:
    """The port wanted, or the next one that is free; any free one for 0."""
    if wanted == 0:
        return free_port()
    for port in range(wanted, min(wanted + 100, 65_536)):
        if is_free(port) and not _is_answered(port):
            return port
    raise LocalServerError(f"no free port from {wanted} on; choose another with --port")


def _is_answered(port: int) -> bool:
    """Whether somebody listens there on all addresses, which does not keep macOS from giving us one of them."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((HOST, port)) == 0


def environment(outer: Mapping[str, str], kafka: str, database_url: str, home: Path) -> dict[str, str]:
    """The environment of Dagster: the demo's servers whatever the outer one names, other settings (BATCH_SIZE) kept."""
    kept = {name: value for name, value in outer.items() if not name.startswith(_OURS)}
    package_parent = str(Path(ingest_pipeline.__file__).parents[1])
    if package_parent not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, [package_parent, outer.get("PYTHONPATH")]))
    return kept | {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "DATABASE_URL": database_url,
        "DAGSTER_HOME": str(home),
        "PYTHONUNBUFFERED": "1",
    }


def write_home(home: Path) -> None:
    """Make the folder that DAGSTER_HOME names, with the configuration shipped for it."""
    home.mkdir()
    shipped = importlib.resources.files(__package__).joinpath("dagster.yaml")
    home.joinpath("dagster.yaml").write_text(shipped.read_text())


class DagsterDev:
    """Dagster's web server, daemon and code server, and the runs they start. Files go to `folder`."""

    def __init__(self, folder: Path, port: int, env: Mapping[str, str], held_fds: Sequence[int] = ()) -> None:
        # Not in the user's folder: `dagster dev` would read its .env and mention its dagster.yaml.
        command = [sys.executable, "-m", "dagster", "dev", "-m", "ingest_pipeline.definitions"]
        command += ["-h", HOST, "-p", str(port)]
        self._child = Child("Dagster", command, folder / "dagster.log", env=env, cwd=folder, held_fds=held_fds)
        self.api = DagsterApi(port)

    @property
    def pid(self) -> int:
        return self._child.pid

    def check(self) -> None:
        """Raise LocalServerError when it has ended."""
        self._child.check()

    def wait_until_ready(self, stopped: Callable[[float], bool]) -> None:
        """Return when the UI answers, or when `stopped(seconds)`, which waits that long, says to stop."""
        deadline = time.monotonic() + _READY_SECONDS
        while not self.api.answers():
            self.check()
            if time.monotonic() > deadline:
                raise LocalServerError(f"Dagster did not start within {_READY_SECONDS:g} s, see {self._child.log_path}")
            if stopped(0.2):
                return

    def kill_member(self, pid: int) -> bool:
        """SIGKILL one process of Dagster's, a run; False, and nothing done, for a pid that is not one of its own."""
        if not any(member.pid == pid for member in self._child.family.members()):
            return False
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def stop(self) -> None:
        """End web server, daemon and code server, then the runs, which finish their batch."""
        self._child.stop(signal.SIGINT, grace_seconds=15.0)
