"""Reads what a tick decides on: the ledger of all streams first, then Kafka, then Dagster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import dagster as dg

from ...core.choices import OnDataLoss
from ...core.errors import EnvironmentFault, IngestError, TopicMissing
from ...core.find_losses import find_losses
from ...core.ledger import LedgerSnapshot
from ...core.loss import as_error, topic_gone
from ...core.record import NextOffset, TopicIdentity
from ...core.start import unanswered
from ...operations.judgement import paused_words
from ...operations.stream_context import StreamContext
from ...operations.waiting import Waiting
from .. import tags
from ..patience import learned_patience
from ..run_history import RunViews, views_of_runs
from ..view import STARTING_SECONDS, StreamView, View
from .cursor import last_statuses, load, progress_times, to_own_clock
from .idle_poll import IdlePoll
from .memory import SensorMemory
from .topic_answers import end_offsets, identities, log_bounds

RECENT_RUNS = 12
"""Per shard. Enough failures in a row for the longest back-off."""
TICK_SECONDS = 60.0
"""Interval for noting in the ledger that the sensor ticks."""


class AwaitedTopic(TopicMissing):
    """A stream that has not begun waits for its topic."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The input of `decide`, and what else the tick needs.

    Attributes:
        errors: stream → why no run can drain the stream.
        offsets: stream → next offsets and ends. Unchanged offsets need no new observation.
    """

    view: View
    errors: Mapping[str, IngestError] = field(default_factory=dict)
    offsets: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _StreamReading:
    """`waiting`: see WaitWatch.look."""

    view: StreamView
    idle: bool
    offsets: int
    waiting: Mapping[int, Waiting] | None


def read(
    context: dg.SensorEvaluationContext,
    stream_contexts: Sequence[StreamContext],
    memory: SensorMemory,
    *,
    idle_poll: IdlePoll | None = None,
    starting_seconds: float = STARTING_SECONDS,
) -> Reading:
    """Look at every server once.

    A recent tick may have seen no run. If the streams are still idle, Dagster is not asked for runs, because Dagster
    opens its storage for every such tick. Opening takes most of an idle tick's time.

    Args:
        stream_contexts: ordered by name.
        idle_poll: polls idle topics. After a change everything is read again.

    Raises:
        EnvironmentFault: Kafka or PostgreSQL did not answer.
    """
    first = stream_contexts[0]
    clients, job, job_settings = first.clients, first.stream.job, first.job_settings
    streams = [stream_context.stream for stream_context in stream_contexts]
    now = clients.clock.time()  # before the poll, which must not make ghosts look older
    ledgers = clients.ledgers(streams)
    snapshots = ledgers.snapshots()
    facts = {name: snapshot for name, snapshot in snapshots.items() if isinstance(snapshot, LedgerSnapshot)}
    silent = [name for name, snapshot in facts.items() if _tick_is_due(snapshot, now)]
    if silent:
        ledgers.note_ticks(silent)
    topics = identities(stream_contexts)
    partitions = {name: range(topic.partitions) for name, topic in topics.items() if isinstance(topic, TopicIdentity)}
    ends = end_offsets(stream_contexts, partitions)
    bounds = log_bounds(stream_contexts, facts, ends)
    readings: dict[str, _StreamReading] = {}
    errors: dict[str, IngestError] = {}
    views: list[StreamView] = []
    for number, stream_context in enumerate(stream_contexts):
        name = stream_context.stream.name
        try:
            reading = _read_stream(
                number,
                stream_context,
                memory,
                snapshot=snapshots[name],
                identity=topics[name],
                ends=ends.get(name, {}),
                bounds=bounds.get(name, ({}, {})),
                now=now,
            )
        except IngestError as error:
            if isinstance(error, EnvironmentFault) and error is not topics[name]:
                raise  # not an answer about this topic alone
            errors[name] = error
            views.append(_in_trouble(number, name, error, snapshot=facts.get(name), now=now))
        else:
            readings[name] = reading
            views.append(reading.view)
    waiting = {name: reading.waiting for name, reading in readings.items() if reading.waiting is not None}
    if waiting:
        ledgers.note_waiting(waiting)
    idle = all(reading.idle for reading in readings.values())
    if idle_poll is not None and idle and readings and not any(reading.view.paused for reading in readings.values()):
        polled = {name: ends[name] for name in readings}
        if idle_poll.ends_changed(
            lambda: _by_partition(end_offsets(stream_contexts, {name: partitions[name] for name in polled})),
            _by_partition(polled),
        ):
            return read(context, stream_contexts, memory, starting_seconds=starting_seconds)
    runs_read = not (idle and readings and memory.recently_idle())
    runs = views_of_runs(context.instance, job, RECENT_RUNS * job_settings.parallelism) if runs_read else RunViews()
    cursor = load(context.cursor)
    holders = [holder for snapshot in facts.values() for holder in snapshot.owners.holders.values()]
    positions = [position for snapshot in facts.values() for position in snapshot.positions.values()]
    present = {run_id for snapshot in facts.values() for run_id in snapshot.owners.present}
    view = View(
        now=now,
        parallelism=job_settings.parallelism,
        definition=tags.definition_of_job(streams, clients.settings),
        streams=views,
        run_max_seconds=job_settings.run_max_seconds,
        recorded_owners={position.run_id for position in positions if position.run_id is not None},
        connected=present - {holder.run_id for holder in holders if holder.frozen},
        active=runs.active,
        recent=runs.recent,
        elsewhere=runs.elsewhere,
        ghosts_seen=cursor.get("ghosts", {}),
        runs_read=runs_read,
        last_statuses=last_statuses(cursor),
        runs_read_at=cursor.get("looked_at"),
        patience=learned_patience([*runs.active, *runs.recent], starting_seconds, job_settings.run_max_seconds),
    )
    return Reading(view, errors, {name: reading.offsets for name, reading in readings.items()})


def _read_stream(
    number: int,
    stream_context: StreamContext,
    memory: SensorMemory,
    *,
    snapshot: LedgerSnapshot | IngestError,
    identity: TopicIdentity | IngestError,
    ends: Mapping[int, NextOffset],
    bounds: tuple[Mapping[int, NextOffset], Mapping[int, NextOffset]],
    now: float,
) -> _StreamReading:
    """Raises IngestError: no run can drain the stream."""
    stream, ledger, (starts, highs) = stream_context.stream, stream_context.ledger, bounds
    if isinstance(snapshot, IngestError):
        raise snapshot
    positions, state, holders = snapshot.positions, snapshot.state, snapshot.owners.holders
    try:
        if isinstance(identity, IngestError):
            raise identity
        losses = find_losses(identity, stream.topic, positions, noted=snapshot.losses, starts=starts, highs=highs)
    except TopicMissing as error:
        if positions:
            raise topic_gone(error, len(positions), stream.name) from error
        # START_FROM must not skip records written between the topic's creation and the first tick behind it.
        if stream_context.settings.start_from != "earliest":
            ledger.await_topic()
        raise AwaitedTopic(f"{error.message}. The sensor waits for the topic", stream=stream.name) from error
    if losses and stream_context.settings.on_data_loss == OnDataLoss.STOP:
        for loss in losses:
            if not loss.cause.is_another_topic:
                ledger.note_loss(loss)
        raise as_error(losses, stream.name)
    next_offsets = {p: positions[p].next_offset if p in positions else 0 for p in range(identity.partitions)}
    lag = {p: max(0, ends[p].next_offset - next_offsets[p]) for p in sorted(ends)}
    wait_watch = memory.waits.get(stream.name)
    waiting = wait_watch.look(positions, lag, state) if positions and wait_watch is not None else None
    view = StreamView(
        stream.name,
        number,
        lag=lag,
        unanswered=unanswered(identity, ends),
        begun=set(positions),
        owners={p: holder.run_id for p, holder in holders.items() if not holder.frozen},
        progress_at=progress_times(positions, state, now),
        paused=paused_words(state),
        lost=bool(losses),
        acted_at=to_own_clock(state.acted_at, state, now),
        failure=state.failure,
        stopped_at=to_own_clock(state.failed_at, state, now) if state.failure_stops else 0.0,
    )
    idle = positions.keys() >= ends.keys() and not (any(lag.values()) or holders or losses)
    stored = tuple(sorted((p, position.next_offset) for p, position in positions.items()))
    offsets = hash((stored, tuple(sorted((p, end.next_offset) for p, end in ends.items()))))
    return _StreamReading(view, idle, offsets, waiting)


def _in_trouble(
    number: int, name: str, error: IngestError, *, snapshot: LedgerSnapshot | None, now: float
) -> StreamView:
    if snapshot is None:
        return StreamView(name, number, trouble=error.message)
    owners = {p: holder.run_id for p, holder in snapshot.owners.holders.items() if not holder.frozen}
    acted_at = to_own_clock(snapshot.state.acted_at, snapshot.state, now)
    return StreamView(
        name,
        number,
        lag=dict.fromkeys(snapshot.positions, 0),
        begun=set(snapshot.positions),
        owners=owners,
        progress_at=progress_times(snapshot.positions, snapshot.state, now),
        trouble=error.message,
        acted_at=acted_at,
    )


def _tick_is_due(snapshot: LedgerSnapshot, now: float) -> bool:
    ticked_at = to_own_clock(snapshot.state.ticked_at, snapshot.state, now)
    return bool(snapshot.positions) and now - ticked_at >= TICK_SECONDS


def _by_partition(ends: Mapping[str, Mapping[int, NextOffset]]) -> dict[tuple[str, int], NextOffset]:
    return {(name, partition): end for name, answers in ends.items() for partition, end in answers.items()}
