"""Where every stream stands, read from ledger and broker: what `ingest status` prints."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ..core.errors import IngestError, TopicMissing
from ..core.loss import Loss, topic_gone
from ..core.start import survey, unanswered_words
from ..core.stream import Stream
from . import lateness, levels, open_letters
from .clients import Clients
from .levels import DEGRADED, HEALTHY, STOPPED, UNKNOWN
from .partition_status import OpenLetters, PartitionStatus

if TYPE_CHECKING:
    from ..postgres.ledger import StreamState

UNATTENDED_SECONDS = 60
"""`ingest status` reports records that no run has drained for longer. A run takes a few seconds to start."""


@dataclass(frozen=True)
class StreamStatus:
    """One stream.

    Attributes:
        level: of levels.py.
        said: a sentence for everything that is not as it should be, the gravest first.
        late: the sentences about records that wait for more than MAX_DELAY_SECONDS. None where it is not known.
        ticked_at: when its sensor last looked, to the minute.
        paused: it stands still because somebody wanted it to, and for no other reason.
    """

    stream: str
    level: int
    said: list[str]
    open_letters: int | None = 0
    partitions: list[PartitionStatus] = field(default_factory=list)
    ticked_at: datetime | None = None
    late: list[str] | None = None
    paused: bool = False

    @property
    def lag(self) -> int | None:
        lags = [at.lag for at in self.partitions]
        return None if not lags or any(lag is None for lag in lags) else sum(lag or 0 for lag in lags)


def status_of(stream: Stream, clients: Clients, rates: bool = False) -> StreamStatus:
    """Never raises: a server that does not answer is part of the status. Without Kafka it is what the ledger says.

    Args:
        rates: look at the newest rows for `rows_per_second` too.
    """
    try:
        return _status_of(stream, clients, rates)
    except IngestError as error:
        if (sentence := levels.unanswered(error)) is not None:
            return StreamStatus(stream.name, UNKNOWN, [sentence], open_letters=None)
        return StreamStatus(stream.name, STOPPED, [error.message])


def paused_words(state: StreamState) -> str | None:
    """Why, by whom and since when; None when it is not paused."""
    if not state.paused or state.since is None:
        return None
    return f"{state.reason} ({state.paused_by}), since {_moment(state.since)}"


def _failing(state: StreamState, partitions: list[PartitionStatus]) -> list[str]:
    """Why the newest failed run failed, where nothing has moved since, nor anybody done something about it."""
    at = state.failed_at
    if at is None or (state.acted_at is not None and state.acted_at > at):
        return []
    if not any(each.lag and (each.committed_at is None or each.committed_at < at) for each in partitions):
        return []
    return [f"the last run failed, {_moment(at)}: {state.failure}"]


def _since(loss: Loss) -> str:
    return f", found {_moment(loss.found_at)}" if loss.found_at is not None else ""


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _status_of(stream: Stream, clients: Clients, rates: bool) -> StreamStatus:
    from ..postgres.table_reads import newest_timestamps, rows_per_second

    ledger, topic = clients.ledger(stream), clients.topic(stream)
    state, known = ledger.state(), ledger.positions()
    paused = [f"paused: {paused_words(state)}; to go on: ingest resume {stream.name}"] * state.paused
    losses, ends, silent, away = ledger.losses(), {}, [], []
    try:
        seen = survey(topic, ledger)
        losses, ends, silent = seen.losses, seen.ends, seen.unanswered
    except TopicMissing as error:
        if not known:
            said = [*paused, f"{error.message}; the sensor waits for it"]
            return StreamStatus(stream.name, STOPPED if paused else DEGRADED, said, paused=state.paused)
        away.append(topic_gone(error, len(known), stream.name).message)
    except IngestError as error:
        if levels.unanswered(error) is not None:
            raise
        away.append(error.message)  # Kafka's: PostgreSQL has answered, and is asked again
    unknown: list[str] = []
    accounts = levels.in_time(ledger.accounting, unknown)
    partitions = range(max([0, *(p + 1 for p in (*ends, *silent, *known))]))
    owners = ledger.owners(partitions).holders
    newest = newest_timestamps(clients.database(), stream) if known else {}
    speeds = rows_per_second(clients.database(), stream) if known and rates else {}
    letters = levels.in_time(ledger.open_letters, unknown)
    refused: dict[int, tuple[OpenLetters, ...]] = {}
    if letters is not None:
        refused = {
            p: tuple(OpenLetters(row.stage, row.sqlstate_class, row.letters) for row in letters if row.partition == p)
            for p in partitions
        }
    wrong = {entry.kafka_partition for entry in accounts or () if not entry.accounted}
    own = clients.settings.for_stream(stream.name)
    places = {p: known[p].next_offset if p in known else 0 for p in partitions}
    lag = {p: max(0, ends[p].next_offset - places[p]) if p in ends else None for p in partitions}
    waited = lateness.delays(known, lag, state, own.poll_seconds)
    found = []
    for partition in partitions:
        at, owner = known.get(partition), owners.get(partition)
        found.append(
            PartitionStatus(
                partition,
                at.next_offset if at else None,
                ends[partition].next_offset if partition in ends else None,
                at.rows if at else 0,
                at.dead_letters if at else 0,
                at.skipped if at else 0,
                at.absent if at else 0,
                at.lost if at else 0,
                refused.get(partition),
                None if accounts is None else partition not in wrong,
                owner.run_id if owner else None,
                owner.since if owner else None,
                at.updated_at if at and at.next_offset > at.first_offset else None,
                newest.get(partition),
                speeds.get(partition, 0.0) if at and rates else None,
                waited[partition],
            )
        )
    late: list[str] | None = None
    unattended: list[str] = []
    try:
        if not away:
            late = lateness.late(topic, found, own.max_delay_seconds, state)
            unattended = lateness.unattended(stream, topic, found, UNATTENDED_SECONDS, state)
    except IngestError as error:
        away.append(error.message)
    held_up = away + [
        f"{loss.description}{_since(loss)}; to go on: ingest accept-loss {stream.name}" for loss in losses
    ]
    failing = [] if held_up else _failing(state, found)
    if state.failure_stops:
        held_up += failing
    stopped = held_up + paused
    degraded = [f"partition {p}: the ledger's counters, dead letters and gaps do not add up" for p in sorted(wrong)]
    frozen = sorted(p for p, owner in owners.items() if owner.frozen)
    degraded += [f"partition {p}: the owning run is frozen; the next one ends its session" for p in frozen]
    degraded += [unanswered_words(silent)] if silent else []
    degraded += lateness.silent(stream, state, own.poll_seconds)
    degraded += [] if state.failure_stops else failing
    degraded += late or []
    degraded += [] if stopped else unattended
    waiting = None if letters is None else sum(row.letters for row in letters)
    level = STOPPED if stopped else UNKNOWN if unknown else DEGRADED if degraded or waiting else HEALTHY
    if waiting:
        words = levels.in_time(lambda: open_letters.in_words(stream, clients, waiting), unknown)
        degraded.append(
            f"{words or f'{waiting:,} open dead letters'}. To see them: ingest dead-letters list {stream.name}"
        )
    if state.letters_allowed:
        degraded.append(f"the next {state.letters_allowed:,} dead letters do not count against the limit")
    return StreamStatus(
        stream.name,
        level,
        stopped + unknown + degraded,
        waiting,
        found,
        state.ticked_at,
        late,
        paused=state.paused and not held_up,
    )
