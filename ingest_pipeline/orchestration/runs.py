"""A stream's runs in Dagster's storage, as a tick sees them."""

from __future__ import annotations

import dagster as dg

from ..core.stream import Stream
from . import tags
from .decide import RunView

_ACTIVE = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def views_of_runs(instance: dg.DagsterInstance, stream: Stream, limit: int) -> tuple[list[RunView], list[RunView]]:
    """(active, recently ended). By status alone, tags matched here: a filter by tag grows slow with history."""
    active = [
        _view(record)
        for record in instance.get_run_records(dg.RunsFilter(statuses=_ACTIVE))
        if record.dagster_run.tags.get(tags.STREAM) == stream.name
    ]
    newest = instance.get_run_records(dg.RunsFilter(job_name=tags.job_name(stream)), limit=limit)
    return active, [_view(record) for record in newest if record.dagster_run.is_finished]


def _view(record: dg.RunRecord) -> RunView:
    run = record.dagster_run
    return RunView(
        run_id=run.run_id,
        status=run.status.value,
        shard=tags.shard_of(run.tags),
        definition=run.tags.get(tags.DEFINITION, ""),
        started_at=record.start_time or record.create_timestamp.timestamp(),
        ended_at=record.end_time,
        ended=run.tags.get(tags.ENDED, ""),
    )
