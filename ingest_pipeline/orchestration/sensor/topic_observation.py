"""What a stream's sensor tells of the topic: lag, room to retention, what open transactions hold back.

Dagster never deletes an event that belongs to no run, so there is at most one in OBSERVE_SECONDS, and none while every
figure is as it was told last. The brokers are asked when a look is due and not before.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import dagster as dg

from ...core.ports import Ledger, Topic
from ...core.start import unanswered, unanswered_words

OBSERVE_SECONDS = 300.0
TABLE_ROWS = 100
"""The observation's table has the partitions with the most lag, when there are more."""


@dataclass(frozen=True, slots=True)
class Look:
    """The last look at a topic, kept in the sensor's cursor: when it was, and a hash of the figures told last."""

    at: float = 0.0
    told: str = ""

    def due(self, now: float) -> bool:
        """A clock that was set back does not put it off for longer than usual."""
        return not 0 <= now - self.at < OBSERVE_SECONDS


@dataclass(frozen=True, slots=True)
class PartitionFigures:
    """One partition. Offsets are next offsets; `position` is None before the stream has begun.

    Attributes:
        lag: records between the position, or the log's start, and the end.
        headroom: records that retention may still delete before it reaches one that is not stored.
        blocked: records that are not stored and that open transactions hold back.
    """

    partition: int
    position: int | None
    start: int
    end: int
    lag: int
    headroom: int | None
    blocked: int


def observe(
    topic: Topic, ledger: Ledger, key: dg.AssetKey, last: Look, now: float
) -> tuple[list[dg.AssetObservation], Look]:
    """What there is to tell, and the look to keep.

    Raises:
        IngestError: Kafka or PostgreSQL did not answer.
    """
    if not last.due(now):
        return [], last
    figures, silent = look(topic, ledger)
    told = hashlib.sha256(json.dumps([silent, *(asdict(at) for at in figures)]).encode()).hexdigest()[:16]
    observations = [] if told == last.told else [observation(key, figures, silent)]
    return observations, Look(now, told)


def look(topic: Topic, ledger: Ledger) -> tuple[list[PartitionFigures], list[int]]:
    """Every partition's figures, in order, and the partitions whose leader did not answer.

    Positions and high watermarks are read before the ends: what is written meanwhile makes no lag negative and is not
    taken for blocked.
    """
    known, identity = ledger.positions(), topic.identity()
    starts = topic.start_offsets(range(identity.partitions))
    marks = topic.high_watermarks(starts.keys())
    ends = topic.end_offsets(marks.keys())
    found = []
    for partition in sorted(ends):
        start, end = starts[partition].next_offset, ends[partition].next_offset
        position = known[partition].next_offset if partition in known else None
        found.append(
            PartitionFigures(
                partition,
                position,
                start,
                end,
                lag=max(0, end - (start if position is None else position)),
                headroom=None if position is None else max(0, position - start),
                blocked=max(0, marks[partition].next_offset - max(end, position or 0)),
            )
        )
    return found, unanswered(identity, ends)


def observation(key: dg.AssetKey, figures: list[PartitionFigures], silent: Sequence[int] = ()) -> dg.AssetObservation:
    """Numeric keys keep their name and unit for ever."""
    lag, blocked = sum(at.lag for at in figures), sum(at.blocked for at in figures)
    headrooms = [at.headroom for at in figures if at.headroom is not None]
    said = [f"lag {lag:,}"]
    metadata: dict[str, Any] = {"lag": lag, "blocked_records": blocked, "partitions": _table(figures)}
    if headrooms:
        metadata["headroom_records"] = min(headrooms)
        said.append(f"retention may delete {min(headrooms):,} records of a partition before it reaches one not stored")
    if blocked:
        said.append(f"{blocked:,} records are held back by an open transaction")
    if silent:
        said.append(unanswered_words(silent))
    return dg.AssetObservation(key, description="; ".join(said), metadata=metadata)


def _table(figures: list[PartitionFigures]) -> dg.TableMetadataValue:
    shown = figures
    if len(figures) > TABLE_ROWS:
        shown = sorted(heapq.nlargest(TABLE_ROWS, figures, key=lambda at: at.lag), key=lambda at: at.partition)
    plain: list[Mapping[str, int | None]] = [asdict(at) for at in shown]
    columns = [dg.TableColumn(name, "int") for name in PartitionFigures.__slots__]
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in plain], dg.TableSchema(columns))
