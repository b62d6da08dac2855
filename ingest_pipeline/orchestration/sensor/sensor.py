"""One sensor a stream: it looks at lag and at who drains, and launches runs. It consumes nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict

import dagster as dg
from dagster._core.instance.ref import InstanceRef

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
from ..patience import OTHER_STARTING_SECONDS, learned, max_runtime
from ..run_history import views_of_runs
from ..view import STARTING_SECONDS, Launch, View
from .cursor import by_this_clock, moved_at, runs_seen, sights, stored
from .decide import decide
from .idle_poll import IdlePoll
from .runless_checks import RunlessChecks
from .topic_observation import Look, observe

RECENT_RUNS = 12
"""For each shard: enough failures in a row to reach the longest back-off."""
TICK_SECONDS = 60.0
"""How often the ledger is told that the sensor looks."""


def stream_sensor(stream_context: StreamContext) -> dg.SensorDefinition:
    """`<stream>_sensor`, on by default. It looks every POLL_SECONDS, several times a tick where that is short."""
    stream, settings = stream_context.stream, stream_context.settings
    unattended = RunlessChecks(stream_context)
    watch = WaitWatch(settings.max_delay_seconds)

    @dg.sensor(
        name=tags.sensor_name(stream),
        job_name=tags.job_name(stream),
        minimum_interval_seconds=settings.poll_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Launches a run for every shard of topic {stream.topic} that has lag and no live drainer.",
    )
    def poll(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        by_daemon = context.log_key is not None  # a test of the sensor by hand is to be answered at once
        vigil = IdlePoll(context.instance_ref if by_daemon else None, settings.poll_seconds)
        try:
            starting = _starting_seconds(context.instance_ref, stream_context.clients.settings.run_start_seconds)
            return tick(context, stream_context, unattended, vigil, starting, watch)
        except (DataLoss, TopicChanged) as error:
            unattended.after_loss(context.instance, error)
            raise dg.Failure(description=error.message) from None
        except TopicMissing as error:
            unattended.after_loss(context.instance, error)
            return dg.SkipReason(error.message)
        except IngestError as error:
            unattended.after_failure(context.instance, error)
            raise dg.Failure(description=error.message) from None

    return poll


def tick(
    context: dg.SensorEvaluationContext,
    stream_context: StreamContext,
    unattended: RunlessChecks | None = None,
    vigil: IdlePoll | None = None,
    starting_seconds: float = STARTING_SECONDS,
    watch: WaitWatch | None = None,
) -> dg.SensorResult | dg.SkipReason:
    """One look, one decision; now and then an observation of the topic.

    Args:
        unattended: to be told where no run is at work.
        vigil: what to do until the next tick where there is nothing to do; None: nothing.
        starting_seconds: how long a run may take to start, where recent ones were not slower.
        watch: notes since when records wait. None: that is not noted.

    Raises:
        TopicMissing: the topic of a stream that has begun is gone; one that never was is waited for.
        IngestError: Kafka or PostgreSQL did not answer, or somebody has to act; the next tick tries again.
    """
    try:
        no_run_lately = unattended is not None and unattended.is_well()
        view = look(context, stream_context, no_run_lately, vigil, starting_seconds, watch)
    except TopicMissing as error:
        if known := stream_context.ledger.positions():
            raise topic_gone(error, len(known), stream_context.stream.name) from error
        _remember_absence(stream_context)
        return dg.SkipReason(f"{error.message}; waiting for it")
    if unattended is not None:
        unattended.after_answer()
    decision = decide(view)
    for run_id in decision.failed_ghosts:
        if (run := context.instance.get_run_by_id(run_id)) is not None:
            context.instance.report_run_failed(
                run,
                "The run has no session with PostgreSQL: its process is frozen, cut off, gone, or never came to be.",
            )
    if decision.fruitless not in (None, view.failure):
        stream_context.ledger.note_failure(decision.fruitless, stops=False)
    requests = [_request(launch, stream_context, view) for launch in decision.launches]
    if unattended is not None and view.runs_asked:
        at_work = bool(requests or view.active or view.owners)
        unattended.after(context.instance, at_work, waiting=any(view.lag.values()))
    observations, seen = _observe(context, stream_context, view.now)
    return dg.SensorResult(
        run_requests=requests,
        skip_reason="; ".join(decision.said) if decision.said and not requests else None,
        cursor=json.dumps(
            {"ghosts": decision.ghosts_seen, "look": asdict(seen), **runs_seen(context.cursor, view, decision)}
        ),
        asset_events=observations,
    )


def look(
    context: dg.SensorEvaluationContext,
    stream_context: StreamContext,
    no_run_lately: bool = False,
    vigil: IdlePoll | None = None,
    starting_seconds: float = STARTING_SECONDS,
    watch: WaitWatch | None = None,
) -> View:
    """Everything `decide` needs: the ledger first, then Kafka, then Dagster.

    Args:
        no_run_lately: no run was there a while ago. While there is nothing to do either, Dagster is not asked. It opens
            its storage again for each tick that asks, which is most of what an idle tick costs.
        vigil: kept while there is nothing to do; what follows is seen by another look.
        starting_seconds, watch: see `tick`.
    """
    now = time.time()  # of what is seen: a vigil may follow, and a ghost is not older for that
    stream, settings = stream_context.stream, stream_context.settings
    ledger, topic = stream_context.ledger, stream_context.topic
    snapshot = ledger.snapshot()
    known, state, owners = snapshot.positions, snapshot.state, snapshot.owners
    ticked_at = by_this_clock(state.ticked_at, state, now)
    if known and now - ticked_at >= TICK_SECONDS:
        ledger.note_tick()
    identity = topic.identity()
    partitions = range(identity.partitions)
    ends = topic.end_offsets(partitions)
    lost = _losses(identity, topic, snapshot, ends)
    if lost and settings.on_data_loss == "stop":
        for loss in lost:
            if not loss.cause.is_another_topic:
                ledger.note_loss(loss)
        raise as_error(lost, stream.name)
    starts = {p: known[p].next_offset if p in known else 0 for p in partitions}
    lag = {p: max(0, ends[p].next_offset - starts[p]) for p in sorted(ends)}
    if known and watch is not None and (waiting := watch.look(known, lag, state)) is not None:
        ledger.note_waiting(waiting)
    idle = known.keys() >= ends.keys() and not (any(lag.values()) or owners.holders or lost)
    paused = paused_words(state)
    if vigil is not None and idle and paused is None and vigil.sees_news(topic, ends):
        return look(context, stream_context, no_run_lately, None, starting_seconds, watch)
    runs_asked = not (no_run_lately and idle)
    limit = RECENT_RUNS * settings.parallelism
    active, recent = views_of_runs(context.instance, stream, limit) if runs_asked else ([], [])
    kept = stored(context.cursor)
    return View(
        now=now,
        parallelism=settings.parallelism,
        definition=tags.definition_of(stream, stream_context.clients.settings),
        run_max_seconds=settings.run_max_seconds,
        lag=lag,
        begun=set(known),
        lost=bool(lost),
        acted_at=by_this_clock(state.acted_at, state, now),
        owners={p: holder.run_id for p, holder in owners.holders.items() if not holder.frozen},
        named={at.run_id for at in known.values() if at.run_id is not None},
        present=set(owners.present) - {holder.run_id for holder in owners.holders.values() if holder.frozen},
        active=active,
        recent=recent,
        progress_at=moved_at(known, state, now),
        paused=paused,
        ghosts_seen=kept.get("ghosts", {}),
        runs_asked=runs_asked,
        sights=sights(kept),
        looked_at=kept.get("looked_at"),
        patience=learned([*active, *recent], starting_seconds, settings.run_max_seconds),
        failure=state.failure,
        unanswered=unanswered(identity, ends),
    )


def _losses(
    identity: TopicIdentity, topic: Topic, snapshot: LedgerSnapshot, ends: Mapping[int, NextOffset]
) -> list[Loss]:
    """Kafka is asked for the log's bounds only where no run drains and the position is not at the end."""
    known = snapshot.positions
    starts, highs = log_bounds(topic, known, ends, known.keys() - snapshot.owners.holders.keys())
    return find_losses(identity, topic.name, known, noted=snapshot.losses, starts=starts, highs=highs)


def _observe(
    context: dg.SensorEvaluationContext, stream_context: StreamContext, now: float
) -> tuple[list[dg.AssetObservation], Look]:
    """An outage that begins just now must not hold a launch back: the next tick looks again."""
    last = Look(**stored(context.cursor).get("look", {}))
    try:
        return observe(stream_context.topic, stream_context.ledger, topic_key(stream_context), last, now)
    except EnvironmentFault as fault:
        context.log.warning(f"the topic is observed at the next tick: {fault.message}")
        return [], last


def _request(launch: Launch, stream_context: StreamContext, view: View) -> dg.RunRequest:
    settings = stream_context.settings
    lead = view.patience.lead if view.patience is not None else 0.0
    found = {
        tags.STREAM: stream_context.stream.name,
        tags.SHARD: str(launch.shard),
        tags.DEFINITION: view.definition,
        tags.MAX_RUNTIME: str(max_runtime(settings.run_max_seconds, lead)),
    }
    if launch.successor is not None:
        found[tags.SUCCESSOR] = launch.successor
    return dg.RunRequest(tags=found)


def _starting_seconds(instance: InstanceRef | None, wanted: int) -> float:
    """RUN_START_SECONDS, or what suits the launcher. Dagster's default one makes a process on its own machine.

    The instance itself is not asked: it would open its storage.
    """
    launcher = instance.run_launcher_data if instance is not None else None
    default = launcher is None or launcher.class_name == dg.DefaultRunLauncher.__name__
    return wanted or (STARTING_SECONDS if default else OTHER_STARTING_SECONDS)


def _remember_absence(stream_context: StreamContext) -> None:
    """START_FROM must not skip what is written between the topic's appearance and the first look at it."""
    if stream_context.settings.start_from != "earliest":
        ledger = stream_context.ledger
        ledger.prepare()
        ledger.await_topic()
