"""How many records may be refused before a run stops: a wrong deployment must not drain a topic into dead letters."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .errors import DeadLetterLimit
from .record import DeadLetter

WINDOW = 1000
"""Records looked back on. A tombstone is none, and neither is an offset that the log does not hold."""
TOP_REASONS = 3


@dataclass(frozen=True, slots=True)
class LetterLimits:
    """What of the last WINDOW records may be refused, and how many in a row. Reached is allowed, exceeded is not."""

    max_ratio: float
    max_consecutive: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refused record that the window still sees."""

    partition: int
    offset: int
    reason: str


@dataclass(frozen=True, slots=True)
class LetterWindow:
    """Which of the last WINDOW records were refused. A value: a batch makes a new one, kept once it is committed.

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
        """As it stands after these records of earlier runs, oldest first; None is a record that was stored."""
        seen, streak = 0, 0
        refused: list[tuple[int, Refusal]] = []
        for outcome in outcomes:
            if outcome is not None:
                streak = streak + 1 if refused and refused[-1][0] == seen - 1 else 1
                refused.append((seen, outcome))
            seen += 1
        return LetterWindow(self.stream, self.limits, seen, tuple(refused), streak)

    def tally(self, decoded: Sequence[DeadLetter], rows_before: Sequence[int], allowed: int) -> LetterTally:
        """For one batch.

        Args:
            decoded: what the decoder refused, in order.
            rows_before: for each of `decoded`, how many rows of the batch came before it.
            allowed: refusals that an operator lets pass uncounted.
        """
        return LetterTally(self, decoded, rows_before, allowed)


@dataclass(slots=True)
class LetterTally:
    """Counts one batch's refusals against the limits, in the order of the records, while they become known.

    Attributes:
        uncounted: (partition, offset) of refusals that used up the operator's allowance.
    """

    window: LetterWindow
    decoded: Sequence[DeadLetter]
    rows_before: Sequence[int]
    allowed: int
    uncounted: set[tuple[int, int]] = field(default_factory=set)
    _told: int = 0
    _streak: int = 0
    _refused: deque[tuple[int, Refusal]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._refused.extend(self.window.refused)
        self._streak = self.window.streak

    def refuse(self, row: int, partition: int, offset: int, reason: str) -> None:
        """The database refuses the batch's `row`-th row; rows are told in their order.

        Raises:
            DeadLetterLimit: nothing of the batch may be committed.
        """
        self._tell_decoded(row)
        self._tell(row + self._told, Refusal(partition, offset, reason))

    def after(self, rows: int) -> LetterWindow:
        """The window behind a batch that had so many rows, refused ones included. Raises DeadLetterLimit."""
        self._tell_decoded(rows)
        seen = self.window.seen + rows + len(self.decoded)
        kept = tuple(item for item in self._refused if item[0] >= seen - WINDOW)
        return LetterWindow(self.window.stream, self.window.limits, seen, kept, self._streak)

    def _tell_decoded(self, row: int) -> None:
        """The decoder's refusals up to this row; their reasons are told already."""
        while self._told < len(self.decoded) and self.rows_before[self._told] <= row:
            letter = self.decoded[self._told]
            index = self.rows_before[self._told] + self._told
            self._told += 1
            self._tell(index, Refusal(letter.partition, letter.offset, letter.reason))

    def _tell(self, index: int, refusal: Refusal) -> None:
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
            raise self._reached(f"{self._streak:,} records in a row were refused")
        if len(self._refused) > limits.max_ratio * WINDOW:
            raise self._reached(f"{len(self._refused):,} of the last {WINDOW:,} records were refused")

    def _reached(self, what: str) -> DeadLetterLimit:
        stream = self.window.stream
        found = [refusal for _, refusal in self._refused]
        reasons = Counter(refusal.reason for refusal in found).most_common(TOP_REASONS)
        offsets = defaultdict(list)
        for refusal in found:
            offsets[refusal.partition].append(refusal.offset)
        where = ", ".join(f"partition {p} offsets {min(o)} to {max(o)}" for p, o in sorted(offsets.items()))
        why = "; ".join(f"{count:,}x {reason}" for reason, count in reasons)
        return DeadLetterLimit(
            f"stream {stream}: {what}: {why} ({where}). Nothing of this batch was committed. Mend the producer or"
            f" the stream's declaration; or let them pass: ingest dead-letters allow {stream} --count N",
            stream=stream,
            partition=found[-1].partition,
            offset=found[-1].offset,
        )
