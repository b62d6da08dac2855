"""The operations that an operator may launch from the UI."""

from dataclasses import asdict

import dagster as dg
from pydantic import Field

from ...core.end_reasons import EndReason
from ...operations.losses import accept, acceptable, dismiss, loss_lines, parse_start
from ...operations.problems import what_follows
from ...operations.replays import ReplayRequest, ranges, run_replay
from ...operations.stream_context import StreamContext
from ..run.stop_signal import StopRequest
from .dead_letters import (
    AllowConfig,
    LetterConfig,
    acknowledge_dead_letters,
    allow_dead_letters,
    discard_dead_letters,
    redrive_dead_letters,
)
from .operation import Operation, OperationConfig, Outcome, by_run, optional_time


class ReplayConfig(OperationConfig):
    """A range of offsets of one partition, or of times of one or all."""

    partition: int | None = Field(default=None, description="Needed with offsets. With times the default is all.")
    from_offset: int | None = Field(default=None, description="The first offset.")
    to_offset: int | None = Field(default=None, description="The offset behind the last one.")
    from_time: str = Field(default="", description="ISO 8601, by Kafka's timestamps. UTC without a zone.")
    to_time: str = Field(default="", description="Up to, but not including.")


def replay(stream_context: StreamContext, config: ReplayConfig, context: dg.OpExecutionContext) -> Outcome:
    """Read a range from Kafka again and store the missing rows. Rows that exist, positions and counters stay."""
    request = ReplayRequest(
        config.partition,
        config.from_offset,
        config.to_offset,
        from_time=optional_time(config.from_time),
        to_time=optional_time(config.to_time),
    )
    chosen = ranges(request, stream_context)
    lines = list(map(str, chosen))
    if config.dry_run:
        return Outcome(lines, {"offsets": sum(map(len, chosen))})
    for line in lines:
        context.log.info(line)
    with StopRequest(context.instance, context.run_id) as stop:
        counts = asdict(run_replay(chosen, stream_context, stop=stop.reason))
    lines = [", ".join(f"{count:,} {what}" for what, count in counts.items())]
    return Outcome(lines, counts, interrupted=stop.reason() == EndReason.TERMINATED)


class AcceptLossConfig(OperationConfig):
    """Which loss, and where to continue."""

    partition: int | None = Field(default=None, description="Only this partition. Without it all that lost offsets.")
    start: str = Field(default="", description="earliest (the default), latest, an offset or an ISO 8601 time.")
    dismiss: bool = Field(default=False, description="Forget a mistaken loss, and continue at the position.")


def accept_loss(stream_context: StreamContext, config: AcceptLossConfig, context: dg.OpExecutionContext) -> Outcome:
    """Record the offsets that were lost in Kafka as gaps, and let the stream continue behind them."""
    stream, ledger = stream_context.stream, stream_context.ledger
    if config.dismiss and config.dry_run:
        noted = [loss for loss in ledger.losses() if config.partition in (None, loss.partition)]
        return Outcome([f"would be forgotten: {loss.description}" for loss in noted], {"losses": len(noted)})
    if config.dismiss:
        return Outcome([dismiss(stream_context, config.partition)])
    start = parse_start(config.start) if config.start else None
    survey, acceptances = acceptable(stream_context, config.partition, start)
    lines = loss_lines(stream_context, survey, acceptances)
    if acceptances and not config.dry_run:
        accept(stream_context, acceptances, survey.identity, by=by_run(context))
        lines.append(f"accepted: {what_follows(stream, ledger.state())}")
    return Outcome(lines, {"losses": len(acceptances)})


class PauseConfig(OperationConfig):
    """Why the stream is paused."""

    reason: str = Field(default="in the UI", description="Shown in the sensor's skip reason and in status.")


def pause_stream(stream_context: StreamContext, config: PauseConfig, context: dg.OpExecutionContext) -> Outcome:
    """Stop a stream within a batch, on every machine, until it is resumed."""
    name, ledger = stream_context.stream.name, stream_context.ledger
    if config.dry_run:
        state = ledger.state()
        now = f"{name} is paused already: {state.reason}" if state.paused else f"{name} is not paused"
        return Outcome([now, f"the runs of {name} would stop within a batch. Reason: {config.reason}"])
    ledger.pause(config.reason, by_run(context))
    return Outcome([f"{name} is paused: {config.reason}"])


def resume_stream(stream_context: StreamContext, config: OperationConfig, _context: dg.OpExecutionContext) -> Outcome:
    """Let a paused stream go on. Its sensor launches a run."""
    name, ledger = stream_context.stream.name, stream_context.ledger
    if config.dry_run:
        state = ledger.state()
        if not state.paused:
            return Outcome([f"{name} is not paused"])
        return Outcome([f"{name} would go on. It is paused by {state.paused_by}: {state.reason}"])
    ledger.resume()
    return Outcome([f"{name} goes on: {what_follows(stream_context.stream, ledger.state())}"])


OPERATIONS: dict[Operation, type[OperationConfig]] = {
    pause_stream: PauseConfig,
    resume_stream: OperationConfig,
    accept_loss: AcceptLossConfig,
    redrive_dead_letters: LetterConfig,
    discard_dead_letters: LetterConfig,
    allow_dead_letters: AllowConfig,
    acknowledge_dead_letters: OperationConfig,
    replay: ReplayConfig,
}
