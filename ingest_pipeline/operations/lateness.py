"""Whether records wait for too long, and whether a sensor and a run are at work. Judged by the ledger's clock.

A sensor notes in the ledger since when a partition waits. Without a sensor only the records' times in Kafka are left.
These times can prove a record old, but not young, because a producer's clock may be ahead.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from ..core.ledger import StreamState
from ..core.ports import Topic
from ..core.record import StoredPosition
from ..core.stream import Stream
from .names import sensor_name
from .partition_status import PartitionStatus
from .waiting import resume_at, waiting_of

UNATTENDED_SECONDS = 60
"""`ingest status` reports records waiting for longer without a run. A run takes a few seconds to start."""
SILENT_SECONDS = 180
"""A sensor writes to the ledger once a minute. The sensor is silent after this long and three intervals."""
LOOKING_SECONDS = 75
"""Only a sensor's write to the ledger within this time, or two intervals, proves the absence of waiting records."""
AHEAD_SECONDS = 5
"""A record's time further ahead comes from a wrong clock of its producer."""


def ledger_time(state: StreamState) -> datetime:
    """PostgreSQL's time, to compare with every time in the ledger."""
    return state.now or datetime.now(UTC)


def silent_seconds(state: StreamState, poll_seconds: int) -> int | None:
    """For how long the sensor has been silent. None: the sensor looks, or the stream never had a sensor."""
    if state.ticked_at is None:
        return None
    seconds = round((ledger_time(state) - state.ticked_at).total_seconds())
    return seconds if seconds >= max(SILENT_SECONDS, 3 * poll_seconds) else None


def silence(stream: Stream, state: StreamState, poll_seconds: int, reason: str | None = None) -> list[str]:
    """The message about a silent sensor. A stream without any tick may be run by hand, and gets no message."""
    seconds = silent_seconds(state, poll_seconds)
    if seconds is None:
        return []
    reason = reason or "it is switched off, or Dagster's daemon is down"
    return [
        f"{sensor_name(stream.job)} has not looked for {timedelta(seconds=seconds)}: {reason}. The live run ends at its"
        " age, and no other comes"
    ]


def delays(
    positions: Mapping[int, StoredPosition], lag: Mapping[int, int | None], state: StreamState, poll_seconds: int
) -> dict[int, float | None]:
    """Partition → seconds of waiting for the next record while the position did not move. None: not known.

    0 without lag, and where a live sensor has noted no standstill.
    """
    noted, now = waiting_of(state), ledger_time(state).timestamp()
    looked_at = ledger_time(state) - timedelta(seconds=max(LOOKING_SECONDS, 2 * poll_seconds))
    sensor_looks = state.ticked_at is not None and state.ticked_at > looked_at
    seconds: dict[int, float | None] = {}
    for partition, records in lag.items():
        waiting = noted.get(partition)
        if records == 0:
            seconds[partition] = 0.0
        elif records is not None and waiting is not None and waiting[:2] == resume_at(positions.get(partition)):
            seconds[partition] = max(0.0, now - waiting.since)
        else:
            seconds[partition] = 0.0 if sensor_looks and records is not None else None
    return seconds


def late(
    partitions: Sequence[PartitionStatus], old_by_kafka: Collection[int], allowed: int, state: StreamState
) -> list[str]:
    """The messages about records waiting for more than `allowed` seconds."""
    waiting = _waiting(partitions, old_by_kafka, allowed)
    behind = {row.partition: seconds for row in waiting if (seconds := _standstill(row, state)) is not None}
    messages = []
    if behind:
        all_behind = all(row.partition in behind for row in partitions)
        where = "" if all_behind else f" (partition {', '.join(map(str, behind))})"
        messages.append(f"the table is {max(behind.values()):,.0f} s behind, {allowed:,} s are allowed{where}")
    if never_moved := [row for row in waiting if row.partition not in behind]:
        messages.append(
            f"{sum(row.lag or 0 for row in never_moved):,} records wait, some for more than the {allowed:,} s that are"
            f" allowed, and no row is stored of partition {', '.join(str(row.partition) for row in never_moved)}"
        )
    return messages


def moves(
    partitions: Sequence[PartitionStatus], old_by_kafka: Collection[int], allowed: int, state: StreamState
) -> bool:
    """Whether a partition has no late record and has moved within `allowed` seconds."""
    waiting = {row.partition for row in _waiting(partitions, old_by_kafka, allowed)}
    recently = ledger_time(state) - timedelta(seconds=allowed)
    return any(
        row.partition not in waiting and row.committed_at is not None and row.committed_at >= recently
        for row in partitions
    )


def waits_since(
    partitions: Iterable[PartitionStatus], old_by_kafka: Collection[int], seconds: int, state: StreamState
) -> datetime | None:
    """Since when the oldest of the records wait that have waited for longer. None: no record has."""
    waiting = _waiting(partitions, old_by_kafka, seconds)
    delays = [row.delay if row.delay is not None else float(seconds) for row in waiting]
    return ledger_time(state) - timedelta(seconds=max(delays)) if delays else None


def unattended(
    stream: Stream, rows: Iterable[PartitionStatus], old_by_kafka: Collection[int], reason: str | None = None
) -> list[str]:
    """The message about records of partitions without a run that wait for more than UNATTENDED_SECONDS."""
    waiting = _waiting(rows, old_by_kafka, UNATTENDED_SECONDS)
    if not waiting:
        return []
    lag = sum(row.lag or 0 for row in waiting)
    reason = reason or (
        f"is {sensor_name(stream.job)} switched on, and Dagster's daemon up? Its last tick says why it launches none"
    )
    return [f"no run drains, and {lag:,} records wait, some for more than {UNATTENDED_SECONDS} s: {reason}"]


def ask_kafka(
    topic: Topic, partitions: Iterable[PartitionStatus], limits: Iterable[int], state: StreamState
) -> dict[int, set[int]]:
    """Limit in seconds → partitions with an older next record by Kafka's times, or with an impossible time in the log.
    Asks only about partitions without a known wait in the ledger."""
    now, limits = ledger_time(state), sorted(set(limits))
    asked = {limit: suspects(partitions, limit, state) for limit in limits}
    old: dict[int, set[int]] = {limit: set() for limit in limits}
    if not (rows := asked[limits[0]]):  # the shortest limit has every suspect of the others
        return old
    numbers = [row.partition for row in rows]
    ahead = topic.offsets_at(numbers, _milliseconds(now + timedelta(seconds=AHEAD_SECONDS)))
    for limit in limits:
        if not asked[limit]:
            continue
        young = topic.offsets_at(numbers, _milliseconds(now - timedelta(seconds=limit)))
        for row in asked[limit]:
            if (first := young.get(row.partition)) is None or (last := ahead.get(row.partition)) is None:
                continue  # its leader did not answer both questions
            if (row.next_offset or 0) < first.next_offset or last.next_offset < (row.end or 0):
                old[limit].add(row.partition)
    return old


def suspects(partitions: Iterable[PartitionStatus], limit: int, state: StreamState) -> list[PartitionStatus]:
    """The partitions whose records may have waited for longer than `limit` seconds, so Kafka has to be asked."""
    standstills = [(row, _standstill(row, state)) for row in partitions if row.lag and row.delay is None]
    return [row for row, seconds in standstills if seconds is None or seconds > limit]


def _standstill(row: PartitionStatus, state: StreamState) -> float | None:
    """For how long at most the position has not moved while records waited. None: never moved."""
    if row.delay is not None:
        return row.delay
    return None if row.committed_at is None else max(0.0, (ledger_time(state) - row.committed_at).total_seconds())


def _waiting(
    partitions: Iterable[PartitionStatus], old_by_kafka: Collection[int], seconds: int
) -> list[PartitionStatus]:
    """The partitions with a next record waiting for longer."""
    return [
        row
        for row in partitions
        if row.lag and (row.partition in old_by_kafka if row.delay is None else row.delay > seconds)
    ]


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
