"""How run and CLI show losses to an operator, and accept losses under ownership."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Sequence
from datetime import datetime

from ..core.errors import DataLoss, KafkaUnavailable, SettingsError, Superseded
from ..core.loss import ANOTHER_TOPIC, UNREADABLE, Acceptance, Loss, noted_loss
from ..core.ports import Ledger, Topic
from ..core.record import NextOffset, Position, TopicIdentity
from ..core.start import survey, unanswered_words
from ..core.stream import Stream
from .clients import Clients

OWN_SECONDS = 120.0
"""How long to wait until draining runs release the partitions. The request goes out at once."""


def acceptances(topic: Topic, losses: Collection[Loss], start: str | int | datetime | None) -> list[Acceptance]:
    """Every lost partition with its offset to continue at.

    Args:
        start: "earliest", "latest", a time or an offset. None: read everything left in Kafka, also after a cut. The
            cut may lie before the end seen at the discovery, and records in between were never read.

    Raises:
        SettingsError: the log does not hold the offset, or no offset is given behind an unreadable batch.
        KafkaUnavailable: the leader of a lost partition does not answer.
    """
    unreadable = [loss for loss in losses if loss.cause == UNREADABLE]
    if unreadable and start is None:
        raise SettingsError(
            f"{unreadable[0].description}. The client cannot tell where the batch ends: name the offset behind it with"
            " --from (kafka-dump-log.sh shows the last offset of each batch), or a later offset"
        )
    there = [loss.partition for loss in losses if loss.partition < topic.identity().partitions]
    starts = _of_all(there, topic.start_offsets(there))
    places: dict[int, NextOffset] = starts
    if start == "latest":
        places = _of_all(there, topic.end_offsets(there))
    elif isinstance(start, datetime):
        places = _of_all(there, topic.offsets_at(there, int(start.timestamp() * 1000)))
    elif isinstance(start, int):
        ends = _of_all(there, topic.high_watermarks(there))
        for partition in there:
            low, high = starts[partition].next_offset, ends[partition].next_offset
            if not low <= start <= high:
                raise SettingsError(f"partition {partition}: the log holds offsets {low} to {high}, {start} is outside")
        places = {partition: NextOffset(start) for partition in there}
    lows = {partition: place.next_offset for partition, place in starts.items()}
    return [Acceptance(loss, places.get(loss.partition), lows.get(loss.partition)) for loss in losses]


def consequence(accepted: Acceptance) -> str:
    """The effect of accepting the loss, in words."""
    loss, place = accepted.loss, accepted.resume_at
    if place is None:
        return f"partition {loss.partition}: the topic has it no more; its position is closed at {loss.next_offset}"
    if accepted.new_incarnation:
        more = "" if loss.cause in ANOTHER_TOPIC else "; what is left of records that are rows already is stored again"
        if accepted.left_out:
            low = place.next_offset - accepted.left_out
            more += f"; offsets {low} to {place.next_offset - 1} ({accepted.left_out:,}) are recorded as lost"
        return (
            f"partition {loss.partition}: begins anew at offset {place.next_offset}, under a new kafka_incarnation;"
            f" the old position is kept at {loss.next_offset}{more}"
        )
    lost = place.next_offset - loss.next_offset
    return (
        f"partition {loss.partition}: offsets {loss.next_offset} to {place.next_offset - 1} ({lost:,}) are recorded as"
        f" lost; goes on at {place.next_offset}"
    )


def accept(
    clients: Clients,
    stream: Stream,
    accepted: Sequence[Acceptance],
    identity: TopicIdentity,
    by: str,
    stop: Callable[[], str | None] = lambda: None,
) -> None:
    """Own the partitions, record the gaps and move the positions.

    Raises:
        Superseded: a draining run did not release the partitions, or a position has moved since the survey.
    """
    from ..postgres.session import PostgresLedgerSession

    session = PostgresLedgerSession(clients.database(), stream, f"accept-loss-{uuid.uuid4().hex[:8]}")
    try:
        partitions = [item.loss.partition for item in accepted]
        others = session.own(partitions, exact=True, announce="wait-now", wait_seconds=OWN_SECONDS, stop=stop)
        if others:
            holder = next(iter(others.values()))
            raise Superseded(
                f"stream {stream.name}: run {holder.run_id[:8]} owns the partitions and does not let go: nothing was"
                " changed; end the run and try again",
                stream=stream.name,
            )
        session.accept(accepted, identity, by)
    finally:
        session.close()


def accept_unasked(
    clients: Clients, stream: Stream, topic: Topic, ledger: Ledger, stop: Callable[[], str | None]
) -> list[Acceptance]:
    """ON_DATA_LOSS=continue: accept losses and continue with the records left in Kafka. Empty if another run was first.

    - A lost partition without an answer of its leader is left to a later run.
    - An unreadable batch is left to an operator, who has to name the offset behind the batch.
    """
    topic_survey = survey(topic, ledger)
    losses = [
        loss
        for loss in topic_survey.losses
        if loss.partition not in topic_survey.unanswered and loss.cause != UNREADABLE
    ]
    if not losses:
        return []
    accepted = acceptances(topic, losses, None)
    try:
        accept(clients, stream, accepted, topic_survey.identity, "ON_DATA_LOSS=continue", stop)
    except Superseded:
        if survey(topic, ledger).losses:
            raise
        return []
    return accepted


def _of_all(partitions: Collection[int], answers: dict[int, NextOffset]) -> dict[int, NextOffset]:
    if silent := set(partitions) - answers.keys():
        raise KafkaUnavailable(f"{unanswered_words(silent)}: nothing was accepted; try again when it answers")
    return answers


def loss_of(error: DataLoss, at: Position) -> Loss:
    """A reader's DataLoss as a loss at the partition's position, to be kept in the ledger."""
    where = error.where
    place = at.resume_at.next_offset
    return noted_loss(where["cause"], at.partition, at.incarnation, place, where["low"], where["high"])
