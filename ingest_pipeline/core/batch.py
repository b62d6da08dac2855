"""Cutting the log into batches: when one is full."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .ports import Clock, Source
from .record import Chunk, Message, NextOffset

SLICE_SECONDS = 0.25
"""The longest single wait inside a read: how late a request to stop may be noticed."""
_HURRIED_SECONDS = 0.05
_FIRST_READ = 100
_LARGE_KEY = 256


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """A batch is cut at the first of these.

    Attributes:
        records: count.
        size_bytes: sum of the values' bytes, and of the keys' where these are large; one larger record still makes a
            batch of its own. Headers are not counted: the client does not tell their size.
        timeout_seconds: counted from the batch's first record.
        together: while records wait to be read, so many times `records` go into one transaction; it never waits for
            more. What a commit costs is shared by more rows, and nothing else changes.
    """

    records: int
    size_bytes: int
    timeout_seconds: float
    batches_per_commit: int = 1


class BatchReader:
    """Collects messages from a source until a limit is reached, carrying what was read beyond it.

    Bounded: `consume(n)` is not bounded in bytes, so a read asks for as many records as are expected to fit, from the
    average size seen so far, starting small.
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
        """The next batch of records is due, too, once all these partitions have been read up to these offsets, or to
        their end."""
        self._awaited = dict(ends)

    def read(self) -> tuple[list[Message], dict[int, NextOffset]] | None:
        """Wait up to SLICE_SECONDS. (messages, ends) when a batch is due, else None.

        A batch that only moves positions over transaction markers has no messages.
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
        """What has been collected so far, whether due or not; None when there is nothing."""
        if not self._messages and not self._ends:
            return None
        taken = self._messages, self._ends
        if self._messages:
            self._awaited = None
        self._messages, self._ends, self._bytes, self._opened_at, self._more = [], {}, 0, None, True
        return taken

    def _room(self) -> int:
        if self._opened_at is None:
            return 1  # returns as the first record comes: the time-out counts from it
        by_bytes = (self._limits.size_bytes - self._bytes) / max(self._average_bytes, 1.0)
        return max(1, min(self._limits.records - len(self._messages) % self._limits.records, int(by_bytes)))

    def _wait(self) -> float:
        if self._opened_at is None:
            return SLICE_SECONDS
        if len(self._messages) >= self._limits.records:
            return 0.0  # due already: only what is there goes along
        left = self._opened_at + self._limits.timeout_seconds - self._clock.monotonic()
        return min(SLICE_SECONDS if self._awaited is None else _HURRIED_SECONDS, max(0.0, left))

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
        """How many of these records still belong to this batch."""
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
    """Bytes of the values; of the keys too where the last one is large. To ask for each key costs time in the loop."""
    if len(messages[-1].key() or b"") < _LARGE_KEY:
        return list(map(len, messages))
    return [len(message) + len(message.key() or b"") for message in messages]
