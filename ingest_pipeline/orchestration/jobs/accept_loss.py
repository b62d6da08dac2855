"""Accept lost offsets from the UI. The CLI makes the same calls."""

import dagster as dg
from pydantic import Field

from ...core.loss import Acceptance
from ...core.start import Survey
from ...operations.losses import accept, acceptable, loss_lines, parse_start
from ...operations.stream_context import StreamContext
from .operation import Operation, Outcome, by_run


class AcceptLossConfig(dg.Config):
    """Which loss, and where to continue."""

    partition: int | None = Field(default=None, description="Only this partition. Without it all that lost offsets.")
    start: str = Field(default="", description="earliest (the default), latest, an offset or an ISO 8601 time.")
    dismiss: bool = Field(default=False, description="Forget a mistaken loss, and continue at the position.")


def _examined(stream_context: StreamContext, config: AcceptLossConfig) -> tuple[Survey, list[Acceptance]]:
    start = parse_start(config.start) if config.start else None
    return acceptable(stream_context, config.partition, start)


def _would_accept(stream_context: StreamContext, config: AcceptLossConfig) -> Outcome:
    if config.dismiss:
        noted = [loss for loss in stream_context.ledger.losses() if config.partition in (None, loss.partition)]
        return Outcome([f"would be forgotten: {loss.description}" for loss in noted], {"losses": len(noted)})
    survey, acceptances = _examined(stream_context, config)
    return Outcome(loss_lines(stream_context, survey, acceptances), {"losses": len(acceptances)})


def _accept(stream_context: StreamContext, config: AcceptLossConfig, context: dg.OpExecutionContext) -> Outcome:
    name = stream_context.stream.name
    if config.dismiss:
        stream_context.ledger.forget_losses(config.partition)
        return Outcome([f"the loss is forgotten. The sensor of {name} looks again"])
    survey, acceptances = _examined(stream_context, config)
    lines = loss_lines(stream_context, survey, acceptances)
    if acceptances:
        accept(stream_context, acceptances, survey.identity, by=by_run(context))
        lines.append(f"accepted: the sensor of {name} launches a run within seconds")
    return Outcome(lines, {"losses": len(acceptances)})


ACCEPT_LOSS = Operation(
    "accept_loss",
    "Record the offsets that were lost in Kafka as gaps, and let the stream continue behind them.",
    AcceptLossConfig,
    look=_would_accept,
    act=_accept,
)
