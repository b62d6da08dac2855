"""Cuts a partition's log into batches."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .ports import Clock, Source
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
        records: number of records.
        size_bytes: bytes of the values, and of the keys if keys are large. A single larger record makes a batch of its
            own. Headers do not count, because the client does not report their size.
        timeout_seconds: seconds since the batch's first record.
        batches_per_commit: with a backlog, one transaction takes up to this many times `records`, so that more rows
            share the cost of a commit. A batch never waits for this.
    """

    records: int
    size_bytes: int
    timeout_seconds: float
    batches_per_commit: int = 1


class BatchReader:
    """Collects messages from a source until a limit is reached, and carries surplus messages to the next batch.

    A read of n records is not bounded in bytes. To bound memory, a read asks for as many records of average size as
    fit, and starts small.
    """

    def __init__(self, source: Source, limits: BatchLimits, clock: Clock) -> None:
        self._source = source
        self._limits = limits
        self._clock = clock
        self._messages: list[Message] = []
        self._ends: dict[int, NextOffset] = {}
        self._bytes = 0
        self._opened_at: float | None = None
        self._carried: Chunk | None = None
        self._more = True
        self._awaited: dict[int, int] | None = None
        self._average_bytes = limits.size_bytes / _FIRST_READ

    def expect_backlog(self, ends: Mapping[int, int]) -> None:
        """End the next batch early, when every partition has been read to its offset in `ends` or to its end."""
        self._awaited = dict(ends)

    def read(self) -> tuple[list[Message], dict[int, NextOffset]] | None:
        """Wait up to SLICE_SECONDS. Returns (messages, ends) if a batch is due, else None.

        Without messages, the batch only moves positions over transaction markers.
        """
        chunk, self._carried = self._carried, None
        if chunk is None:
            room = self._room()
            chunk = self._source.read(room, self._wait())
            self._more = len(chunk.messages) >= room
        self._add(chunk)
        if self._due():
            return self.take()
        return None

    def take(self) -> tuple[list[Message], dict[int, NextOffset]] | None:
        """The collected messages and ends, due or not. None without any."""
        if not self._messages and not self._ends:
            return None
        taken = self._messages, self._ends
        if self._messages:
            self._awaited = None
        self._messages, self._ends, self._bytes, self._opened_at, self._more = [], {}, 0, None, True
        return taken

    def _room(self) -> int:
        if self._opened_at is None:
            return 1  # return with the first record, because the time-out starts there
        by_bytes = (self._limits.size_bytes - self._bytes) / max(self._average_bytes, 1.0)
        return max(1, min(self._limits.records - len(self._messages) % self._limits.records, int(by_bytes)))

    def _wait(self) -> float:
        if self._opened_at is None:
            return SLICE_SECONDS
        if len(self._messages) >= self._limits.records:
            return 0.0  # due already: take only records that have arrived
        left = self._opened_at + self._limits.timeout_seconds - self._clock.monotonic()
        return min(SLICE_SECONDS if self._awaited is None else _BACKLOG_WAIT_SECONDS, max(0.0, left))

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
            self._bytes += sum(sizes)
        self._ends.update(chunk.ends)
        if self._awaited:
            reached = {message.partition(): message.offset() + 1 for message in messages}
            reached |= dict.fromkeys(chunk.ends, sys.maxsize)
            self._awaited = {p: end for p, end in self._awaited.items() if reached.get(p, 0) < end}

    def _fitting(self, sizes: list[int], all_bytes: int) -> int:
        """How many of these records fit into this batch."""
        total, room = self._bytes, self._limits.records * self._limits.batches_per_commit - len(self._messages)
        if total + all_bytes <= self._limits.size_bytes:
            return min(len(sizes), room)
        for count, size in enumerate(sizes[:room]):
            total += size
            if total > self._limits.size_bytes and (count or self._messages):
                return count
        return min(len(sizes), room)

    def _due(self) -> bool:
        if self._opened_at is None:
            return bool(self._ends)
        limits = self._limits
        full = len(self._messages) >= limits.records
        return (
            (full and not (self._more and len(self._messages) < limits.records * limits.batches_per_commit))
            or self._bytes >= limits.size_bytes
            or self._carried is not None
            or self._awaited == {}
            or (not full and self._clock.monotonic() >= self._opened_at + limits.timeout_seconds)
        )


def _sizes(messages: Sequence[Message]) -> list[int]:
    """Bytes per message: the value, and the key if the last message's key is large. Reading every key costs time."""
    if len(messages[-1].key() or b"") < _LARGE_KEY:
        return list(map(len, messages))
    return [len(message) + len(message.key() or b"") for message in messages]
