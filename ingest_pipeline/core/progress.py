"""Counts of a run, for its reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from .history import History
from .latency import LatencyHistogram
from .record import PG_EPOCH_MS, STAMP, Batch, CommitResult, Position

LATENCY_SAMPLES = 100
"""Latency is measured for about this many evenly spread rows of a batch, and for the oldest row."""


@dataclass(slots=True)
class Progress:
    """Counts since the run took ownership at `started_at`, in monotonic seconds.

    Attributes:
        skipped: tombstones, and dropped rows.
        dropped: see CommitResult.
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
        """Remember where the run starts. A re-created topic may have fewer partitions and begins again."""
        self.to_offsets = {p: position.resume_at.next_offset for p, position in positions.items()}
        self.from_offsets = {p: min(offset, self.from_offsets.get(p, offset)) for p, offset in self.to_offsets.items()}

    def add(self, batch: Batch, result: CommitResult, committed_at: float, now: float) -> None:
        """Count a committed batch. `committed_at` is in Unix seconds, `now` in monotonic seconds."""
        rows, letters = sum(result.rows.values()), sum(result.dead_letters.values())
        dropped = sum(result.dropped.values())
        skipped = sum(advance.skipped for advance in batch.advances.values()) + dropped
        moved = sum(advance.resume_at.next_offset - advance.expected for advance in batch.advances.values())
        self.rows += rows
        self.dead_letters += letters
        self.skipped += skipped
        self.dropped += dropped
        self.absent += moved - rows - letters - skipped
        self.batches += -(-batch.records // self.batch_size)
        self.reasons.update(result.reasons)
        self.to_offsets.update(
            {partition: advance.resume_at.next_offset for partition, advance in batch.advances.items()}
        )
        worst_ms = 0.0
        if stamps := [row[STAMP] for row in batch.rows if row[STAMP] is not None]:
            sample = [min(stamps), *stamps[:: len(stamps) // LATENCY_SAMPLES + 1]]
            self.latency.add(committed_at * 1000, [stamp // 1000 + PG_EPOCH_MS for stamp in sample])
            worst_ms = max(0.0, committed_at * 1000 - (sample[0] // 1000 + PG_EPOCH_MS))
        self.history.add(now, rows, worst_ms)
