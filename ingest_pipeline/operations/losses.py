"""Losses as sensor, run and CLI deal with them: found, shown, and accepted under ownership."""

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
"""How long to wait for runs that drain the partitions; they are asked to let go at once."""


def acceptances(topic: Topic, losses: Collection[Loss], wanted: str | int | datetime | None) -> list[Acceptance]:
    """Each lost partition with the place where it goes on.

    Args:
        wanted: "earliest", "latest", a time, an offset; None for all that Kafka still has, also of a log that was cut:
            where it ended when that was noticed is not where it was cut, and what lies between was never read.

    Raises:
        SettingsError: the log does not hold the offset, or none is named for a batch that cannot be read.
        KafkaUnavailable: the leader of a lost partition does not answer, so there is no place to go on from.
    """
    unreadable = [loss for loss in losses if loss.cause == UNREADABLE]
    if unreadable and wanted is None:
        raise SettingsError(
            f"{unreadable[0].description}. Where the batch ends the client cannot tell: name the offset behind it with"
            " --from (kafka-dump-log.sh shows the last offset of each batch), or a later place"
        )
    there = [loss.partition for loss in losses if loss.partition < topic.identity().partitions]
    starts = _of_all(there, topic.start_offsets(there))
    places: dict[int, NextOffset] = starts
    if wanted == "latest":
        places = _of_all(there, topic.end_offsets(there))
    elif isinstance(wanted, datetime):
        places = _of_all(there, topic.offsets_at(there, int(wanted.timestamp() * 1000)))
    elif isinstance(wanted, int):
        ends = _of_all(there, topic.high_watermarks(there))
        for partition in there:
            low, high = starts[partition].next_offset, ends[partition].next_offset
            if not low <= wanted <= high:
                raise SettingsError(
                    f"partition {partition}: the log holds offsets {low} to {high}, {wanted} is outside"
                )
        places = {partition: NextOffset(wanted) for partition in there}
    lows = {partition: place.next_offset for partition, place in starts.items()}
    return [Acceptance(loss, places.get(loss.partition), lows.get(loss.partition)) for loss in losses]


def consequence(accepted: Acceptance) -> str:
    """What accepting means, in words."""
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
        Superseded: a draining run did not let go, or a position moved since the losses were looked at.
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
    """ON_DATA_LOSS=continue: go on with what Kafka still has. What was accepted; another run may have been first.

    A lost partition whose leader does not answer is left for a later run, and a batch that cannot be read for an
    operator, who has to name the place behind it.
    """
    found = survey(topic, ledger)
    losses = [loss for loss in found.losses if loss.partition not in found.unanswered and loss.cause != UNREADABLE]
    if not losses:
        return []
    accepted = acceptances(topic, losses, None)
    try:
        accept(clients, stream, accepted, found.identity, "ON_DATA_LOSS=continue", stop)
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
    """What a reader's DataLoss means for the partition's position, to be kept in the ledger."""
    where = error.where
    place = at.resume_at.next_offset
    return noted_loss(where["cause"], at.partition, at.incarnation, place, where["low"], where["high"])
