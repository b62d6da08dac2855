"""The lines of a file as records."""

from __future__ import annotations

from dataclasses import dataclass

from .record import NO_TIMESTAMP_MS


@dataclass(frozen=True, slots=True)
class FileLine:
    """A line in the place of a Kafka record. Its offset is the number of the line, from 1."""

    line: bytes
    file_partition: int
    number: int

    def __len__(self) -> int:
        return len(self.line)

    def value(self) -> bytes | None:
        return self.line

    def key(self) -> bytes | None:
        return None

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return None

    def partition(self) -> int:
        return self.file_partition

    def offset(self) -> int:
        return self.number

    def leader_epoch(self) -> int | None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 0, NO_TIMESTAMP_MS
