"""Pause and resume a stream from the UI. The CLI makes the same calls."""

import dagster as dg
from pydantic import Field

from ...operations.stream_context import StreamContext
from .operation import Operation, Outcome, by_run


class PauseConfig(dg.Config):
    """Why the stream is paused."""

    reason: str = Field(default="in the UI", description="Shown in the sensor's skip reason and in status.")


def _would_pause(stream_context: StreamContext, config: PauseConfig) -> Outcome:
    name, state = stream_context.stream.name, stream_context.ledger.state()
    now = f"{name} is paused already: {state.reason}" if state.paused else f"{name} is not paused"
    return Outcome([now, f"the runs of {name} would stop within a batch. Reason: {config.reason}"])


def _pause(stream_context: StreamContext, config: PauseConfig, context: dg.OpExecutionContext) -> Outcome:
    ledger = stream_context.ledger
    ledger.prepare()
    ledger.pause(config.reason, by_run(context))
    return Outcome([f"{stream_context.stream.name} is paused: {config.reason}"])


def _would_resume(stream_context: StreamContext, _config: dg.Config) -> Outcome:
    name, state = stream_context.stream.name, stream_context.ledger.state()
    if not state.paused:
        return Outcome([f"{name} is not paused"])
    return Outcome([f"{name} would go on. It is paused by {state.paused_by}: {state.reason}"])


def _resume(stream_context: StreamContext, _config: dg.Config, _context: dg.OpExecutionContext) -> Outcome:
    ledger = stream_context.ledger
    ledger.prepare()
    ledger.resume()
    return Outcome([f"{stream_context.stream.name} goes on. Its sensor launches a run within seconds"])


PAUSE = Operation(
    "pause_stream",
    "Stop a stream within a batch, on every machine, until it is resumed.",
    PauseConfig,
    look=_would_pause,
    act=_pause,
)
RESUME = Operation(
    "resume_stream",
    "Let a paused stream go on. Its sensor launches a run.",
    dg.Config,
    look=_would_resume,
    act=_resume,
)
