"""The Celery app takes its settings from dagster.yaml, and a worker's end reaches its runs."""

import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
LAUNCHER = yaml.safe_load((ROOT / "deploy" / "celery" / "run_launcher.yaml").read_text())
LOAD = """
import signal, subprocess, sys, types
from ingest_pipeline.orchestration.celery_app import app
from celery.signals import worker_shutting_down
from celery.worker import state
assert {"execute_job", "resume_job"} <= app.tasks.keys()
assert app.conf.broker_url == "memory://", app.conf.broker_url
assert app.conf.worker_disable_prefetch and app.conf.worker_max_tasks_per_child == 1
assert not app.conf.worker_redirect_stdouts
run, idle = (subprocess.Popen(["sleep", "60"]) for _ in range(2))
class Request:
    worker_pid = run.pid
accepted, waiting = Request(), Request()
waiting.worker_pid = None
state.active_requests.update([accepted, waiting])
worker_shutting_down.send(sender="worker", sig="TERM", how="Warm", exitcode=0)
assert run.wait(10) == -signal.SIGTERM
assert idle.poll() is None
idle.kill()
worker_shutting_down.send(sender="worker", sig="TERM", how="Warm", exitcode=0)  # the run has ended meanwhile
"""


def load(folder: Path, instance: object) -> subprocess.CompletedProcess[str]:
    (folder / "dagster.yaml").write_text(yaml.safe_dump(instance))
    environ = {"DAGSTER_HOME": str(folder), "CELERY_BROKER_URL": "memory://", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", LOAD]
    return subprocess.run(
        command, env={**environ, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )


def test_a_worker_that_ends_asks_its_runs_to_end(tmp_path: Path) -> None:
    done = load(tmp_path, LAUNCHER)
    assert done.returncode == 0, done.stderr


def test_another_launcher_is_named(tmp_path: Path) -> None:
    assert "the run launcher in DAGSTER_HOME is DefaultRunLauncher" in load(tmp_path, {}).stderr
