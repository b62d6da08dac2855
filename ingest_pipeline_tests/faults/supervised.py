"""Dagster's code server and daemon as separate programs, each restarted after its end as by a supervisor. `dagster dev`
does not restart a dead code server.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError

import ingest_pipeline
from ingest_pipeline.demo.dagster_dev import write_home
from ingest_pipeline.local.child_process import Child
from ingest_pipeline.local.process_family import processes
from ingest_pipeline.local.server import HOST, LocalServerError, free_port, is_free
from ingest_pipeline.orchestration import tags
from ingest_pipeline_tests.faults.signals import writers
from ingest_pipeline_tests.orchestration.bench import wait_for

ROOT = Path(ingest_pipeline.__file__).parents[1]
_LOOK_SECONDS, _RESTART_SECONDS = 0.1, 1.0
_START_SECONDS = 90.0


class Supervised:
    """One program that runs from `start` to `stop`, except for a second after each end."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, environ: Mapping[str, str]) -> None:
        self.name, self.log_path = name, folder / f"{name}.log"
        self._command, self._folder, self._environ = [sys.executable, "-m", *command], folder, environ
        self._children: list[Child] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name=f"supervisor of {name}", daemon=True)

    @property
    def pid(self) -> int:
        return self._children[-1].pid

    @property
    def restarts(self) -> int:
        return len(self._children) - 1

    def start(self) -> None:
        self._launch()
        self._thread.start()

    def kill(self) -> None:
        """Send SIGKILL to the program alone, and leave its children. Returns after the restart."""
        before = self.restarts
        os.kill(self.pid, signal.SIGKILL)
        wait_for(f"another {self.name}", lambda: self.restarts > before)

    def members(self) -> set[int]:
        """The program, its descendants, and the descendants of its earlier incarnations."""
        return {process.pid for child in self._children for process in child.family.members()}

    def stop(self) -> None:
        """Kill all processes by SIGKILL. Files may be left half written, since the folder is deleted afterwards."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        for child in self._children:
            while child.family.send(signal.SIGKILL):
                time.sleep(_LOOK_SECONDS)
            child.stop()

    def _launch(self) -> None:
        self._children.append(Child(self.name, self._command, self.log_path, env=self._environ, cwd=self._folder))

    def _supervise(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            try:
                self._children[-1].check()
            except LocalServerError:
                if not self._over.wait(_RESTART_SECONDS):
                    self._launch()


class Dagster:
    """Code server, daemon and storage in a folder, controlled through a DagsterInstance of this process.

    Args:
        module: the code server's module.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str], module: str = "ingest_pipeline.definitions") -> None:
        self.home = folder / "dagster"
        write_home(self.home)
        self._port = free_port()
        workspace = self.home / "workspace.yaml"
        workspace.write_text(f"load_from: [grpc_server: {{host: {HOST}, port: {self._port}, location_name: chaos}}]\n")
        kept = {name: os.environ[name] for name in ("HOME", "PATH", "TMPDIR") if name in os.environ}
        own = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "DAGSTER_HOME": str(self.home)}
        server = ["dagster", "api", "grpc", "--host", HOST, "--port", str(self._port), "-m", module]
        daemon = ["dagster._daemon", "run", "-w", str(workspace)]
        self.code_server = Supervised("code-server", server, folder, {**kept, **own, **environ})
        self.daemon = Supervised("daemon", daemon, folder, {**kept, **own, **environ})

    def __enter__(self) -> Self:
        self.instance = dg.DagsterInstance.from_config(str(self.home))
        try:
            self.code_server.start()
            wait_for("the code server", lambda: not is_free(self._port), _START_SECONDS)
            self.daemon.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for part in (self.daemon, self.code_server):
            part.stop()
        self.instance.dispose()

    def live_runs(self) -> list[dg.DagsterRun]:
        """Drains that Dagster shows as started and whose process runs, oldest first."""
        running = self.code_server.members()
        started = self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        return [run for run in reversed(started) if pid_of(run) in running]

    def run_processes(self) -> set[int]:
        """All drains whose process still runs."""
        running = self.code_server.members()
        return {pid for run in self.instance.get_runs() if (pid := pid_of(run)) in running}

    def terminate(self, run_id: str) -> bool:
        """Terminate a run as the button does, with retries while a new code server starts. False if the server does not
        know the run.
        """
        answers: list[bool] = []

        def ask() -> list[bool]:
            with suppress(DagsterUserCodeUnreachableError):
                answers.append(bool(self.instance.run_coordinator.cancel_run(run_id)))
            return answers

        wait_for("the code server to answer", ask)
        return answers[0]

    def ticks_between(self, stream: str, begin: float, end: float) -> int:
        """How often the stream's sensor looked between two times in Unix time."""
        sensor = f"{stream}_sensor"
        (state,) = (state for state in self.instance.all_instigator_state() if state.instigator_name == sensor)
        return len(self.instance.get_ticks(state.instigator_origin_id, state.selector_id, after=begin, before=end))

    def said(self) -> Iterator[str]:
        """The last messages of the sensors and the unfinished runs, for the report of a failure."""
        for state in self.instance.all_instigator_state():
            for tick in self.instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=2):
                text = tick.skip_reason or (tick.error.message.strip() if tick.error else "") or tick.run_ids
                yield f"{state.instigator_name} {time.time() - tick.timestamp:.0f} s ago: {tick.status.value}: {text}"
        statuses = [
            status for status in dg.DagsterRunStatus if not status.name.startswith(("SUCC", "FAIL", "CANCELED"))
        ]
        for run in self.instance.get_runs(dg.RunsFilter(statuses=statuses)):
            yield f"run {run.run_id[:8]} {tags.drained_job(run.tags)} {run.tags.get(tags.SHARD)} {run.status.value}"
        for pid, path in writers(self.home):
            yield f"process {pid} writes to {path.name}"


def pid_of(run: dg.DagsterRun) -> int:
    """The pid of the run's process, or 0 before the run has reported it."""
    return int(run.tags.get(tags.PID, 0))


def is_gone(pid: int) -> bool:
    return all(process.pid != pid for process in processes())
