"""Whether records wait for too long, and whether anybody drains them. Judged by the ledger's clock.

A sensor notes in the ledger since when a partition waits. Where no sensor looks, the times in Kafka are all there is.
They say that a record is old. They do not say that it is young where a producer's clock is ahead.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ..core.ports import Topic
from ..core.start import StoredPosition
from ..core.stream import Stream
from .names import sensor_name
from .waiting import place_of, waiting_of

if TYPE_CHECKING:
    from ..postgres.ledger import StreamState
    from .partition_status import PartitionStatus

SILENT_SECONDS = 180
"""A sensor tells the ledger once a minute that it looks. One that has not for so long, nor for three of its intervals,
does not look any more."""
AHEAD_SECONDS = 5
"""A record whose time lies so far ahead comes from a producer whose clock is wrong."""


def ledger_time(state: StreamState) -> datetime:
    """PostgreSQL's time. Everything that the ledger dates is compared with it."""
    return state.now or datetime.now(UTC)


def silent_seconds(state: StreamState, poll_seconds: int) -> int | None:
    """For how long the sensor has not looked. None while it looks, and of a stream that never had a sensor."""
    if state.ticked_at is None:
        return None
    seconds = round((ledger_time(state) - state.ticked_at).total_seconds())
    return seconds if seconds >= max(SILENT_SECONDS, 3 * poll_seconds) else None


def silent(stream: Stream, state: StreamState, poll_seconds: int) -> list[str]:
    """What to say of a sensor that does not look. Nothing of a stream that never had one: it may be run by hand."""
    seconds = silent_seconds(state, poll_seconds)
    if seconds is None:
        return []
    return [
        f"{sensor_name(stream)} has not looked for {timedelta(seconds=seconds)}: it is switched off, or Dagster's"
        " daemon is down. The live run ends at its age, and no other comes"
    ]


def delays(
    known: dict[int, StoredPosition], lag: dict[int, int | None], state: StreamState, poll_seconds: int
) -> dict[int, float | None]:
    """Partition → seconds for which its next record has waited while the position did not move.

    It is 0 without lag, and where the sensor looks and has noted no standstill. None: not known.
    """
    noted, now = waiting_of(state), ledger_time(state).timestamp()
    looks = state.ticked_at is not None and silent_seconds(state, poll_seconds) is None
    found: dict[int, float | None] = {}
    for partition, records in lag.items():
        waits = noted.get(partition)
        if records == 0:
            found[partition] = 0.0
        elif records is not None and waits is not None and waits[:2] == place_of(known.get(partition)):
            found[partition] = max(0.0, now - waits.since)
        else:
            found[partition] = 0.0 if looks and records is not None else None
    return found


def late(topic: Topic, partitions: list[PartitionStatus], allowed: int, state: StreamState) -> list[str]:
    """What to say of records that wait for more than `allowed` seconds."""
    found = _waiting(topic, partitions, allowed, state)
    stuck = {at.partition: seconds for at in found if (seconds := _standstill(at, state)) is not None}
    said = []
    if stuck:
        others = any(at.partition not in stuck for at in partitions)
        where = f" (partition {', '.join(map(str, stuck))})" if others else ""
        said.append(f"the table is {max(stuck.values()):,.0f} s behind, {allowed:,} s are allowed{where}")
    if without := [at for at in found if at.partition not in stuck]:
        said.append(
            f"{sum(at.lag or 0 for at in without):,} records wait, some for more than the {allowed:,} s that are"
            f" allowed, and no row is stored of partition {', '.join(str(at.partition) for at in without)}"
        )
    return said


def unattended(
    stream: Stream, topic: Topic, partitions: list[PartitionStatus], allowed: int, state: StreamState
) -> list[str]:
    """What to say of records that wait for more than `allowed` seconds while no run drains."""
    waiting = _waiting(topic, [at for at in partitions if at.owner is None], allowed, state)
    if not waiting:
        return []
    lag = sum(at.lag or 0 for at in waiting)
    return [
        f"no run drains, and {lag:,} records wait, some for more than {allowed} s: is {sensor_name(stream)}"
        " switched on, and Dagster's daemon up? Its last tick says why it launches none"
    ]


def _standstill(at: PartitionStatus, state: StreamState) -> float | None:
    """For how long the position has not moved while there was lag, at most. None: it never moved."""
    if at.delay is not None:
        return at.delay
    return None if at.committed_at is None else max(0.0, (ledger_time(state) - at.committed_at).total_seconds())


def _waiting(
    topic: Topic, partitions: list[PartitionStatus], seconds: int, state: StreamState
) -> list[PartitionStatus]:
    """Those whose next record has waited for longer, in order."""
    behind = [at for at in partitions if at.lag]
    late = {at.partition for at in behind if at.delay is not None and at.delay > seconds}
    suspected = []
    for at in behind:
        standstill = _standstill(at, state)
        if at.delay is None and (standstill is None or standstill > seconds):
            suspected.append(at)
    late |= _old_by_kafka(topic, suspected, seconds, ledger_time(state))
    return [at for at in behind if at.partition in late]


def _old_by_kafka(topic: Topic, partitions: list[PartitionStatus], seconds: int, now: datetime) -> set[int]:
    """The partitions whose next record is older by Kafka's times, or which hold a time that cannot be true."""
    if not partitions:
        return set()
    numbers = [at.partition for at in partitions]
    young = topic.offsets_at(numbers, _milliseconds(now - timedelta(seconds=seconds)))
    ahead = topic.offsets_at(numbers, _milliseconds(now + timedelta(seconds=AHEAD_SECONDS)))
    return {
        at.partition
        for at in partitions
        if at.partition in young
        and at.partition in ahead  # its leader has answered both times
        and ((at.next_offset or 0) < young[at.partition].next_offset or ahead[at.partition].next_offset < (at.end or 0))
    }


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
