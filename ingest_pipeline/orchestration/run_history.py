"""The runs of a job that drains, in Dagster's storage."""

from collections.abc import Sequence
from typing import NamedTuple

import dagster as dg

from ..core.stream import Stream
from . import tags
from .view import RunView

ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
RECENT = 50
"""Number of newest runs to search. The first run is usually the match."""
_ACTIVE = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


class RunViews(NamedTuple):
    """Attributes:
    active: the job's runs without an end.
    recent: the job's newest ended runs, newest first.
    elsewhere: the sensor runs of other jobs without an end.
    """

    active: Sequence[RunView] = ()
    recent: Sequence[RunView] = ()
    elsewhere: Sequence[RunView] = ()


def views_of_runs(instance: dg.DagsterInstance, job: str, limit: int) -> RunViews:
    """Matches tags here, because Dagster's filter by tag grows slow with history."""
    active, elsewhere = [], []
    for record in instance.get_run_records(dg.RunsFilter(statuses=_ACTIVE)):
        drained_job = tags.drained_job(record.dagster_run.tags)
        if drained_job == job:
            active.append(_view(record))
        elif drained_job is not None and tags.shard_of(record.dagster_run.tags) is not None:
            elsewhere.append(_view(record))
    newest = instance.get_run_records(dg.RunsFilter(job_name=tags.job_name(job)), limit=limit)
    return RunViews(active, [_view(record) for record in newest if record.dagster_run.is_finished], elsewhere)


def failed_by_hand(instance: dg.DagsterInstance, stream: Stream) -> dg.DagsterRun | None:
    """The stream's newest run by Materialize, if the stream failed and no run of its job has succeeded since. Searches
    the newest Materialize runs only."""
    for record in instance.get_run_records(dg.RunsFilter(job_name=tags.BY_HAND, statuses=ENDED), RECENT):
        outcome = tags.outcome_of(record.dagster_run.tags, stream)
        if not outcome:
            continue
        later_successes = dg.RunsFilter(
            job_name=tags.job_name(stream.job),
            statuses=[dg.DagsterRunStatus.SUCCESS],
            created_after=record.create_timestamp,
        )
        failed = outcome.startswith("failed:") and not instance.get_runs(later_successes, limit=1)
        return record.dagster_run if failed else None
    return None


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
        launch_seconds=record.start_time and record.start_time - record.create_timestamp.timestamp(),
        opening_seconds=_seconds(run.tags.get(tags.OPENING, "")),
        failed_streams=tags.failed_streams(run.tags),
    )


def _seconds(text: str) -> float | None:
    """None for text that is no number, because users can edit tags."""
    return float(text) if text.replace(".", "", 1).isdecimal() else None
