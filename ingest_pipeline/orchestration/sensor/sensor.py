"""A job's sensor: compares lag with the runs that drain and launches runs. The sensor consumes no records."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import dagster as dg
from dagster._core.instance.ref import InstanceRef

from ...core.errors import DataLoss, EnvironmentFault, IngestError, TopicChanged, TopicMissing
from ...operations.stream_context import StreamContext
from .. import tags
from ..asset_keys import topic_key
from ..patience import OTHER_STARTING_SECONDS, max_runtime
from ..view import STARTING_SECONDS, Decision, Launch, View
from .cursor import load, runs_memory
from .decide import decide, superseded
from .idle_poll import IdlePoll
from .memory import SensorMemory, new_memory
from .reading import AwaitedTopic, Reading, read
from .runless_checks import evaluate_checks
from .start_queue import StartQueue, starting_runs
from .topic_observation import LastLook, observe

OBSERVED_TOPICS = 5
"""Most topics of a job that a tick observes."""


def job_sensor(stream_contexts: Sequence[StreamContext], start_queue: StartQueue) -> dg.SensorDefinition:
    """`<job>_sensor`, on by default. A short POLL_SECONDS leads to several polls a tick.

    Args:
        stream_contexts: the job's streams, ordered by name.
    """
    first = stream_contexts[0]
    job, job_settings, clients = first.stream.job, first.job_settings, first.clients
    memory = new_memory(stream_contexts)
    topics = f"topic {first.stream.topic}" if len(stream_contexts) == 1 else f"{len(stream_contexts)} topics"

    @dg.sensor(
        name=tags.sensor_name(job),
        job_name=tags.job_name(job),
        minimum_interval_seconds=job_settings.poll_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Launches a run for every shard of {topics} that has lag and no live drainer.",
    )
    def poll(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        by_daemon = context.log_key is not None  # a manual test of the sensor needs its answer at once
        instance = context.instance_ref
        idle_poll = IdlePoll(instance if by_daemon else None, job_settings.poll_seconds, clients.clock)
        try:
            starts_here = _starts_here(instance)
            launcher_seconds = STARTING_SECONDS if starts_here else OTHER_STARTING_SECONDS
            starting = clients.settings.run_start_seconds or launcher_seconds
            queue = start_queue if by_daemon and starts_here else None
            return tick(
                context, stream_contexts, memory, idle_poll=idle_poll, starting_seconds=starting, start_queue=queue
            )
        except IngestError as error:
            for name in memory.checks:
                _report(context, memory, name, error)
            if isinstance(error, TopicMissing):
                return dg.SkipReason(error.message)
            raise dg.Failure(description=error.message) from None

    return poll


def tick(
    context: dg.SensorEvaluationContext,
    stream_contexts: Sequence[StreamContext],
    memory: SensorMemory | None = None,
    idle_poll: IdlePoll | None = None,
    starting_seconds: float = STARTING_SECONDS,
    start_queue: StartQueue | None = None,
) -> dg.SensorResult | dg.SkipReason:
    """In this order:

    1. Read the state of the job's streams. The error of one stream among several is reported, and the others go on.
    2. Decide which runs to launch.
    3. Report ghosts as failed runs, cancel superseded runs, and note fruitless runs in the ledger.
    4. Evaluate checks of streams without a run.
    5. Observe topics, from time to time.

    Args:
        memory: None: the checks are not reported, and the waits are not noted.
        idle_poll: polls idle topics until the next tick. None: no polling.
        start_queue: None: all runs start at once.

    Raises:
        TopicMissing: the topic of the only stream is gone, and the stream has begun.
        IngestError: Kafka or PostgreSQL did not answer, or the only stream needs an operator. The next tick tries
            again.
    """
    memory = SensorMemory() if memory is None else memory
    reading = read(context, stream_contexts, memory, idle_poll=idle_poll, starting_seconds=starting_seconds)  # 1
    view = reading.view
    for name, error in reading.errors.items():
        if len(stream_contexts) > 1:
            _report(context, memory, name, error)
        elif isinstance(error, AwaitedTopic):
            return dg.SkipReason(error.message)
        else:
            raise error
    for name, checks in memory.checks.items():
        if name not in reading.errors:
            checks.servers_answered()
    decision = decide(view)  # 2
    launches = bool(decision.launches)
    if start_queue is not None and decision.launches:
        starting = starting_runs(view, starting_seconds)
        decision = _in_turn(start_queue, stream_contexts[0].stream.job, decision, starting)
    _report_ghosts(context.instance, decision.failed_ghosts)  # 3
    _cancel_superseded(context.instance, superseded(view, decision.launches))
    if decision.fruitless is not None:
        _note_fruitless(stream_contexts, view, decision.fruitless)
    if view.runs_read:
        checked = {name: checks for name, checks in memory.checks.items() if name not in reading.errors}
        evaluate_checks(context.instance, checked, stream_contexts, view, launches=launches)  # 4
    observations, looks = _observe(context, stream_contexts, memory, reading)  # 5
    requests = [_request(launch, stream_contexts, view) for launch in decision.launches]
    skip_reason = "; ".join(decision.skip_reasons) if decision.skip_reasons and not requests else None
    if skip_reason is not None and _holds_back(view):
        memory.log_once(context.log, skip_reason)
    return dg.SensorResult(
        run_requests=requests,
        skip_reason=skip_reason,
        cursor=json.dumps({"ghosts": decision.ghosts_seen, **looks, **runs_memory(context.cursor, view, decision)}),
        asset_events=observations,
    )


def _holds_back(view: View) -> bool:
    """Whether records wait and no run will read them. The skip reason is for an operator then."""
    waits = any(any(stream.lag.values()) and not stream.owners for stream in view.streams)
    return waits and not view.active


def _report_ghosts(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> None:
    """Report runs without a working process as failed."""
    for run_id in run_ids:
        if (run := instance.get_run_by_id(run_id)) is not None:
            instance.report_run_failed(
                run, "The run has no session with PostgreSQL: its process is frozen, cut off, gone, or never started."
            )


def _cancel_superseded(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> None:
    """Cancel runs whose process has not started. A process that starts later sees the status and ends."""
    for run_id in run_ids:
        run = instance.get_run_by_id(run_id)
        if run is not None and run.status in (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING):
            instance.report_run_canceled(run, message="Another run takes the shard: this run has not started.")


def _report(context: dg.SensorEvaluationContext, memory: SensorMemory, name: str, error: IngestError) -> None:
    """Report a stream's error in its checks."""
    checks = memory.checks.get(name)
    if checks is None or isinstance(error, AwaitedTopic):
        return
    if isinstance(error, DataLoss | TopicChanged | TopicMissing):
        checks.after_loss(context.instance, error)
    else:
        checks.after_failure(context.instance, error)


def _note_fruitless(stream_contexts: Sequence[StreamContext], view: View, message: str) -> None:
    """Among several streams, only those with lag suffer from fruitless runs."""
    for stream_context, stream in zip(stream_contexts, view.streams, strict=True):
        if stream.failure != message and (len(view.streams) == 1 or any(stream.lag.values())):
            stream_context.ledger.note_failure(message, stops=False)


def _in_turn(start_queue: StartQueue, job: str, decision: Decision, starting: int) -> Decision:
    """The decision without the launches that have to wait for their turn."""
    launches = start_queue.admit(job, decision.launches, starting)
    waiting = [launch.shard for launch in decision.launches if launch not in launches]
    reasons = [f"shard {shard} waits for the starts of other runs" for shard in waiting]
    return replace(decision, launches=launches, skip_reasons=[*decision.skip_reasons, *reasons])


def _observe(
    context: dg.SensorEvaluationContext,
    stream_contexts: Sequence[StreamContext],
    memory: SensorMemory,
    reading: Reading,
) -> tuple[list[dg.AssetObservation], dict[str, Any]]:
    """(observations, entry of the cursor). An outage during the observation must not delay a launch.

    The only stream of a job keeps its last look in the cursor. Of several streams, the ones with changed offsets are
    observed, a few in a tick.
    """
    now = reading.view.now
    if len(stream_contexts) == 1:
        last_look = LastLook(**load(context.cursor).get("observed", {}))
        observations, look = _observe_topic(context, stream_contexts[0], last_look, now)
        return observations, {"observed": asdict(look)}
    observations = []
    by_name = {stream_context.stream.name: stream_context for stream_context in stream_contexts}
    looks = {name: memory.looks.get(name, LastLook()) for name in reading.offsets}
    due = [
        name
        for name, offsets in reading.offsets.items()
        if looks[name].due(now) and memory.observed_offsets.get(name) != offsets
    ]
    for name in sorted(due, key=lambda name: looks[name].seconds)[:OBSERVED_TOPICS]:
        seen, memory.looks[name] = _observe_topic(context, by_name[name], looks[name], now)
        observations += seen
        if memory.looks[name] != looks[name]:
            memory.observed_offsets[name] = reading.offsets[name]
    return observations, {}


def _observe_topic(
    context: dg.SensorEvaluationContext, stream_context: StreamContext, last_look: LastLook, now: float
) -> tuple[list[dg.AssetObservation], LastLook]:
    """The next tick observes again after an outage."""
    try:
        return observe(stream_context.topic, stream_context.ledger, topic_key(stream_context), last_look, now=now)
    except EnvironmentFault as fault:
        context.log.warning(f"the topic is observed at the next tick: {fault.message}")
        return [], last_look


def _request(launch: Launch, stream_contexts: Sequence[StreamContext], view: View) -> dg.RunRequest:
    first = stream_contexts[0]
    run_tags = {
        **tags.drain_tags(first.stream.job, [stream_context.stream for stream_context in stream_contexts]),
        tags.SHARD: str(launch.shard),
        tags.DEFINITION: view.definition,
        tags.MAX_RUNTIME: str(max_runtime(first.job_settings.run_max_seconds, view.patience.lead)),
    }
    if launch.successor is not None:
        run_tags[tags.SUCCESSOR] = launch.successor
    return dg.RunRequest(tags=run_tags)


def _starts_here(instance: InstanceRef | None) -> bool:
    """Whether runs start on this machine, as processes of Dagster's default launcher.

    The reference is enough. The instance itself would open its storage.
    """
    launcher = instance.run_launcher_data if instance is not None else None
    return launcher is None or launcher.class_name == dg.DefaultRunLauncher.__name__
