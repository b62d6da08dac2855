"""`ingest check`: whether the configuration of Dagster's instance suits the streams."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import dagster as dg
from dagster._core.run_coordinator import QueuedRunCoordinator

from ..core.stream import Stream
from ..core.streams import jobs_of
from ..operations.clients import Clients
from ..operations.finding import Finding
from .storage_errors import storage_errors


def instance_findings(clients: Clients, streams: Sequence[Stream]) -> Iterator[Finding]:
    """Check the instance of DAGSTER_HOME, or of the current folder."""
    folder = os.environ.get("DAGSTER_HOME") or str(Path.cwd())
    what = f"Dagster instance of {'DAGSTER_HOME' if 'DAGSTER_HOME' in os.environ else 'this folder'}"
    if not (Path(folder) / "dagster.yaml").is_file():
        yield Finding(False, what, "no dagster.yaml there. Run in the clone, or copy its dagster.yaml to DAGSTER_HOME")
        return
    unusable: tuple[type[Exception], ...] = (dg.DagsterError, ImportError, *storage_errors())
    try:
        with dg.DagsterInstance.from_config(folder) as instance:
            parts = (instance.run_coordinator, instance.run_launcher, instance.compute_log_manager)
            yield Finding(True, what, ", ".join(type(part).__name__ for part in parts))
            yield _write(instance)
            yield _run_limit(instance, clients, streams)
            yield _switch("run monitoring", instance.run_monitoring_enabled, "set run_monitoring: {enabled: true}")
            threads = bool(instance.get_settings("sensors").get("use_threads"))
            yield _switch("sensor threads", threads, "set sensors: {use_threads: true}, or one slow tick holds up all")
    except unusable as error:
        yield Finding(False, what, f"dagster.yaml cannot be used: {str(error).splitlines()[0]}")


def _write(instance: dg.DagsterInstance) -> Finding:
    """Create a run with an event, and delete both."""
    run = dg.DagsterRun(job_name="ingest_check")
    try:
        instance.add_run(run)
        instance.report_engine_event("`ingest check` writes an event", run)
        instance.delete_run(run.run_id)
    except storage_errors() as error:
        advice = (
            "of dagster-postgres, the URL must begin with postgresql+psycopg2://, and the role must own its database"
        )
        return Finding(
            False, "Dagster's storage", f"takes no run: {str(error).splitlines()[0]}. In the storage {advice}"
        )
    return Finding(True, "Dagster's storage", "takes runs and events")


def _run_limit(instance: dg.DagsterInstance, clients: Clients, streams: Sequence[Stream]) -> Finding:
    shards = sum(clients.settings.for_job(job.name).parallelism for job in jobs_of(streams))
    needed = 2 * shards + 10
    coordinator = instance.run_coordinator
    limit = (
        coordinator.get_run_queue_config().max_concurrent_runs if isinstance(coordinator, QueuedRunCoordinator) else -1
    )
    if limit < 0 or limit >= needed:
        return Finding(True, "max_concurrent_runs", "no limit" if limit < 0 else f"{limit}, {needed} needed")
    return Finding(
        False, "max_concurrent_runs", f"is {limit}, and {shards} shards need {needed}: raise it in dagster.yaml"
    )


def _switch(what: str, on: bool, otherwise: str) -> Finding:
    return Finding(on, what, "on" if on else otherwise)
