"""Counts of a run, its latency and its rows over time, for its reports. All in bounded memory."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .record import PG_EPOCH_MS, STAMP, Batch, CommitResult, Position

_GROWTH = 1.1


class LatencyHistogram:
    """Counts milliseconds in buckets growing by 10 %. A percentile is accurate to 10 %."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self._count = 0
        self.maximum_ms = 0.0

    def add(self, committed_at_ms: float, appended_at_ms: Iterable[int]) -> None:
        """Count records by the Unix times of append and commit. With clock skew, the delay counts as 0 ms."""
        for appended, count in Counter(appended_at_ms).items():
            delay = max(0.0, committed_at_ms - appended)
            self.maximum_ms = max(self.maximum_ms, delay)
            self._buckets[math.ceil(math.log(max(delay, 1.0), _GROWTH))] += count
            self._count += count

    def percentile_ms(self, share: float) -> float | None:
        """The delay that `share` (0 to 1) of the records did not exceed. None before the first record."""
        remaining = share * self._count
        for bucket in sorted(self._buckets):
            remaining -= self._buckets[bucket]
            if remaining <= 0:
                return float(min(_GROWTH**bucket, self.maximum_ms)) if self._count else None
        return None


MOST = 40
"""Maximum number of stretches, for a picture in Dagster's UI. Beyond the maximum, neighbours merge and the length of a
stretch doubles."""


@dataclass(slots=True)
class Stretch:
    """Committed rows, and the longest time from a record's Kafka timestamp to the commit. 0 without rows."""

    rows: int = 0
    latency_ms: float = 0.0


@dataclass(slots=True)
class History:
    """`started_at` is in monotonic seconds, `seconds` is the length of a stretch."""

    started_at: float
    seconds: float = 1.0
    stretches: list[Stretch] = field(default_factory=list)

    def add(self, now: float, rows: int, latency_ms: float) -> None:
        """Count a commit at `now`, in monotonic seconds."""
        while (index := int(max(0.0, now - self.started_at) / self.seconds)) >= MOST:
            self._halve()
        self.stretches += [Stretch() for _ in range(index + 1 - len(self.stretches))]
        stretch = self.stretches[index]
        stretch.rows += rows
        stretch.latency_ms = max(stretch.latency_ms, latency_ms)

    def _halve(self) -> None:
        pairs = [self.stretches[i : i + 2] for i in range(0, len(self.stretches), 2)]
        self.stretches = [Stretch(sum(s.rows for s in pair), max(s.latency_ms for s in pair)) for pair in pairs]
        self.seconds *= 2


LATENCY_SAMPLES = 100
"""Latency is measured for about this many evenly spread rows of a batch, and for the oldest row."""


@dataclass(slots=True)
class Progress:
    """Counts since the run took ownership at `started_at`, in monotonic seconds.

    Attributes:
        skipped: tombstones, and dropped rows.
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
