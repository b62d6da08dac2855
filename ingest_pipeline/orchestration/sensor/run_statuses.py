"""Statuses that a sensor reports to Dagster for runs without a working process."""

from collections.abc import Sequence

import dagster as dg


def report_ghosts(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> None:
    for run_id in run_ids:
        if (run := instance.get_run_by_id(run_id)) is not None:
            instance.report_run_failed(
                run,
                "The run has no session with PostgreSQL: its process is frozen, cut off, gone, or never started.",
            )


def cancel_superseded(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> None:
    """Cancel runs whose process has not started. A process that starts later sees the status and ends."""
    for run_id in run_ids:
        run = instance.get_run_by_id(run_id)
        if run is not None and run.status in (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING):
            instance.report_run_canceled(run, message="Another run takes the shard: this run has not started.")
