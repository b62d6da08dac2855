"""Losses of a stream in a run: those that earlier runs noted, and those that this run meets."""

from collections.abc import Callable

from ...core.choices import OnDataLoss
from ...core.errors import DataLoss, IngestError, TopicChanged
from ...core.lane import Lane
from ...core.ledger_ports import Ledger
from ...core.loss import as_error, unverified
from ...operations.losses import accept_unasked, consequence, loss_of
from ...operations.stream_context import StreamContext


def settle_losses(
    stream_context: StreamContext, *, stop: Callable[[], str | None], warn: Callable[[str], None]
) -> None:
    """Stop at a noted loss, or accept the loss and continue, as ON_DATA_LOSS says. Raises DataLoss."""
    topic, ledger = stream_context.topic, stream_context.ledger
    if stream_context.settings.on_data_loss == OnDataLoss.CONTINUE:
        for accepted in accept_unasked(stream_context, topic, ledger, stop):
            warn(f"{accepted.loss.description}; {consequence(accepted)}")
    elif noted := ledger.losses():
        raise as_error(noted, stream_context.stream.name)


def explained(error: IngestError, lane: Lane, ledger: Ledger) -> IngestError:
    """Note a reader's loss, and add what is known of records that may belong to another topic."""
    partition = error.partition
    if isinstance(error, DataLoss) and partition is not None and partition in lane.session.positions:
        loss = loss_of(error, lane.session.positions[partition])
        ledger.note_loss(loss)
        return as_error([loss], lane.stream)
    if isinstance(error, TopicChanged):
        taken = unverified(lane.verified, lane.progress.to_offsets)
        return TopicChanged(error.message + taken, **error.where)
    return error
