"""Deletes old runs of this code location with their files, old ticks and old events, to keep Dagster's storage small.

The instance may hold runs of other projects. A run is deleted only if its tags name this package and no other code
location launched it. `instance.delete_run` leaves the run's SQLite file and its compute logs: the module deletes both
by the run's id.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickStatus

from ...operations.clients import Clients
from ...operations.stream_context import StreamContext
from .. import tags
from ..asset_keys import asset_key, topic_key
from ..run_history import ENDED
from .retention import partitions_op, purge_events, purge_op

PAGE = 500
_DAY_SECONDS = 86_400.0


def maintenance_job(
    clients: Clients, stream_contexts: Sequence[StreamContext], sensors: Collection[str]
) -> dg.JobDefinition:
    """`maintenance`: deletes runs older than RUN_RETENTION_DAYS (failed ones: FAILED_RUN_RETENTION_DAYS), but keeps the
    newest RUN_RETENTION_KEEP of every stream and every asset's last materialization. Also deletes ticks of the same age
    with a run or a failure, dead letters as SETTLED_LETTER_RETENTION_DAYS says, and makes and drops partitions.

    Args:
        stream_contexts: the streams of this code location. A run by hand that holds any other asset is kept.
        sensors: names of this code location's sensors. Other ticks are kept.
    """
    settings, assets = clients.settings, [asset_key(stream_context) for stream_context in stream_contexts]

    @dg.op(name="delete_old_runs")
    def delete_old_runs(context: dg.OpExecutionContext) -> None:
        now, repository = clients.clock.time(), _repository(context.run)
        doomed = runs_to_delete(
            _ended_runs(context.instance),
            repository,
            assets,
            now=now,
            days=settings.run_retention_days,
            failed_days=settings.failed_run_retention_days,
            keep=settings.run_retention_keep,
            protected=_materializing_runs(context.instance),
        )
        for run_id in doomed:
            delete_run(context.instance, run_id)
        context.log.info(f"deleted {len(doomed):,} finished runs")
        keys = [*assets, *map(topic_key, stream_contexts)]
        purged = purge_events(context.instance, keys, now - settings.failed_run_retention_days * _DAY_SECONDS)
        context.log.info(f"deleted {purged:,} evaluations of checks and events without a run")
        days = {TickStatus.SUCCESS: settings.run_retention_days, TickStatus.FAILURE: settings.failed_run_retention_days}
        before = {status: now - limit * _DAY_SECONDS for status, limit in days.items()}
        purge_ticks(context.instance, sensors, repository, before)

    purge_settled_letters = purge_op(clients, stream_contexts)
    maintain_partitions = partitions_op(clients, stream_contexts)

    @dg.job(
        name="maintenance",
        executor_def=dg.in_process_executor,
        tags={tags.JOB: "maintenance"},
        description="Delete finished runs, with their files, ticks, and settled dead letters that are older than the"
        " retention settings. Make and drop the partitions of tables.",
    )
    def maintenance() -> None:
        delete_old_runs()
        purge_settled_letters()
        maintain_partitions()

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
    records: Iterable[dg.RunRecord],
    repository: str | None,
    assets: Collection[dg.AssetKey],
    *,
    now: float,
    days: int,
    failed_days: int,
    keep: int,
    protected: set[str],
) -> list[str]:
    """Ids of old ended runs of the package's streams and other jobs.

    Args:
        records: newest first.
        repository: the label of this code location's repository, or None if unknown, as in a test.
        keep: how many runs of every stream stay regardless of age.
    """
    seen: defaultdict[str, int] = defaultdict(int)
    doomed = []
    for record in records:
        run = record.dagster_run
        kind = _kind(run, assets)
        if kind is None or _is_elsewhere(run, repository):
            continue
        seen[kind] += 1
        limit = failed_days if run.status == dg.DagsterRunStatus.FAILURE else days
        ended = record.end_time or record.create_timestamp.timestamp()
        if seen[kind] > keep and now - ended > limit * _DAY_SECONDS and run.run_id not in protected:
            doomed.append(run.run_id)
    return doomed


def _kind(run: dg.DagsterRun, assets: Collection[dg.AssetKey]) -> str | None:
    """The stream or job of the run. None for a run with foreign assets or of a foreign job."""
    if run.tags.get(tags.JOB) == run.job_name:
        return run.job_name
    job = tags.drained_job(run.tags)
    if run.job_name == tags.BY_HAND:
        return job if run.asset_selection and run.asset_selection <= set(assets) else None
    return job if job is not None and run.job_name == tags.job_name(job) else None


def _is_elsewhere(run: dg.DagsterRun, repository: str | None) -> bool:
    """Whether another code location launched the run. Two code locations may have streams of the same name."""
    return repository is not None and _repository(run) not in (None, repository)


def _repository(run: dg.DagsterRun) -> str | None:
    """repository@location. None for a run that no daemon or web server launched."""
    origin = run.remote_job_origin
    return None if origin is None else origin.repository_origin.get_label()


def delete_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Delete a run, its events, its SQLite file and its compute logs.

    Logs in a cloud stay, because their bucket has retention rules of its own.
    """
    # Here, as they bring SQLAlchemy and Alembic along, which loading the definitions does not need.
    from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
    from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager

    storage, logs = instance.event_log_storage, instance.compute_log_manager
    instance.delete_run(run_id)
    if isinstance(logs, LocalComputeLogManager):
        logs.delete_logs(prefix=[run_id])
    if isinstance(storage, SqliteEventLogStorage):
        path = Path(storage.path_for_shard(run_id))
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink(missing_ok=True)


def purge_ticks(
    instance: dg.DagsterInstance, sensors: Collection[str], repository: str | None, before: Mapping[TickStatus, float]
) -> None:
    """Delete ticks of this code location's sensors, once a day. Limits in dagster.yaml would delete at every tick.

    Also deletes log files of ticks older than all limits, because Dagster deletes a tick without its file. Sensors of
    the same name in other code locations have their files in the same folder.

    Args:
        repository: the label of this code location's repository. With None, nothing is deleted.
        before: tick status → Unix time. Earlier ticks are deleted.
    """
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        origin = state.origin.repository_origin
        if state.instigator_name in sensors and origin.get_label() == repository:
            for status, unix_time in before.items():
                instance.purge_ticks(state.instigator_origin_id, state.selector_id, unix_time, [status])
            _delete_files(instance, [origin.repository_name, state.instigator_name], min(before.values()))


def _delete_files(instance: dg.DagsterInstance, prefix: Sequence[str], before: float) -> None:
    """Delete the local log files below this key that were written before this Unix time."""
    from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager

    logs = instance.compute_log_manager
    if isinstance(logs, LocalComputeLogManager):
        for file in Path(logs.get_captured_local_path([*prefix, "tick"], "err")).parent.glob("*"):
            if file.stat().st_mtime < before:
                file.unlink(missing_ok=True)


def _ended_runs(instance: dg.DagsterInstance) -> Iterable[dg.RunRecord]:
    cursor: str | None = None
    while True:
        page = instance.get_run_records(dg.RunsFilter(statuses=ENDED), limit=PAGE, cursor=cursor)
        yield from page
        if len(page) < PAGE:
            return
        cursor = page[-1].dagster_run.run_id


def _materializing_runs(instance: dg.DagsterInstance) -> set[str]:
    """The runs with an asset's last materialization. Without these the asset would look never materialized."""
    events = (instance.get_latest_materialization_event(key) for key in instance.get_asset_keys())
    return {event.run_id for event in events if event is not None}
