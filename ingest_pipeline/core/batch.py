"""Collects a topic's messages into batches."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .ports import Clock
from .record import Chunk, Message, NextOffset

SLICE_SECONDS = 0.25
"""The longest wait inside one read. A request to stop is noticed after this time at the latest."""
_BACKLOG_WAIT_SECONDS = 0.05
_FIRST_READ = 100
_LARGE_KEY = 256


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """A batch ends at the first of these limits.

    Attributes:
        size_bytes: bytes of the values, and of the keys if keys are large. A single larger record makes a batch of its
            own. Headers do not count, because the client does not report their size.
        timeout_seconds: seconds since the batch's first record.
        batches_per_commit: with a backlog, a transaction takes up to this many times `records`, and more rows share
            the cost of a commit. A batch never waits for more records.
    """

    records: int
    size_bytes: int
    timeout_seconds: float
    batches_per_commit: int = 1


class OpenBatch:
    """Collects a topic's messages until a limit is reached, and carries surplus messages to the next batch.

    A read of n records is not bounded in bytes. To bound memory, `room` asks for as many records of average size as
    fit, and starts small.

    Attributes:
        limits: a caller may change them after `take`.
    """

    def __init__(self, limits: BatchLimits, clock: Clock) -> None:
        self.limits = limits
        self._clock = clock
        self._messages: list[Message] = []
        self._ends: dict[int, NextOffset] = {}
        self._opened_at: float | None = None
        self._carried: Chunk | None = None
        self._more = True
        self._awaited: dict[int, int] | None = None
        self._average_bytes = limits.size_bytes / _FIRST_READ
        self.size_bytes = 0

    def expect_backlog(self, ends: Mapping[int, int]) -> None:
        """End the next batch early, when every partition has been read to its offset in `ends` or to its end."""
        self._awaited = dict(ends)

    @property
    def is_open(self) -> bool:
        """Whether the batch has a record and its time-out runs."""
        return self._opened_at is not None

    @property
    def record_count(self) -> int:
        return len(self._messages)

    @property
    def room(self) -> int:
        """Records to ask for in the next read."""
        if self._opened_at is None:
            return 1  # return with the first record, because the time-out starts there
        by_bytes = (self.limits.size_bytes - self.size_bytes) / max(self._average_bytes, 1.0)
        return max(1, min(self.limits.records - len(self._messages) % self.limits.records, int(by_bytes)))

    @property
    def wait_seconds(self) -> float:
        """The longest useful wait of the next read."""
        if self._opened_at is None:
            return SLICE_SECONDS
        if len(self._messages) >= self.limits.records:
            return 0.0  # due already: take only records that have arrived
        left = self._opened_at + self.limits.timeout_seconds - self._clock.monotonic()
        return min(SLICE_SECONDS if self._awaited is None else _BACKLOG_WAIT_SECONDS, max(0.0, left))

    def add(self, chunk: Chunk, more: bool) -> None:
        """Add the result of a read. `more`: the read was full, so further records have probably arrived."""
        self._more = more
        self._add(chunk)

    @property
    def due(self) -> bool:
        """Whether the batch has reached a limit. Without messages, a batch only moves positions over transaction
        markers, and is due at once."""
        if self._opened_at is None:
            return bool(self._ends)
        limits = self.limits
        full = len(self._messages) >= limits.records
        return (
            (full and not (self._more and len(self._messages) < limits.records * limits.batches_per_commit))
            or self.size_bytes >= limits.size_bytes
            or self._carried is not None
            or self._awaited == {}
            or (not full and self._clock.monotonic() >= self._opened_at + limits.timeout_seconds)
        )

    def take(self) -> tuple[list[Message], dict[int, NextOffset]]:
        """(messages, ends), due or not. The surplus opens the next batch."""
        taken = self._messages, self._ends
        if self._messages:
            self._awaited = None
        self._messages, self._ends, self.size_bytes, self._opened_at, self._more = [], {}, 0, None, True
        if self._carried is not None:
            carried, self._carried = self._carried, None
            self._add(carried)
        return taken

    def clear(self) -> None:
        """Forget all messages and ends. The source reads them again."""
        self._carried, self._awaited = None, None
        self.take()

    def _add(self, chunk: Chunk) -> None:
        messages = list(chunk.messages)
        if messages:
            sizes = _sizes(messages)
            total = sum(sizes)
            self._average_bytes += (total / len(sizes) - self._average_bytes) / 4
            fits = self._fitting(sizes, total)
            if fits < len(messages):
                self._carried = Chunk(messages[fits:], chunk.ends)
                messages, sizes, chunk = messages[:fits], sizes[:fits], Chunk()
            if self._opened_at is None and messages:
                self._opened_at = self._clock.monotonic()
            self._messages += messages
            self.size_bytes += sum(sizes)
        self._ends.update(chunk.ends)
        if self._awaited:
            reached = {message.partition(): message.offset() + 1 for message in messages}
            reached |= dict.fromkeys(chunk.ends, sys.maxsize)
            self._awaited = {p: end for p, end in self._awaited.items() if reached.get(p, 0) < end}

    def _fitting(self, sizes: list[int], all_bytes: int) -> int:
        total, room = self.size_bytes, self.limits.records * self.limits.batches_per_commit - len(self._messages)
        if total + all_bytes <= self.limits.size_bytes:
            return min(len(sizes), room)
        for count, size in enumerate(sizes[:room]):
            total += size
            if total > self.limits.size_bytes and (count or self._messages):
                return count
        return min(len(sizes), room)


def _sizes(messages: Sequence[Message]) -> list[int]:
    """Bytes per message: the value, and the key if the last message's key is large. Reading every key costs time."""
    if len(messages[-1].key() or b"") < _LARGE_KEY:
        return list(map(len, messages))
    return [len(message) + len(message.key() or b"") for message in messages]
