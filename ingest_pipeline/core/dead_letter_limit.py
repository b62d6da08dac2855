"""Limits for refused records. A wrong deployment stops the run instead of draining a topic into dead letters."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from .errors import DeadLetterLimit
from .record import DeadLetter

WINDOW = 1000
"""Number of latest records that count. Tombstones and offsets missing in the log do not count."""
TOP_REASONS = 3


@dataclass(frozen=True, slots=True)
class LetterLimits:
    """The largest allowed ratio of refused records within WINDOW, and the largest allowed number in a row."""

    max_ratio: float
    max_consecutive: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused record within the window."""

    partition: int
    offset: int
    reason: str


@dataclass(frozen=True, slots=True)
class LetterWindow:
    """The refusals among the last WINDOW records. A batch makes a new window and keeps it after the commit.

    Attributes:
        limits: None switches the limit off.
        seen: records so far.
        refused: (number of the record, refusal), oldest first.
        streak: refusals in a row up to the newest one.
    """

    stream: str
    limits: LetterLimits | None
    seen: int = 0
    refused: tuple[tuple[int, Refusal], ...] = ()
    streak: int = 0

    def rebuilt(self, outcomes: Iterable[Refusal | None]) -> LetterWindow:
        """The window after the records of earlier runs, oldest first. None stands for a stored record."""
        seen, streak = 0, 0
        refused: list[tuple[int, Refusal]] = []
        for outcome in outcomes:
            if outcome is not None:
                streak = streak + 1 if refused and refused[-1][0] == seen - 1 else 1
                refused.append((seen, outcome))
            seen += 1
        return replace(self, seen=seen, refused=tuple(refused), streak=streak)


@dataclass(slots=True)
class LetterTally:
    """Counts a batch's refusals against the limits, in the order of the records.

    Attributes:
        decoded: the decoder's refusals, in order.
        rows_before: `rows_before[i]` rows of the batch came before `decoded[i]`.
        allowed: number of refusals exempted by an operator.
        uncounted: (partition, offset) of refusals that used up the operator's allowance.
    """

    window: LetterWindow
    decoded: Sequence[DeadLetter]
    rows_before: Sequence[int]
    allowed: int
    uncounted: set[tuple[int, int]] = field(default_factory=set)
    _counted: int = 0
    _streak: int = 0
    _refused: deque[tuple[int, Refusal]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._refused.extend(self.window.refused)
        self._streak = self.window.streak

    def refuse(self, row: int, partition: int, offset: int, reason: str) -> None:
        """Count the batch's `row`-th row as refused by the database. Calls come in the order of the rows.

        Raises:
            DeadLetterLimit: the batch must not be committed.
        """
        self._count_decoded(row)
        self._count(row + self._counted, Refusal(partition, offset, reason))

    def after(self, rows: int) -> LetterWindow:
        """The window after the batch. `rows` includes refused rows. Raises DeadLetterLimit."""
        self._count_decoded(rows)
        seen = self.window.seen + rows + len(self.decoded)
        kept = tuple(item for item in self._refused if item[0] >= seen - WINDOW)
        return replace(self.window, seen=seen, refused=kept, streak=self._streak)

    def _count_decoded(self, row: int) -> None:
        while self._counted < len(self.decoded) and self.rows_before[self._counted] <= row:
            letter = self.decoded[self._counted]
            index = self.rows_before[self._counted] + self._counted
            self._counted += 1
            self._count(index, Refusal(letter.partition, letter.offset, letter.reason))

    def _count(self, index: int, refusal: Refusal) -> None:
        if len(self.uncounted) < self.allowed:
            self.uncounted.add((refusal.partition, refusal.offset))
            return
        number = self.window.seen + index
        last = self._refused[-1][0] if self._refused else None
        self._streak = self._streak + 1 if last == number - 1 else 1
        self._refused.append((number, refusal))
        while self._refused[0][0] <= number - WINDOW:
            self._refused.popleft()
        limits = self.window.limits
        if limits is None:
            return
        if self._streak > limits.max_consecutive:
            raise self._exceeded(f"{self._streak:,} records in a row were refused")
        if len(self._refused) > limits.max_ratio * WINDOW:
            raise self._exceeded(f"{len(self._refused):,} of the last {WINDOW:,} records were refused")

    def _exceeded(self, problem: str) -> DeadLetterLimit:
        stream = self.window.stream
        refusals = [refusal for _, refusal in self._refused]
        reasons = Counter(refusal.reason for refusal in refusals).most_common(TOP_REASONS)
        offsets = defaultdict(list)
        for refusal in refusals:
            offsets[refusal.partition].append(refusal.offset)
        where = ", ".join(f"partition {p} offsets {min(o)} to {max(o)}" for p, o in sorted(offsets.items()))
        why = "; ".join(f"{count:,}x {reason}" for reason, count in reasons)
        return DeadLetterLimit(
            f"stream {stream}: {problem}: {why} ({where}). Nothing of this batch was committed. See the"
            f" waiting records: ingest dead-letters peek {stream}. Mend the producer or the stream's declaration. Or"
            f" let them pass: ingest dead-letters allow {stream} --count N",
            stream=stream,
            partition=refusals[-1].partition,
            offset=refusals[-1].offset,
        )
