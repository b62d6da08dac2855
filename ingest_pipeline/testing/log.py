"""The log of a partition in memory, with the gaps that a reader of Kafka can meet."""

from collections.abc import Sequence
from dataclasses import dataclass, field

Headers = list[tuple[str, bytes | None]]


class MemoryMessage:
    """Implements `core.record.Message` for the in-memory broker."""

    __slots__ = ("_epoch", "_headers", "_key", "_offset", "_partition", "_timestamp_ms", "_value")

    def __init__(
        self,
        partition: int,
        offset: int,
        epoch: int,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes | None]] | None = None,
        timestamp_ms: int | None = None,
    ) -> None:
        self._partition, self._offset, self._epoch = partition, offset, epoch
        self._value, self._key = value, key
        self._headers: Headers | None = list(headers) if headers else None
        self._timestamp_ms = timestamp_ms

    def __len__(self) -> int:
        return len(self._value or b"")

    def value(self) -> bytes | None:
        return self._value

    def key(self) -> bytes | None:
        return self._key

    def headers(self) -> Headers | None:
        return self._headers

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def leader_epoch(self) -> int | None:
        return self._epoch

    def timestamp(self) -> tuple[int, int]:
        """(kind, milliseconds). Kind 1 is the producer's time. Kind 0 means no time."""
        return (0, 0) if self._timestamp_ms is None else (1, self._timestamp_ms)


@dataclass(slots=True)
class PartitionLog:
    """`slots[i]` holds the record at offset `start + i`. None stands for markers, aborted and compacted records.

    Attributes:
        epoch_starts: leader epoch → the log's end at the beginning of the epoch.
        unstable_from: first offset of the open transaction, or None.
        leader_away: True while the partition's leader does not answer.
    """

    partition: int
    start: int = 0
    slots: list[MemoryMessage | None] = field(default_factory=list)
    epoch: int = 0
    epoch_starts: dict[int, int] = field(default_factory=lambda: {0: 0})
    unstable_from: int | None = None
    leader_away: bool = False

    @property
    def end(self) -> int:
        """The high watermark."""
        return self.start + len(self.slots)

    @property
    def stable_end(self) -> int:
        """The last stable offset: the end for a read_committed reader."""
        return self.end if self.unstable_from is None else self.unstable_from

    def records(self, next_offset: int) -> list[MemoryMessage]:
        """The records that a read_committed reader receives from `next_offset` on."""
        slots = self.slots[next_offset - self.start : self.stable_end - self.start]
        return [message for message in slots if message is not None]

    def append(self, message: MemoryMessage | None) -> int:
        self.slots.append(message)
        return self.end - 1

    def hide(self, offsets: Sequence[int]) -> None:
        """Remove records but keep their offsets, as compaction and aborted transactions do."""
        for offset in offsets:
            self.slots[offset - self.start] = None

    def delete_before(self, offset: int) -> None:
        offset = min(max(offset, self.start), self.end)
        del self.slots[: offset - self.start]
        self.start = offset
        if self.unstable_from is not None:
            self.unstable_from = max(self.unstable_from, offset)

    def truncate(self, end: int) -> None:
        """Delete the log from `end` on and begin a new epoch, as an unclean leader election does."""
        del self.slots[max(0, end - self.start) :]
        if self.unstable_from is not None and self.unstable_from >= self.end:
            self.unstable_from = None
        self.new_epoch()

    def new_epoch(self) -> None:
        self.epoch += 1
        self.epoch_starts[self.epoch] = self.end

    def epoch_at(self, offset: int) -> int:
        return max((epoch for epoch, start in self.epoch_starts.items() if start <= offset), default=0)

    def holds(self, next_offset: int, epoch: int | None) -> bool:
        """Whether a reader with `next_offset` from `epoch` may continue without loss."""
        if not self.start <= next_offset <= self.end:
            return False
        if epoch is None:
            return True
        later = [start for newer, start in self.epoch_starts.items() if newer > epoch]
        return epoch <= self.epoch and next_offset <= min(later, default=self.end)
