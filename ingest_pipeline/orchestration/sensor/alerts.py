"""Messages to a webhook when a stream begins to fail and when the stream has recovered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from ...core.stream import Stream
from ...operations.stream_context import StreamContext
from .. import tags
from ..asset_keys import asset_key
from ..checks import CHECKS, newest_evaluation
from ..run_history import ENDED, RECENT, failed_by_hand, fruitless_message, is_fruitless

SENSOR = "ingest_alerts"
RUN = "run"
_POLL_SECONDS = 15
ANSWER_SECONDS = 5.0
_TRIES = 3
Failing = dict[str, dict[str, str]]
"""Stream, or "job replay" → failing check, "run" or "run of shard 0/2" → message."""


@dataclass(frozen=True, slots=True)
class Message:
    """A post, and the stream's posted failures after the post."""

    stream: str
    text: str
    posted_failures: dict[str, str]


def alert_sensor(
    contexts: Sequence[StreamContext], webhook: str, answer_seconds: float = ANSWER_SECONDS
) -> dg.SensorDefinition:
    """Compares every stream's newest check results and ended runs with the posted failures in its cursor.

    Args:
        webhook: takes a POST of {"text": …}, like Slack's and Mattermost's webhooks. Never logged.
        answer_seconds: time-out of a POST.
    """

    @dg.sensor(
        name=SENSOR,
        minimum_interval_seconds=_POLL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Posts to ALERT_WEBHOOK_URL when a stream begins to fail and when the stream has recovered.",
    )
    def post_changes(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        posted_failures: Failing = json.loads(context.cursor or "{}")
        now = {item.stream.name: failing(context.instance, item) for item in contexts}
        now |= {f"job {job}": failing_job(context.instance, job) for job in tags.OTHER_JOBS}
        now = {name: failures for name, failures in now.items() if failures}
        count = 0
        for message in messages(posted_failures, now):
            try:
                post(webhook, message.text, answer_seconds)
            except dg.Failure as error:
                if not count:
                    raise
                # A failed tick keeps its old cursor, and the next tick would repeat the posted messages.
                return dg.SkipReason(f"{count} messages posted; the rest follows: {error.description}")
            count += 1
            posted_failures[message.stream] = message.posted_failures
            context.update_cursor(json.dumps(posted_failures))
        context.update_cursor(json.dumps(now))
        return dg.SkipReason(f"{count} messages posted; failing: {', '.join(now) or 'nothing'}")

    return post_changes


def failing(instance: dg.DagsterInstance, stream_context: StreamContext) -> dict[str, str]:
    """A stream's failures now: failing check or run → message."""
    stream, key = stream_context.stream, asset_key(stream_context)
    failures: dict[str, str] = {}
    for name in CHECKS:
        newest = newest_evaluation(instance, key, name)
        if newest is not None and not newest.passed:
            failures[name] = newest.description or "failed"
    for run in newest_ended(instance, stream):
        shard = tags.shard_of(run.tags)
        name = RUN if shard is None or shard.count == 1 else f"{RUN} of shard {shard}"
        failed_streams = tags.failed_streams(run.tags)
        if failed_streams and stream.name not in failed_streams:
            continue
        if run.status == dg.DagsterRunStatus.FAILURE:
            failures[name] = _run_failure(instance, run, tags.outcome_of(run.tags, stream))
        elif shard is not None and is_fruitless(run) and (message := fruitless_message(instance, stream, shard)):
            failures[name] = message
    if (by_hand := failed_by_hand(instance, stream)) is not None:
        outcome = tags.outcome_of(by_hand.tags, stream)
        failures[f"{RUN} by hand"] = _run_failure(instance, by_hand, outcome, key.to_python_identifier())
    return failures


def failing_job(instance: dg.DagsterInstance, job: str) -> dict[str, str]:
    """The failure of a job that drains nothing."""
    for run in instance.get_runs(dg.RunsFilter(job_name=job, statuses=ENDED, tags={tags.JOB: job}), limit=1):
        if run.status == dg.DagsterRunStatus.FAILURE:
            return {RUN: _run_failure(instance, run)}
    return {}


def newest_ended(instance: dg.DagsterInstance, stream: Stream) -> list[dg.DagsterRun]:
    """Every shard's newest ended run, because a shard's success must not hide another shard's failure.

    A run by hand drains all shards. While a run by hand is the newest, or after its success, no older run counts.
    """
    ended = dg.RunsFilter(job_name=tags.job_name(stream.job), statuses=ENDED)
    newest: list[dg.DagsterRun] = []
    missing: list[tags.Shard] | None = None
    for run in instance.get_runs(ended, limit=RECENT):
        shard = tags.shard_of(run.tags)
        if shard is None and (not newest or run.status == dg.DagsterRunStatus.SUCCESS):
            return newest or [run]
        if shard is not None and missing is None:
            missing = tags.shards(shard.count)
        if missing is not None and shard in missing:
            missing.remove(shard)
            newest.append(run)
        if missing == []:
            break
    for shard in missing or []:  # only for runs older than RECENT, because a filter by tag is slow
        of_shard = dg.RunsFilter(job_name=ended.job_name, statuses=ENDED, tags={tags.SHARD: str(shard)})
        newest += instance.get_runs(of_shard, limit=1)
    return newest


def _run_failure(instance: dg.DagsterInstance, run: dg.DagsterRun, outcome: str = "", step: str | None = None) -> str:
    """The class of the run's error, and the message of a dagster.Failure, which holds no payload.

    Args:
        step: the step with the message. None: any step.
    """
    step_messages: list[str] = []
    run_messages: list[str] = []
    kinds = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    for record in instance.get_records_for_run(run.run_id, of_type=kinds).records:
        event = record.event_log_entry.dagster_event
        if event is None:
            continue
        if event.is_run_failure:
            run_messages.append(event.message or "")
        elif step in (None, event.step_key):
            failure = event.step_failure_data.user_failure_data
            step_messages.append((failure.description or "") if failure is not None else "")
    error = outcome.removeprefix("failed:")
    lines = step_messages[:1] if step_messages or error else run_messages  # a dead run has no failed step
    reason = ": ".join(part for part in (error, *lines) if part) or "see its log"
    return f"run {run.run_id[:8]} failed: {reason}"


def messages(before: Failing, now: Failing) -> list[Message]:
    """For every stream at most two messages: new failures and recoveries."""
    changes = []
    for stream in sorted({*before, *now}):
        old, new = before.get(stream, {}), now.get(stream, {})
        if begun := [name for name in new if name not in old]:
            text = f"{stream} is failing: " + "; ".join(f"{name}: {new[name]}" for name in begun)
            changes.append(Message(stream, text, {**old, **new}))
        if ended := [name for name in old if name not in new]:
            rest = f"; still failing: {', '.join(new)}" if new else ""
            changes.append(Message(stream, f"{stream} has recovered: {', '.join(ended)}{rest}", new))
    return changes


def post(webhook: str, text: str, answer_seconds: float) -> None:
    """Raises dagster.Failure, without the address, after several failed tries within half a minute."""
    import requests  # takes 0.1 s, which runs save
    from requests.adapters import HTTPAdapter
    from urllib3.util.retry import Retry

    retry = Retry(_TRIES, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504), allowed_methods=("POST",))
    with requests.Session() as session:
        session.mount(webhook, HTTPAdapter(max_retries=retry))
        try:
            answer = session.post(webhook, json={"text": text}, timeout=answer_seconds)
            failure = None if answer.ok else f"it answers {answer.status_code}"
        except requests.RequestException as error:
            failure = type(error).__name__
    if failure is not None:
        raise dg.Failure(description=f"ALERT_WEBHOOK_URL cannot be posted to: {failure}", allow_retries=False) from None


def alert_sensors(contexts: Sequence[StreamContext], webhook: str | None) -> list[dg.SensorDefinition]:
    """None without a webhook."""
    return [] if webhook is None else [alert_sensor(contexts, webhook)]
