"""Code server and daemon as processes of their own, as in production, and signals to a process group as in a container.

tini -g sends a container's signal to the process group of its child, in which the runs are too.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

import dagster as dg
import psutil
import yaml
from dagster._core.scheduler.instigation import InstigatorTick, TickStatus
from dagster._grpc.client import DagsterGrpcClient

from ingest_pipeline.local.child_process import Child
from ingest_pipeline.local.process_family import Family
from ingest_pipeline.local.server import HOST, free_port
from ingest_pipeline_tests.orchestration.bench import wait_for
from ingest_pipeline_tests.orchestration.dagster_dev import ROOT

LOCATION = "ingest_pipeline_tests.orchestration.location"


def end_group(family: Family, sign: signal.Signals) -> None:
    """Signal the process group of the family's leader, and wait for the end of every process.

    The wait is shorter than RUN_MAX_SECONDS, for which a code server would wait for a run that ignores the signal.
    """
    began = time.monotonic()
    os.killpg(family.leader, sign)
    wait_for("the end of all processes", lambda: not family.members(), every=0.2)
    print(f"all processes ended after {time.monotonic() - began:.1f} s")


class Container(Child):
    """A command that leads a process group, as the child of tini does."""

    def exit_code(self) -> int:
        """Signal the group as `docker stop` does, and wait for the end of every process."""
        end_group(self.family, signal.SIGTERM)
        return self._process.wait(0)

    def kill(self) -> None:
        """Kill the command and its Dagster servers. Runs go on, which are processes of multiprocessing."""
        for process in self.family.members():
            with suppress(psutil.NoSuchProcess):
                if "dagster" in process.cmdline():
                    process.kill()
        self._process.wait()


class Deployment:
    """A code server and a daemon on their own DAGSTER_HOME.

    Args:
        environ: the code server's environment.

    Attributes:
        code_server: the one that was started last.
        daemon: the one that was started last.
    """

    code_server: Container | None = None
    daemon: Container | None = None

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = folder
        kept = {name: os.environ[name] for name in ("HOME", "PATH", "TMPDIR") if name in os.environ}
        self.environ = {**kept, "PYTHONPATH": str(ROOT), "DAGSTER_HOME": str(folder), **environ}
        storage = f"base_dir: {folder / 'storage'}"
        (folder / "dagster.yaml").write_text(
            (ROOT / "dagster.yaml").read_text().replace("base_dir: .dagster_storage", storage)
        )
        self._containers: list[Container] = []
        self.change_port()

    def __enter__(self) -> Self:
        self._instance = dg.DagsterInstance.from_config(str(self.folder))
        return self

    def __exit__(self, *_: object) -> None:
        for container in self._containers:
            while container.family.send(signal.SIGKILL):
                time.sleep(0.1)
            container.stop()
        self._instance.dispose()

    def change_port(self) -> None:
        """Give the next code server another port, which a daemon learns at its start."""
        self.port = free_port()
        server = {"host": HOST, "port": self.port, "location_name": LOCATION}
        (self.folder / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))

    def records(self, job: str) -> list[dg.RunRecord]:
        """The job's runs, newest first."""
        return list(self._instance.get_run_records(dg.RunsFilter(job_name=job)))

    def ticks(self, sensor: str, after: float) -> list[InstigatorTick]:
        """The sensor's ended ticks after this Unix time, newest first."""
        return [
            tick
            for state in self._instance.all_instigator_state()
            if state.instigator_name == sensor
            for tick in self._instance.get_ticks(state.instigator_origin_id, state.selector_id, after=after)
            if tick.status != TickStatus.STARTED
        ]

    def wait_for_tick(self, sensor: str) -> None:
        """Wait until the sensor begins a tick."""
        before = self._ticked_at(sensor)
        wait_for(f"a tick of {sensor}", lambda: self._ticked_at(sensor) > before, every=0.5)

    def start_code_server(self, **environ: str) -> None:
        """On return the code is loaded. The next code servers get this environment too."""
        command = ["dagster", "code-server", "start", "-h", HOST, "-p", str(self.port), "-m", LOCATION]
        self.environ |= environ
        self.code_server = self._start(command)
        client = DagsterGrpcClient(port=self.port, host=HOST)
        wait_for("the code server", lambda: client.health_check_query() == "SERVING", every=0.2)

    def ingest(self, *words: str, **environ: str) -> str:
        """What the command prints, on the streams of LOCATION."""
        command = [sys.executable, "-m", "ingest_pipeline.cli.main", *words]
        environ = {**self.environ, "INGEST_STREAMS": f"{LOCATION}:streams", **environ}
        return subprocess.run(command, env=environ, cwd=self.folder, capture_output=True, text=True, check=True).stdout

    def start_what_does_not_run(self) -> None:
        """After a failed test too."""
        if self.code_server is None or not self.code_server.runs:
            self.start_code_server()
        if self.daemon is None or not self.daemon.runs:
            self.start_daemon()

    def start_daemon(self) -> None:
        self.daemon = self._start(["dagster._daemon", "run", "-w", "workspace.yaml"])

    def _ticked_at(self, sensor: str) -> float:
        states = [state for state in self._instance.all_instigator_state() if state.instigator_name == sensor]
        return max((state.instigator_data.last_tick_timestamp or 0.0 for state in states), default=0.0)

    def _start(self, command: list[str]) -> Container:
        log = self.folder / f"{command[0]}-{len(self._containers)}.log"
        command = [sys.executable, "-m", *command]
        self._containers.append(Container(command[2], command, log, env=self.environ, cwd=self.folder))
        return self._containers[-1]
