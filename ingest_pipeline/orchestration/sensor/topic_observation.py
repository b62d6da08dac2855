"""Observations of a topic by its stream's sensor: lag, distance to retention, records behind open transactions.

Dagster never deletes an event without a run. The sensor therefore asks the brokers once in OBSERVE_SECONDS and reports
an observation only when a figure has changed.
"""

import hashlib
import heapq
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import dagster as dg

from ...core.ledger_ports import Ledger
from ...core.ports import Topic
from ...core.start import unanswered, unanswered_words

OBSERVE_SECONDS = 300.0
TABLE_ROWS = 100
"""Most rows of an observation's table. Of more partitions the table shows the most lag."""


@dataclass(frozen=True, slots=True)
class LastLook:
    """The last look at a topic, kept in the sensor's cursor: its time, and a hash of its figures."""

    seconds: float = 0.0
    figures_hash: str = ""

    def due(self, now: float) -> bool:
        """True also after the clock was set back."""
        return not 0 <= now - self.seconds < OBSERVE_SECONDS


@dataclass(frozen=True, slots=True)
class PartitionFigures:
    """One partition. Offsets are next offsets.

    Attributes:
        position: None before the stream has begun.
        lag: records between the position, or the log's start, and the end.
        headroom: records from the log's start to the position. Beyond them retention deletes records not stored.
        blocked: records behind open transactions, not stored.
    """

    partition: int
    position: int | None
    start: int
    end: int
    lag: int
    headroom: int | None
    blocked: int


def observe(
    topic: Topic, ledger: Ledger, key: dg.AssetKey, last: LastLook, *, now: float
) -> tuple[list[dg.AssetObservation], LastLook]:
    """(new observations, look for the next tick).

    Raises:
        IngestError: Kafka or PostgreSQL did not answer.
    """
    if not last.due(now):
        return [], last
    figures, unanswered_partitions = read_figures(topic, ledger)
    values = json.dumps([unanswered_partitions, *(asdict(partition) for partition in figures)])
    figures_hash = hashlib.sha256(values.encode()).hexdigest()[:16]
    observations = [] if figures_hash == last.figures_hash else [observation(key, figures, unanswered_partitions)]
    return observations, LastLook(now, figures_hash)


def read_figures(topic: Topic, ledger: Ledger) -> tuple[list[PartitionFigures], list[int]]:
    """Every partition's figures, in order, and the partitions whose leader did not answer.

    Positions and high watermarks are read before the ends. Otherwise records written in between would make a lag
    negative or would count as blocked.
    """
    positions, identity = ledger.positions(), topic.identity()
    starts = topic.start_offsets(range(identity.partitions))
    marks = topic.high_watermarks(starts.keys())
    ends = topic.end_offsets(marks.keys())
    figures = []
    for partition in sorted(ends):
        start, end = starts[partition].next_offset, ends[partition].next_offset
        position = positions[partition].next_offset if partition in positions else None
        figures.append(
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
    return figures, unanswered(identity, ends)


def observation(
    key: dg.AssetKey, figures: list[PartitionFigures], unanswered_partitions: Sequence[int] = ()
) -> dg.AssetObservation:
    """The metadata keys and their units never change."""
    lag, blocked = sum(partition.lag for partition in figures), sum(partition.blocked for partition in figures)
    headrooms = [partition.headroom for partition in figures if partition.headroom is not None]
    sentences = [f"lag {lag:,}"]
    metadata: dict[str, Any] = {"lag": lag, "blocked_records": blocked, "partitions": _table(figures)}
    if headrooms:
        metadata["headroom_records"] = min(headrooms)
        sentences.append(
            f"retention may delete {min(headrooms):,} records of a partition before it reaches one not stored"
        )
    if blocked:
        sentences.append(f"{blocked:,} records are held back by an open transaction")
    if unanswered_partitions:
        sentences.append(unanswered_words(unanswered_partitions))
    return dg.AssetObservation(key, description="; ".join(sentences), metadata=metadata)


def _table(figures: list[PartitionFigures]) -> dg.TableMetadataValue:
    shown = figures
    if len(figures) > TABLE_ROWS:
        longest = heapq.nlargest(TABLE_ROWS, figures, key=lambda partition: partition.lag)
        shown = sorted(longest, key=lambda partition: partition.partition)
    plain: list[Mapping[str, int | None]] = [asdict(partition) for partition in shown]
    columns = [dg.TableColumn(name, "int") for name in PartitionFigures.__slots__]
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in plain], dg.TableSchema(columns))
