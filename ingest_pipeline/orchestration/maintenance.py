"""Keeping Dagster's own storage small: finished runs and ticks that nobody needs are deleted, runs with their files.

`instance.delete_run` leaves the run's SQLite file and its compute logs on disk, so those are removed here, for the
deleted ids only.
"""

import shutil
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickStatus

from . import tags
from .connections import Connections
from .runs import ENDED

PAGE = 500
_DAY_SECONDS = 86_400.0


def maintenance_job(connections: Connections, sensors: Collection[str]) -> dg.JobDefinition:
    """`maintenance`: deletes runs older than RUN_RETENTION_DAYS (failed ones: FAILED_RUN_RETENTION_DAYS), but keeps the
    newest RUN_RETENTION_KEEP of every stream and each asset's last materialization; and as old ticks of these sensors
    that launched a run (or failed)."""
    settings = connections.settings

    @dg.op(name="delete_old_runs")
    def delete_old_runs(context: dg.OpExecutionContext) -> None:
        now = time.time()
        doomed = runs_to_delete(
            _ended_runs(context.instance),
            now=now,
            days=settings.run_retention_days,
            failed_days=settings.failed_run_retention_days,
            keep=settings.run_retention_keep,
            protected=_materializing_runs(context.instance),
        )
        for run_id in doomed:
            delete_run(context.instance, run_id)
        context.log.info(f"deleted {len(doomed):,} finished runs")
        days = {TickStatus.SUCCESS: settings.run_retention_days, TickStatus.FAILURE: settings.failed_run_retention_days}
        purge_ticks(context.instance, sensors, {status: now - limit * _DAY_SECONDS for status, limit in days.items()})

    @dg.job(
        name="maintenance",
        executor_def=dg.in_process_executor,
        description="Delete finished runs, with their files, and ticks that are older than the retention settings.",
    )
    def maintenance() -> None:
        delete_old_runs()

    return maintenance


def maintenance_schedule() -> dg.ScheduleDefinition:
    """Daily at 03:17 UTC, on by default."""
    return dg.ScheduleDefinition(
        name="maintenance_schedule",
        job_name="maintenance",
        cron_schedule="17 3 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )


def runs_to_delete(
    records: Iterable[dg.RunRecord], now: float, days: int, failed_days: int, keep: int, protected: set[str]
) -> list[str]:
    """Ids of ended runs, of this package's streams and of its other jobs, that are past their time.

    Args:
        records: newest first.
        keep: how many of each stream stay whatever their age.
        protected: run ids that stay.
    """
    seen: defaultdict[str, int] = defaultdict(int)
    doomed = []
    for record in records:
        run = record.dagster_run
        kind = _kind(run)
        if kind is None:
            continue
        seen[kind] += 1
        limit = failed_days if run.status == dg.DagsterRunStatus.FAILURE else days
        ended = record.end_time or record.create_timestamp.timestamp()
        if seen[kind] > keep and now - ended > limit * _DAY_SECONDS and run.run_id not in protected:
            doomed.append(run.run_id)
    return doomed


def _kind(run: dg.DagsterRun) -> str | None:
    """The stream, or the job, whose newest runs stay; None for a run of somebody else's job, whatever its tags."""
    if run.job_name in tags.OTHER_JOBS:
        return run.job_name
    stream = run.tags.get(tags.STREAM)
    return stream if run.job_name in (f"drain_{stream}", tags.BY_HAND) else None


def delete_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Delete a run, its events, its SQLite file and its compute logs."""
    # Here, as they bring SQLAlchemy and Alembic along, which loading the definitions does not need.
    from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
    from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager

    storage, logs = instance.event_log_storage, instance.compute_log_manager
    instance.delete_run(run_id)
    if isinstance(logs, LocalComputeLogManager):
        shutil.rmtree(Path(logs.get_captured_local_path([run_id], "x")).parent, ignore_errors=True)
        logs.delete_logs(prefix=[run_id])
    if isinstance(storage, SqliteEventLogStorage):
        path = Path(storage.path_for_shard(run_id))
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink(missing_ok=True)


def purge_ticks(instance: dg.DagsterInstance, sensors: Collection[str], before: Mapping[TickStatus, float]) -> None:
    """Once a day what Dagster would ask its storage to do at each tick, had it limits in dagster.yaml."""
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        if state.instigator_name in sensors:
            for status, at in before.items():
                instance.purge_ticks(state.instigator_origin_id, state.selector_id, at, [status])


def _ended_runs(instance: dg.DagsterInstance) -> Iterable[dg.RunRecord]:
    cursor: str | None = None
    while True:
        page = instance.get_run_records(dg.RunsFilter(statuses=ENDED), limit=PAGE, cursor=cursor)
        yield from page
        if len(page) < PAGE:
            return
        cursor = page[-1].dagster_run.run_id


def _materializing_runs(instance: dg.DagsterInstance) -> set[str]:
    """The runs that hold an asset's last materialization: without them the asset would look never materialized."""
    events = (instance.get_latest_materialization_event(key) for key in instance.get_asset_keys())
    return {event.run_id for event in events if event is not None}
