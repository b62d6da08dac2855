"""The sensor that posts alerts. Silent while Dagster's daemon is down."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import dagster as dg

from ...core.errors import IngestError
from ...core.timestamps import utc_text
from ...operations.alerts import ANSWER_SECONDS, Alerts, Memory
from ...operations.clients import Clients
from ...operations.stream_context import StreamContext
from .. import tags
from ..sensor_states import reasons

SENSOR = "ingest_alerts"
_POLL_SECONDS = 4
"""Every round of the daemon, which takes 5 s."""
_RUNS = 50
"""Most failed runs that a tick looks at."""


def alert_sensor(
    stream_contexts: Sequence[StreamContext], webhook: str, answer_seconds: float = ANSWER_SECONDS
) -> dg.SensorDefinition:
    """Posts the news of the streams, and every failed run of the other jobs once. See operations/alerts.py."""
    # Clients of its own: a session that the other sensors keep open would hide that no new session is free.
    clients = Clients(stream_contexts[0].clients.settings, stream_contexts[0].clients.clock)
    own_contexts = [replace(stream_context, clients=clients) for stream_context in stream_contexts]
    alerts = Alerts(own_contexts, webhook, name=SENSOR, by_default=True, answer_seconds=answer_seconds)

    @dg.sensor(
        name=SENSOR,
        minimum_interval_seconds=_POLL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Posts to ALERT_WEBHOOK_URL when a stream has been unwell for a while and when it is well again.",
    )
    def post_news(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        cursor: dict[str, Any] = json.loads(context.cursor or "{}")
        memory, count = Memory.parse(cursor.get("memory")), 0
        jobs_until = cursor.get("jobs_until", clients.clock.time())
        failure: str | None = None
        try:
            look = alerts.look(memory, partial(reasons, context.instance))
            count, failure = look.messages, look.refusal
            for ended_at, text in failed_jobs(context.instance, jobs_until):
                alerts.post(text)
                jobs_until, count = ended_at, count + 1
        except IngestError as error:
            failure = error.message
        context.update_cursor(json.dumps({"memory": memory.dump(), "jobs_until": jobs_until}))
        if failure is not None:
            context.log.error(failure)
            return dg.SkipReason(f"{count} messages posted: {failure}")
        return dg.SkipReason(f"{count} messages posted")

    return post_news


def failed_jobs(instance: dg.DagsterInstance, since: float) -> list[tuple[float, str]]:
    """(time, message) of every run of the jobs that drain nothing that failed after `since`, oldest first."""
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=datetime.fromtimestamp(since, UTC))
    messages = []
    for record in instance.get_run_records(failed, limit=_RUNS, order_by="update_timestamp", ascending=True):
        run, ended_at = record.dagster_run, record.end_time or record.update_timestamp.timestamp()
        if ended_at > since and run.tags.get(tags.JOB) == run.job_name:
            messages.append((ended_at, _failed_job(instance, run, ended_at)))
    return messages


def _failed_job(instance: dg.DagsterInstance, run: dg.DagsterRun, ended_at: float) -> str:
    return (
        f"job {run.job_name} failed: {_reason(instance, run)}\n"
        f"at {utc_text(datetime.fromtimestamp(ended_at, UTC))}\n"
        f"Run {run.run_id[:8]} in Dagster has the log. Start the job again after the cause is gone."
    )


def _reason(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """The message of the run's dagster.Failure, which holds no payload."""
    kinds = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    run_message = ""
    for record in instance.get_records_for_run(run.run_id, of_type=kinds).records:
        event = record.event_log_entry.dagster_event
        if event is not None and not event.is_run_failure:
            failure = event.step_failure_data.user_failure_data
            return " ".join((failure.description or "").split()) if failure is not None else "see its log"
        if event is not None:
            run_message = event.message or ""
    return " ".join(run_message.split()) or "see its log"  # a dead run has no failed step
