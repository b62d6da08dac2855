"""``dagster dev`` as a child process, with an environment and a DAGSTER_HOME of the demo's own."""

from __future__ import annotations

import importlib.resources
import os
import socket
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import requests

from ..local.child_process import Child
from ..local.server import HOST, LocalServerError, free_port, is_free

if TYPE_CHECKING:
    from dagster import DagsterInstance, DagsterRun

_READY_SECONDS = 120.0
_RELOAD_PAUSE_SECONDS = 15.0
_OURS = ("KAFKA_", "DATABASE_", "LEDGER_", "DAGSTER_")
_RELOAD = "mutation { reloadWorkspace { __typename } }"


def choose_port(first: int) -> int:
    """The first free port from `first` on. Any free one for 0."""
    if first == 0:
        return free_port()
    for port in range(first, min(first + 100, 65_536)):
        if is_free(port) and not _is_answered(port):
            return port
    raise LocalServerError(f"no free port from {first} on. Choose another with --port")


def _is_answered(port: int) -> bool:
    """Whether a server answers. On macOS a port is free on 127.0.0.1 while a server listens on all addresses."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((HOST, port)) == 0


def environment(outer: Mapping[str, str], kafka: str, database_url: str, home: Path) -> dict[str, str]:
    """Dagster's environment: the demo's servers replace the outer servers, other settings (BATCH_SIZE) stay."""
    kept = {name: value for name, value in outer.items() if not name.startswith(_OURS)}
    package_parent = str(Path(__file__).parents[2])
    if package_parent not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, [package_parent, outer.get("PYTHONPATH")]))
    return kept | {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "DATABASE_URL": database_url,
        "DAGSTER_HOME": str(home),
        "PYTHONUNBUFFERED": "1",
    }


def write_home(home: Path) -> None:
    """Make the folder of DAGSTER_HOME, with the configuration shipped for the demo."""
    home.mkdir()
    shipped = importlib.resources.files(__package__).joinpath("dagster.yaml")
    home.joinpath("dagster.yaml").write_text(shipped.read_text())


class DagsterDev:
    """Dagster's web server, daemon, code server and runs. Files go to `folder`."""

    def __init__(self, folder: Path, port: int, env: Mapping[str, str], held_fds: Sequence[int]) -> None:
        # Not in the user's folder: `dagster dev` would read its .env and mention its dagster.yaml.
        command = [sys.executable, "-m", "dagster", "dev", "-m", "ingest_pipeline.definitions"]
        command += ["-h", HOST, "-p", str(port)]
        self._child = Child("Dagster", command, folder / "dagster.log", env=env, cwd=folder, held_fds=held_fds)
        self.url = f"http://{HOST}:{port}"
        self._home = env["DAGSTER_HOME"]
        self._next_reload_seconds = 0.0

    def check(self) -> None:
        """Raise LocalServerError when Dagster has ended."""
        self._child.check()

    def wait_until_ready(self, wait: Callable[[float], bool]) -> None:
        """Return when the UI answers, or when `wait(seconds)` is true."""
        deadline = time.monotonic() + _READY_SECONDS
        while not self._answers():
            self.check()
            if time.monotonic() > deadline:
                raise LocalServerError(f"Dagster did not start within {_READY_SECONDS:g} s, see {self._child.log_path}")
            if wait(0.2):
                return

    def started_runs(self) -> list[DagsterRun]:
        from dagster import DagsterRunStatus, RunsFilter

        return list(self._instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.STARTED])))

    def runs_of(self, sensor_name: str) -> list[DagsterRun]:
        from dagster import RunsFilter

        return list(self._instance.get_runs(RunsFilter(tags={"dagster/sensor_name": sensor_name})))

    def kill_member(self, pid: int) -> bool:
        """SIGKILL a process of Dagster's, for example a run. False when the pid belongs to no process of Dagster's."""
        for member in self._child.family.members():
            if member.pid == pid:
                with suppress(psutil.NoSuchProcess):
                    member.kill()
                    return True
        return False

    def revive_code_server(self) -> bool:
        """Reload the code location when its process has died, at most once in 15 s. True after a reload.

        `dagster dev` does not restart the process, and without a code location no sensor ticks.
        Raises LocalServerError when Dagster does not answer.
        """
        if self._has_code_server() or time.monotonic() < self._next_reload_seconds:
            return False
        try:
            requests.post(f"{self.url}/graphql", json={"query": _RELOAD}, timeout=60).raise_for_status()
        except requests.RequestException as error:
            raise LocalServerError(f"Dagster at {self.url} gave no answer: {type(error).__name__}") from error
        self._next_reload_seconds = time.monotonic() + _RELOAD_PAUSE_SECONDS
        return True

    def stop(self) -> None:
        """End web server, daemon and code server, then the runs, after their batch."""
        self._child.stop()
        if "_instance" in self.__dict__:
            self._instance.dispose()

    @cached_property
    def _instance(self) -> DagsterInstance:
        from dagster import DagsterInstance

        return DagsterInstance.from_config(self._home)

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/server_info", timeout=5).ok
        except requests.RequestException:
            return False

    def _has_code_server(self) -> bool:
        for member in self._child.family.members():
            with suppress(psutil.NoSuchProcess):
                if "grpc" in member.cmdline():
                    return True
        return False
