"""The app of the Celery workers that run jobs: see deploy/celery.

The broker and all other settings come from the run launcher in dagster.yaml, so both sides always agree.
"""

import os
import signal
from contextlib import suppress
from importlib import import_module

import dagster as dg
from celery.signals import worker_shutting_down
from celery.worker import state
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tasks import create_execute_job_task, create_resume_job_task

from ..core.errors import SettingsError

_IMPORTED_BY_RUNS = (
    "ingest_pipeline.kafka.source",
    "ingest_pipeline.orchestration.run.drained_stream",
    "ingest_pipeline.orchestration.run.job_run",
)
"""A run is a copy of the worker and starts sooner with these modules imported."""

with dg.DagsterInstance.get() as _instance:
    _launcher = _instance.run_launcher
if not isinstance(_launcher, CeleryRunLauncher):
    raise SettingsError(f"the run launcher in DAGSTER_HOME is {type(_launcher).__name__}, not CeleryRunLauncher")
app = _launcher.celery
create_execute_job_task(app)
create_resume_job_task(app)
for _module in _IMPORTED_BY_RUNS:
    import_module(_module)


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def end_runs(**_: object) -> None:
    """Ask the runs to commit their open batch and end. Celery itself would wait for their age."""
    for request in list(state.active_requests):
        if request.worker_pid is not None:
            with suppress(ProcessLookupError):
                os.kill(request.worker_pid, signal.SIGTERM)
