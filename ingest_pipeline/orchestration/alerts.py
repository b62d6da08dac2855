"""Messages to a webhook when a stream begins to fail, and when it is well again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import dagster as dg
import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from ..core.stream import Stream
from . import tags
from .assets import asset_key
from .checks import CHECKS

SENSOR = "ingest_alerts"
RUN = "run"
_POLL_SECONDS = 15
_ANSWER_SECONDS = 5.0
_TRIES = 3
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
Failing = dict[str, dict[str, str]]
"""Stream → what of it fails (a check's name, or "run") → what it said."""


def alert_sensor(streams: Sequence[Stream], webhook: str, key_prefix: Sequence[str] = ()) -> dg.SensorDefinition:
    """Looks at every stream's newest check results and newest ended run; its cursor holds what was failing before.

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
        before: Failing = json.loads(context.cursor or "{}")
        now = {stream.name: found for stream in streams if (found := failing(context.instance, stream, key_prefix))}
        posts = messages(before, now)
        for text in posts:
            post(webhook, text)
        context.update_cursor(json.dumps(now))
        return dg.SkipReason(f"{len(posts)} messages posted; failing: {', '.join(now) or 'nothing'}")

    return watch


def failing(instance: dg.DagsterInstance, stream: Stream, key_prefix: Sequence[str]) -> dict[str, str]:
    """What of a stream fails now, with what it says."""
    found: dict[str, str] = {}
    for name in CHECKS:
        key = dg.AssetCheckKey(asset_key(stream, key_prefix), name)
        for record in instance.event_log_storage.get_asset_check_execution_history(key, limit=1):
            event = record.event.dagster_event if record.event is not None else None
            if event is not None and not (evaluation := event.asset_check_evaluation_data).passed:
                found[name] = evaluation.description or "failed"
    newest = instance.get_runs(dg.RunsFilter(job_name=tags.job_name(stream), statuses=_ENDED), limit=1)
    for run in newest:
        if run.status == dg.DagsterRunStatus.FAILURE:
            ended = run.tags.get(tags.ENDED, "").removeprefix("failed:") or "see its log"
            found[RUN] = f"run {run.run_id[:8]} failed: {ended}"
    return found


def messages(before: Failing, now: Failing) -> list[str]:
    """At most one for each stream and change: what has begun to fail, what is well again."""
    found = []
    for stream in sorted({*before, *now}):
        was, is_ = before.get(stream, {}), now.get(stream, {})
        if begun := [name for name in is_ if name not in was]:
            found.append(f"{stream} is failing: " + "; ".join(f"{name}: {is_[name]}" for name in begun))
        if ended := [name for name in was if name not in is_]:
            rest = f"; still failing: {', '.join(is_)}" if is_ else ""
            found.append(f"{stream} has recovered: {', '.join(ended)}{rest}")
    return found


def post(webhook: str, text: str) -> None:
    """Raises dagster.Failure, without the address, when the webhook does not take it after several tries: the cursor
    stays, and the next tick tries again."""
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


def alert_sensors(
    streams: Iterable[Stream], webhook: str | None, key_prefix: Sequence[str]
) -> list[dg.SensorDefinition]:
    """None without a webhook."""
    return [] if webhook is None else [alert_sensor(list(streams), webhook, key_prefix)]
