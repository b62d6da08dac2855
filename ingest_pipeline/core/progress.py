"""What a run has done so far, for its reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from .history import History
from .latency import LatencyHistogram
from .record import PG_EPOCH_MS, STAMP, Batch, CommitResult, Position

LATENCY_SAMPLES = 100
"""About so many rows of a batch have their latency counted: evenly spread ones, and the oldest."""


@dataclass(slots=True)
class Progress:
    """Counts since the run took ownership, which was at `started_at`, monotonic seconds.

    Attributes:
        dropped: of `skipped`, the rows that a trigger of the table dropped. The others are tombstones.
    """

    started_at: float
    batch_size: int = 1 << 62
    from_offsets: dict[int, int] = field(default_factory=dict)
    to_offsets: dict[int, int] = field(default_factory=dict)
    rows: int = 0
    dead_letters: int = 0
    skipped: int = 0
    dropped: int = 0
    absent: int = 0
    batches: int = 0
    decode_seconds: float = 0.0
    database_seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    latency: LatencyHistogram = field(default_factory=LatencyHistogram)
    history: History = field(init=False)

    def __post_init__(self) -> None:
        self.history = History(self.started_at)

    def own(self, positions: Mapping[int, Position]) -> None:
        """Remember where the run starts."""
        self.from_offsets = {partition: at.resume_at.next_offset for partition, at in positions.items()}
        self.to_offsets = dict(self.from_offsets)

    def add(self, batch: Batch, written: CommitResult, committed_at: float, now: float) -> None:
        """Count one committed batch. `committed_at` is Unix seconds, `now` the same moment in monotonic ones."""
        rows, letters = sum(written.rows.values()), sum(written.dead_letters.values())
        dropped = sum(written.dropped.values())
        skipped = sum(advance.skipped for advance in batch.advances.values()) + dropped
        moved = sum(advance.resume_at.next_offset - advance.expected for advance in batch.advances.values())
        self.rows += rows
        self.dead_letters += letters
        self.skipped += skipped
        self.dropped += dropped
        self.absent += moved - rows - letters - skipped
        self.batches += -(-batch.records // self.batch_size)
        self.reasons.update(written.reasons)
        self.to_offsets.update(
            {partition: advance.resume_at.next_offset for partition, advance in batch.advances.items()}
        )
        worst_ms = 0.0
        if stamps := [row[STAMP] for row in batch.rows if row[STAMP] is not None]:
            sample = [min(stamps), *stamps[:: len(stamps) // LATENCY_SAMPLES + 1]]
            self.latency.add(committed_at * 1000, [stamp // 1000 + PG_EPOCH_MS for stamp in sample])
            worst_ms = max(0.0, committed_at * 1000 - (sample[0] // 1000 + PG_EPOCH_MS))
        self.history.add(now, rows, worst_ms)
