"""A stream's sensor: compares lag with the runs that drain and launches runs. The sensor consumes no records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

import dagster as dg
from dagster._core.instance.ref import InstanceRef

from ...core.choices import OnDataLoss
from ...core.errors import DataLoss, EnvironmentFault, IngestError, TopicChanged, TopicMissing
from ...core.ledger import LedgerSnapshot
from ...core.loss import Loss, as_error, find_losses, topic_gone
from ...core.ports import Topic
from ...core.record import NextOffset, TopicIdentity
from ...core.start import log_bounds, unanswered
from ...operations.judgement import paused_words
from ...operations.stream_context import StreamContext
from ...operations.waiting import WaitWatch
from .. import tags
from ..asset_keys import topic_key
from ..patience import OTHER_STARTING_SECONDS, learned_patience, max_runtime
from ..run_history import views_of_runs
from ..view import STARTING_SECONDS, Launch, View
from .cursor import last_statuses, load, progress_times, runs_memory, to_own_clock
from .decide import decide
from .idle_poll import IdlePoll
from .runless_checks import RunlessChecks
from .topic_observation import LastLook, observe

RECENT_RUNS = 12
"""Per shard. Enough failures in a row for the longest back-off."""
TICK_SECONDS = 60.0
"""Interval for noting in the ledger that the sensor ticks."""


def stream_sensor(stream_context: StreamContext) -> dg.SensorDefinition:
    """`<stream>_sensor`, on by default. A short POLL_SECONDS leads to several polls a tick."""
    stream, job_settings, clock = stream_context.stream, stream_context.job_settings, stream_context.clients.clock
    runless_checks = RunlessChecks(stream_context)
    wait_watch = WaitWatch(stream_context.settings.max_delay_seconds, clock)

    @dg.sensor(
        name=tags.sensor_name(stream.job),
        job_name=tags.job_name(stream.job),
        minimum_interval_seconds=job_settings.poll_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Launches a run for every shard of topic {stream.topic} that has lag and no live drainer.",
    )
    def poll(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        by_daemon = context.log_key is not None  # a manual test of the sensor needs its answer at once
        idle_poll = IdlePoll(context.instance_ref if by_daemon else None, job_settings.poll_seconds, clock)
        try:
            starting = _starting_seconds(context.instance_ref, stream_context.clients.settings.run_start_seconds)
            return tick(context, stream_context, runless_checks, idle_poll, starting, wait_watch)
        except (DataLoss, TopicChanged) as error:
            runless_checks.after_loss(context.instance, error)
            raise dg.Failure(description=error.message) from None
        except TopicMissing as error:
            runless_checks.after_loss(context.instance, error)
            return dg.SkipReason(error.message)
        except IngestError as error:
            runless_checks.after_failure(context.instance, error)
            raise dg.Failure(description=error.message) from None

    return poll


def tick(
    context: dg.SensorEvaluationContext,
    stream_context: StreamContext,
    runless_checks: RunlessChecks | None = None,
    idle_poll: IdlePoll | None = None,
    starting_seconds: float = STARTING_SECONDS,
    wait_watch: WaitWatch | None = None,
) -> dg.SensorResult | dg.SkipReason:
    """Reads the stream's state, decides, and observes the topic from time to time.

    Args:
        runless_checks: None: the checks are not reported.
        idle_poll: polls an idle topic until the next tick. None: no polling.
        starting_seconds: the least seconds to wait for a run's start.
        wait_watch: notes since when records wait. None: the waits are not noted.

    Raises:
        TopicMissing: the topic is gone, and the stream has begun. Before its beginning a stream waits for the topic.
        IngestError: Kafka or PostgreSQL did not answer, or an operator has to act. The next tick tries again.
    """
    try:
        recently_idle = runless_checks is not None and runless_checks.recently_idle()
        view = read_view(context, stream_context, recently_idle, idle_poll, starting_seconds, wait_watch)
    except TopicMissing as error:
        if positions := stream_context.ledger.positions():
            raise topic_gone(error, len(positions), stream_context.stream.name) from error
        _note_missing_topic(stream_context)
        return dg.SkipReason(f"{error.message}; waiting for it")
    if runless_checks is not None:
        runless_checks.servers_answered()
    decision = decide(view)
    for run_id in decision.failed_ghosts:
        if (run := context.instance.get_run_by_id(run_id)) is not None:
            context.instance.report_run_failed(
                run,
                "The run has no session with PostgreSQL: its process is frozen, cut off, gone, or never started.",
            )
    if decision.fruitless not in (None, view.failure):
        stream_context.ledger.note_failure(decision.fruitless, stops=False)
    requests = [_request(launch, stream_context, view) for launch in decision.launches]
    if runless_checks is not None and view.runs_read:
        has_runs = bool(requests or view.active or view.owners)
        runless_checks.after_tick(context.instance, has_runs=has_runs, has_lag=any(view.lag.values()))
    observations, look = _observe(context, stream_context, view.now)
    return dg.SensorResult(
        run_requests=requests,
        skip_reason="; ".join(decision.skip_reasons) if decision.skip_reasons and not requests else None,
        cursor=json.dumps(
            {"ghosts": decision.ghosts_seen, "observed": asdict(look), **runs_memory(context.cursor, view, decision)}
        ),
        asset_events=observations,
    )


def read_view(
    context: dg.SensorEvaluationContext,
    stream_context: StreamContext,
    recently_idle: bool = False,
    idle_poll: IdlePoll | None = None,
    starting_seconds: float = STARTING_SECONDS,
    wait_watch: WaitWatch | None = None,
) -> View:
    """The input of `decide`, from the ledger first, then Kafka, then Dagster.

    Args:
        recently_idle: a recent tick saw no run. If the stream is still idle, Dagster is not asked for runs, because
            Dagster opens its storage for every such tick. Opening takes most of an idle tick's time.
        idle_poll: polls an idle topic. After a change everything is read again.
        starting_seconds, wait_watch: see `tick`.
    """
    now = stream_context.clients.clock.time()  # before the poll, which must not make ghosts look older
    stream, job_settings = stream_context.stream, stream_context.job_settings
    ledger, topic = stream_context.ledger, stream_context.topic
    snapshot = ledger.snapshot()
    positions, state, owners = snapshot.positions, snapshot.state, snapshot.owners
    ticked_at = to_own_clock(state.ticked_at, state, now)
    if positions and now - ticked_at >= TICK_SECONDS:
        ledger.note_tick()
    identity = topic.identity()
    partitions = range(identity.partitions)
    ends = topic.end_offsets(partitions)
    losses = _losses(identity, topic, snapshot, ends)
    if losses and stream_context.settings.on_data_loss == OnDataLoss.STOP:
        for loss in losses:
            if not loss.cause.is_another_topic:
                ledger.note_loss(loss)
        raise as_error(losses, stream.name)
    starts = {p: positions[p].next_offset if p in positions else 0 for p in partitions}
    lag = {p: max(0, ends[p].next_offset - starts[p]) for p in sorted(ends)}
    if positions and wait_watch is not None and (waiting := wait_watch.look(positions, lag, state)) is not None:
        ledger.note_waiting(waiting)
    idle = positions.keys() >= ends.keys() and not (any(lag.values()) or owners.holders or losses)
    paused = paused_words(state)
    if idle_poll is not None and idle and paused is None and idle_poll.ends_changed(topic, ends):
        return read_view(context, stream_context, recently_idle, None, starting_seconds, wait_watch)
    runs_read = not (recently_idle and idle)
    limit = RECENT_RUNS * job_settings.parallelism
    active, recent = views_of_runs(context.instance, stream, limit) if runs_read else ([], [])
    memory = load(context.cursor)
    return View(
        now=now,
        parallelism=job_settings.parallelism,
        definition=tags.definition_of(stream, stream_context.clients.settings),
        run_max_seconds=job_settings.run_max_seconds,
        lag=lag,
        begun=set(positions),
        lost=bool(losses),
        acted_at=to_own_clock(state.acted_at, state, now),
        owners={p: holder.run_id for p, holder in owners.holders.items() if not holder.frozen},
        recorded_owners={position.run_id for position in positions.values() if position.run_id is not None},
        connected=set(owners.present) - {holder.run_id for holder in owners.holders.values() if holder.frozen},
        active=active,
        recent=recent,
        progress_at=progress_times(positions, state, now),
        paused=paused,
        ghosts_seen=memory.get("ghosts", {}),
        runs_read=runs_read,
        last_statuses=last_statuses(memory),
        runs_read_at=memory.get("looked_at"),
        patience=learned_patience([*active, *recent], starting_seconds, job_settings.run_max_seconds),
        failure=state.failure,
        unanswered=unanswered(identity, ends),
    )


def _losses(
    identity: TopicIdentity, topic: Topic, snapshot: LedgerSnapshot, ends: Mapping[int, NextOffset]
) -> list[Loss]:
    """Asks Kafka for the log's bounds only where no run drains and the position is not at the end."""
    positions = snapshot.positions
    starts, highs = log_bounds(topic, positions, ends, positions.keys() - snapshot.owners.holders.keys())
    return find_losses(identity, topic.name, positions, noted=snapshot.losses, starts=starts, highs=highs)


def _observe(
    context: dg.SensorEvaluationContext, stream_context: StreamContext, now: float
) -> tuple[list[dg.AssetObservation], LastLook]:
    """An outage during the observation must not delay a launch. The next tick observes again."""
    last_look = LastLook(**load(context.cursor).get("observed", {}))
    try:
        return observe(stream_context.topic, stream_context.ledger, topic_key(stream_context), last_look, now)
    except EnvironmentFault as fault:
        context.log.warning(f"the topic is observed at the next tick: {fault.message}")
        return [], last_look


def _request(launch: Launch, stream_context: StreamContext, view: View) -> dg.RunRequest:
    lead = view.patience.lead if view.patience is not None else 0.0
    run_tags = {
        tags.STREAM: stream_context.stream.name,
        tags.SHARD: str(launch.shard),
        tags.DEFINITION: view.definition,
        tags.MAX_RUNTIME: str(max_runtime(stream_context.job_settings.run_max_seconds, lead)),
    }
    if launch.successor is not None:
        run_tags[tags.SUCCESSOR] = launch.successor
    return dg.RunRequest(tags=run_tags)


def _starting_seconds(instance: InstanceRef | None, configured: int) -> float:
    """RUN_START_SECONDS, or the launcher's default. Dagster's default launcher starts a process on its own machine.

    The reference is enough. The instance itself would open its storage.
    """
    launcher = instance.run_launcher_data if instance is not None else None
    default = launcher is None or launcher.class_name == dg.DefaultRunLauncher.__name__
    return configured or (STARTING_SECONDS if default else OTHER_STARTING_SECONDS)


def _note_missing_topic(stream_context: StreamContext) -> None:
    """START_FROM must not skip records written between the topic's creation and the first tick after the creation."""
    if stream_context.settings.start_from != "earliest":
        ledger = stream_context.ledger
        ledger.prepare()
        ledger.await_topic()
