"""How run and CLI show losses to an operator, and accept losses under ownership."""

import uuid
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from datetime import datetime

from ..core.errors import DataLoss, KafkaUnavailable, SettingsError, Superseded
from ..core.ledger import HandoverRequest
from ..core.ledger_ports import Ledger
from ..core.loss import Acceptance, Loss, LossCause, noted_loss
from ..core.ownership import take_ownership
from ..core.ports import Topic
from ..core.record import NextOffset, Position, TopicIdentity
from ..core.start import Survey, survey, unanswered_words
from ..core.timestamps import kafka_time, parse_instant
from .stream_context import StreamContext

OWN_SECONDS = 120.0
"""How long to wait until draining runs release the partitions. The request goes out at once."""


def parse_start(text: str) -> str | int | datetime:
    """earliest, latest, an offset, or an ISO time. Raises SettingsError."""
    if text in ("earliest", "latest"):
        return text
    if text.isascii() and text.isdecimal():
        return int(text)
    try:
        return kafka_time(parse_instant(text))
    except ValueError as error:
        raise SettingsError(f"{text!r} is neither earliest, latest, an offset nor a time: {error}") from None


def acceptable(
    context: StreamContext, partition: int | None, start: str | int | datetime | None
) -> tuple[Survey, list[Acceptance]]:
    """The topic's survey, and the acceptances of all lost partitions or of this one. Raises as `acceptances` does."""
    topic_survey = survey(context.topic, context.ledger)
    losses = [loss for loss in topic_survey.losses if partition in (None, loss.partition)]
    return topic_survey, acceptances(context.topic, losses, start) if losses else []


def loss_lines(context: StreamContext, topic_survey: Survey, accepted: Sequence[Acceptance]) -> list[str]:
    """The loss and the effect of an acceptance, for an operator."""
    name, lines = context.stream.name, []
    if topic_survey.unanswered:
        lines.append(f"{name}: {unanswered_words(topic_survey.unanswered)}")
    if not accepted:
        rest = "" if not topic_survey.unanswered else " of the other partitions"
        lines.append(f"{name}: Kafka holds everything that the positions{rest} expect: nothing to accept")
    for acceptance in accepted:
        lines += [acceptance.loss.description, f"  → {consequence(acceptance)}"]
    return lines


def acceptances(topic: Topic, losses: Collection[Loss], start: str | int | datetime | None) -> list[Acceptance]:
    """Every lost partition with its offset to continue at.

    Args:
        start: "earliest", "latest", a time or an offset. None: read everything left in Kafka, also after a cut. The
            cut may lie before the end seen at the discovery, and records in between were never read.

    Raises:
        SettingsError: the log does not hold the offset, or no offset is given behind an unreadable batch.
        KafkaUnavailable: the leader of a lost partition does not answer.
    """
    unreadable = [loss for loss in losses if loss.cause == LossCause.UNREADABLE]
    if unreadable and start is None:
        raise SettingsError(
            f"{unreadable[0].description}. The client cannot tell where the batch ends: name the offset behind it with"
            " --from, or with `start` in the UI (kafka-dump-log.sh shows the last offset of each batch), or a later"
            " offset"
        )
    partitions = [loss.partition for loss in losses if loss.partition < topic.identity().partitions]
    starts = _of_all(partitions, topic.start_offsets(partitions))
    offsets: dict[int, NextOffset] = starts
    if start == "latest":
        offsets = _of_all(partitions, topic.end_offsets(partitions))
    elif isinstance(start, datetime):
        offsets = _of_all(partitions, topic.offsets_at(partitions, int(start.timestamp() * 1000)))
    elif isinstance(start, int):
        ends = _of_all(partitions, topic.high_watermarks(partitions))
        for partition in partitions:
            low, high = starts[partition].next_offset, ends[partition].next_offset
            if not low <= start <= high:
                raise SettingsError(
                    f"partition {partition}: the log holds offsets {low} to {high}, and {start} is outside"
                )
        offsets = {partition: NextOffset(start) for partition in partitions}
    lows = {partition: first.next_offset for partition, first in starts.items()}
    return [Acceptance(loss, offsets.get(loss.partition), lows.get(loss.partition)) for loss in losses]


def consequence(accepted: Acceptance) -> str:
    """The effect of accepting the loss, in words."""
    loss, partition = accepted.loss, f"partition {accepted.loss.partition}"
    if accepted.resume_at is None:
        return f"{partition}: the topic no longer has the partition. Its position is closed at {loss.next_offset}"
    start = accepted.resume_at.next_offset
    if not accepted.new_incarnation:
        return (
            f"{partition}: offsets {loss.next_offset} to {start - 1} ({start - loss.next_offset:,}) are recorded as"
            f" lost. Reading continues at {start}"
        )
    sentences = [
        f"{partition}: begins again at offset {start}, under a new kafka_incarnation",
        f"The old position is kept at {loss.next_offset}",
    ]
    if not loss.cause.is_another_topic:
        sentences.append("Records that are still in Kafka and are rows already will be stored again")
    if accepted.left_out:
        first = start - accepted.left_out
        sentences.append(f"Offsets {first} to {start - 1} ({accepted.left_out:,}) are recorded as lost")
    return ". ".join(sentences)


def dismiss(context: StreamContext, partition: int | None) -> str:
    """Forget the noted losses of a partition, or of all. Returns a line for an operator."""
    name, which = context.stream.name, "" if partition is None else f" of partition {partition}"
    if not any(partition in (None, loss.partition) for loss in context.ledger.losses()):
        return (
            f"{name}: no loss{which} is noted, so nothing is forgotten. If Kafka has another topic of the same name,"
            " leave dismiss out"
        )
    context.ledger.forget_losses(partition)
    return f"{name}: the loss{which} is forgotten. The next tick of the sensor looks again"


def accept(
    context: StreamContext,
    accepted: Sequence[Acceptance],
    identity: TopicIdentity,
    *,
    by: str,
    stop: Callable[[], str | None] = lambda: None,
) -> None:
    """Own the partitions, record the gaps and move the positions.

    Raises:
        Superseded: a draining run did not release the partitions, or a position has moved since the survey.
    """
    stream, clients = context.stream, context.clients
    with closing(clients.writing_connection(f"accept-loss-{uuid.uuid4().hex[:8]}")) as connection:
        session = clients.ledger_session(connection, stream)
        others = take_ownership(
            {session: [item.loss.partition for item in accepted]},
            clients.clock,
            exact=True,
            request=HandoverRequest.NOW,
            wait_seconds=OWN_SECONDS,
            stop=stop,
        )
        if others:
            holder = next(iter(others[session].values()))
            raise Superseded(
                f"stream {stream.name}: run {holder.run_id[:8]} owns the partitions and does not let go: nothing was"
                " changed. End the run and try again",
                stream=stream.name,
            )
        session.accept(accepted, identity, by)


def accept_unasked(
    context: StreamContext, topic: Topic, ledger: Ledger, stop: Callable[[], str | None]
) -> list[Acceptance]:
    """ON_DATA_LOSS=continue: accept losses and continue with the records left in Kafka. Empty if another run was first.

    - A lost partition without an answer of its leader is left to a later run.
    - An unreadable batch is left to an operator, who has to name the offset behind the batch.
    """
    topic_survey = survey(topic, ledger)
    losses = [
        loss
        for loss in topic_survey.losses
        if loss.partition not in topic_survey.unanswered and loss.cause != LossCause.UNREADABLE
    ]
    if not losses:
        return []
    accepted = acceptances(topic, losses, None)
    try:
        accept(context, accepted, topic_survey.identity, by="ON_DATA_LOSS=continue", stop=stop)
    except Superseded:
        if survey(topic, ledger).losses:
            raise
        return []
    return accepted


def _of_all(partitions: Collection[int], answers: dict[int, NextOffset]) -> dict[int, NextOffset]:
    if silent := set(partitions) - answers.keys():
        raise KafkaUnavailable(f"{unanswered_words(silent)}: nothing was accepted. Try again later")
    return answers


def loss_of(error: DataLoss, at: Position) -> Loss:
    """A reader's DataLoss as a loss at the partition's position, to be kept in the ledger."""
    where = error.where
    place = at.resume_at.next_offset
    return noted_loss(
        cause=where["cause"],
        partition=at.partition,
        incarnation=at.incarnation,
        expected=place,
        low=where["low"],
        high=where["high"],
    )
