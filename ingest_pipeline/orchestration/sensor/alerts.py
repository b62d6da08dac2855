"""Messages to a webhook when a stream begins to fail, and when it is well again."""

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
from ..run_history import ENDED, RECENT, failed_by_hand, fruitless_runs, is_fruitless

SENSOR = "ingest_alerts"
RUN = "run"
_POLL_SECONDS = 15
_ANSWER_SECONDS = 5.0
_TRIES = 3
Failing = dict[str, dict[str, str]]
"""Stream, or "job replay" → what of it fails (a check's name, "run", "run of shard 0/2") → what it said."""


@dataclass(frozen=True, slots=True)
class Message:
    """One post, and what its stream's readers know to fail once it is posted."""

    stream: str
    text: str
    told: dict[str, str]


def alert_sensor(contexts: Sequence[StreamContext], webhook: str) -> dg.SensorDefinition:
    """Looks at every stream's newest check results and ended runs; its cursor holds what was posted to fail.

    Args:
        webhook: takes a POST of {"text": …}, as Slack's and Mattermost's do. Never logged.
    """

    @dg.sensor(
        name=SENSOR,
        minimum_interval_seconds=_POLL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Posts to ALERT_WEBHOOK_URL when a stream begins to fail, and when it is well again.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        told: Failing = json.loads(context.cursor or "{}")
        now = {item.stream.name: failing(context.instance, item) for item in contexts}
        now |= {f"job {job}": failing_job(context.instance, job) for job in tags.OTHER_JOBS}
        now = {name: found for name, found in now.items() if found}
        posted = 0
        for message in messages(told, now):
            try:
                post(webhook, message.text)
            except dg.Failure as error:
                if not posted:
                    raise
                # A tick that fails keeps its old cursor, and what was posted would be posted again.
                return dg.SkipReason(f"{posted} messages posted; the rest follows: {error.description}")
            posted += 1
            told[message.stream] = message.told
            context.update_cursor(json.dumps(told))
        context.update_cursor(json.dumps(now))
        return dg.SkipReason(f"{posted} messages posted; failing: {', '.join(now) or 'nothing'}")

    return watch


def failing(instance: dg.DagsterInstance, stream_context: StreamContext) -> dict[str, str]:
    """What of a stream fails now, with what it says."""
    stream, key = stream_context.stream, asset_key(stream_context)
    found: dict[str, str] = {}
    for name in CHECKS:
        newest = newest_evaluation(instance, key, name)
        if newest is not None and not newest.passed:
            found[name] = newest.said or "failed"
    for run in newest_ended(instance, stream):
        shard = tags.shard_of(run.tags)
        name = RUN if shard is None or shard.count == 1 else f"{RUN} of shard {shard}"
        if run.status == dg.DagsterRunStatus.FAILURE:
            found[name] = _told(instance, run, tags.outcome_of(run.tags, stream))
        elif shard is not None and is_fruitless(run) and (why := fruitless_runs(instance, stream, shard)) is not None:
            found[name] = why
    if (by_hand := failed_by_hand(instance, stream)) is not None:
        outcome = tags.outcome_of(by_hand.tags, stream)
        found[f"{RUN} by hand"] = _told(instance, by_hand, outcome, key.to_python_identifier())
    return found


def failing_job(instance: dg.DagsterInstance, job: str) -> dict[str, str]:
    """The same of a job that drains nothing."""
    for run in instance.get_runs(dg.RunsFilter(job_name=job, statuses=ENDED, tags={tags.JOB: job}), limit=1):
        if run.status == dg.DagsterRunStatus.FAILURE:
            return {RUN: _told(instance, run)}
    return {}


def newest_ended(instance: dg.DagsterInstance, stream: Stream) -> list[dg.DagsterRun]:
    """The newest ended run of each shard, so that one shard's success does not hide another's failure. One launched by
    hand, for all shards, counts while it is the newest; where it went well, nothing older counts."""
    ended = dg.RunsFilter(job_name=tags.job_name(stream), statuses=ENDED)
    found: list[dg.DagsterRun] = []
    missing: list[tags.Shard] | None = None
    for run in instance.get_runs(ended, limit=RECENT):
        shard = tags.shard_of(run.tags)
        if shard is None and (not found or run.status == dg.DagsterRunStatus.SUCCESS):
            return found or [run]
        if shard is not None and missing is None:
            missing = tags.shards(shard.count)
        if missing is not None and shard in missing:
            missing.remove(shard)
            found.append(run)
        if missing == []:
            break
    for shard in missing or []:  # one that others have left far behind; by tag it is asked for only then
        of_shard = dg.RunsFilter(job_name=ended.job_name, statuses=ENDED, tags={tags.SHARD: str(shard)})
        found += instance.get_runs(of_shard, limit=1)
    return found


def _told(instance: dg.DagsterInstance, run: dg.DagsterRun, outcome: str = "", step: str | None = None) -> str:
    """The class of the run's error, and the line it failed with where it is ours: such a line holds no payload.

    Args:
        step: whose line it is; None: any of the run's.
    """
    steps: list[str] = []
    runs: list[str] = []
    kinds = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    for record in instance.get_records_for_run(run.run_id, of_type=kinds).records:
        event = record.event_log_entry.dagster_event
        if event is None:
            continue
        if event.is_run_failure:
            runs.append(event.message or "")
        elif step in (None, event.step_key):
            failure = event.step_failure_data.user_failure_data
            steps.append((failure.description or "") if failure is not None else "")
    error = outcome.removeprefix("failed:")
    lines = steps[:1] if steps or error else runs  # a run that died has no step that could say why
    why = ": ".join(part for part in (error, *lines) if part) or "see its log"
    return f"run {run.run_id[:8]} failed: {why}"


def messages(before: Failing, now: Failing) -> list[Message]:
    """At most two for each stream: what has begun to fail, what is well again."""
    found = []
    for stream in sorted({*before, *now}):
        was, is_ = before.get(stream, {}), now.get(stream, {})
        if begun := [name for name in is_ if name not in was]:
            text = f"{stream} is failing: " + "; ".join(f"{name}: {is_[name]}" for name in begun)
            found.append(Message(stream, text, {**was, **is_}))
        if ended := [name for name in was if name not in is_]:
            rest = f"; still failing: {', '.join(is_)}" if is_ else ""
            found.append(Message(stream, f"{stream} has recovered: {', '.join(ended)}{rest}", is_))
    return found


def post(webhook: str, text: str) -> None:
    """Raises dagster.Failure, without the address, when the webhook does not take it after several tries, within half a
    minute: the next tick tries again."""
    import requests  # 0.1 s that no run needs
    from requests.adapters import HTTPAdapter
    from urllib3.util.retry import Retry

    again = Retry(_TRIES, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504), allowed_methods=("POST",))
    with requests.Session() as session:
        session.mount(webhook, HTTPAdapter(max_retries=again))
        try:
            answer = session.post(webhook, json={"text": text}, timeout=_ANSWER_SECONDS)
            failed = None if answer.ok else f"it answers {answer.status_code}"
        except requests.RequestException as error:
            failed = type(error).__name__
    if failed is not None:
        raise dg.Failure(description=f"ALERT_WEBHOOK_URL cannot be posted to: {failed}", allow_retries=False) from None


def alert_sensors(contexts: Sequence[StreamContext], webhook: str | None) -> list[dg.SensorDefinition]:
    """None without a webhook."""
    return [] if webhook is None else [alert_sensor(contexts, webhook)]
