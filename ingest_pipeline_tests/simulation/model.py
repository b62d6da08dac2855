"""What was produced, in plain dicts, and what the ledger may make of it. Knows nothing of how the pipeline works."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from ingest_pipeline_tests.samples import good

GOOD, BROKEN, REFUSED, TOMBSTONE, ABSENT = "good", "broken", "refused", "tombstone", "absent"
KINDS = (GOOD, BROKEN, REFUSED, TOMBSTONE)
COLDEST = -273.15
Key = tuple[int, int, int]
"""(incarnation, partition, offset)."""
GAP = "gap"


@dataclass(eq=False, slots=True)
class Version:
    """What stood at an offset for a time. An offset has several when it was aborted, compacted, cut and written again.

    Attributes:
        until: the event that ended it; None while the log holds it.
        cut: it ended by a truncation, not by retention.
        settled: it was stored, skipped or given up by an operator who said so.
        stored: the row or the dead letter that it became last.
        again: the incarnation under which it may be stored once more, as an acceptance said.
    """

    kind: str
    device: str
    topic_id: str
    until: int | None = None
    cut: bool = False
    settled: bool = False
    stored: Key | None = None
    again: int | None = None

    @property
    def value(self) -> bytes | None:
        if self.kind == TOMBSTONE:
            return None
        return broken(self.device) if self.kind == BROKEN else good(self.device, COLDEST if self.kind == REFUSED else 1)


def broken(device: str) -> bytes:
    """A record's value that today's decoder refuses, and that `mended` can read."""
    return msgspec.json.encode({"device_id": device, "temperature": "warm", "timestamp": "2026-01-01T00:00:00+00:00"})


def mended(value: bytes) -> bytes:
    """What a newer decoder makes of a broken record."""
    return value.replace(b'"warm"', b"1.5")


class Model:
    """The truth. `event` counts what happened to the logs and who began to read them."""

    def __init__(self) -> None:
        self.event = 0
        self.serial = 0
        self.strict = True
        self.history: dict[int, dict[int, list[Version]]] = defaultdict(lambda: defaultdict(list))
        self.ends: dict[int, int] = {}
        self.starts: dict[int, int] = {}
        self.cuts: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self.open_since: dict[int, int] = {}
        self.topic_id = ""

    def begin_topic(self, topic_id: str, partitions: Iterable[int]) -> None:
        """A topic of this name is created: what an earlier one held is gone."""
        self.event += 1
        self.topic_id = topic_id
        for partition in self.ends:
            self._end(partition, range(self.ends[partition]), cut=True)
        self.ends, self.starts, self.open_since = {}, {}, {}
        self.add_partitions(partitions)

    def add_partitions(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self.ends[partition] = self.starts[partition] = 0

    def append(self, partition: int, kind: str) -> Version:
        self.event += 1
        self.serial += 1
        version = Version(kind, f"device-{self.serial}", self.topic_id)
        self.history[partition][self.ends[partition]].append(version)
        self.ends[partition] += 1
        return version

    def end_transaction(self, partition: int, commit: bool) -> None:
        first = self.open_since.pop(partition, self.ends[partition])
        if not commit:
            self.hide(partition, range(first, self.ends[partition]))
        self.append(partition, ABSENT)

    def hide(self, partition: int, offsets: Iterable[int]) -> None:
        """The offsets stay, the records do not."""
        self.event += 1
        offsets = [offset for offset in offsets if offset >= self.starts[partition]]
        self._end(partition, offsets, cut=False)
        for offset in offsets:
            self.history[partition][offset].append(Version(ABSENT, "", self.topic_id))

    def delete_before(self, partition: int, offset: int) -> None:
        self.event += 1
        self._end(partition, range(self.starts[partition], offset), cut=False)
        self.starts[partition] = max(offset, self.starts[partition])
        if partition in self.open_since:
            self.open_since[partition] = max(offset, self.open_since[partition])

    def truncate(self, partition: int, end: int) -> None:
        self.event += 1
        self._end(partition, range(end, self.ends[partition]), cut=True)
        self.ends[partition] = end
        self.cuts[partition].append((self.event, end))
        if self.open_since.get(partition, -1) >= end:
            del self.open_since[partition]

    def reading(self) -> int:
        """Somebody begins to read: nothing that ended before this can be handed to it."""
        self.event += 1
        return self.event

    def possible(self, partition: int, offset: int, since: int) -> list[Version]:
        """What a reader that began at `since` may have met there, the latest first."""
        found = self.history[partition][offset]
        return [version for version in reversed(found) if version.until is None or version.until > since]

    def latest(self, partition: int, offset: int) -> Version | None:
        found = self.history[partition].get(offset)
        return found[-1] if found else None

    def alive(self, partition: int, start: int, stop: int) -> list[tuple[int, Version]]:
        """What the log holds of these offsets and hands to a reader."""
        stop = min(stop, self.open_since.get(partition, stop))
        there = range(max(start, self.starts.get(partition, 0)), min(stop, self.ends.get(partition, 0)))
        found = ((offset, self.history[partition][offset][-1]) for offset in there)
        return [(offset, version) for offset, version in found if version.kind != ABSENT]

    def store_again(self, partition: int, start: int, incarnation: int) -> None:
        """An operator was told so of what the log still holds."""
        for _, version in self.alive(partition, start, self.ends.get(partition, 0)):
            version.again = incarnation

    def becomes_row(self, version: Version, decoder_mended: bool) -> bool:
        """Whether decoder and database take it today."""
        return (
            version.kind == GOOD
            or (version.kind == BROKEN and decoder_mended)
            or (version.kind == REFUSED and not self.strict)
        )

    def _end(self, partition: int, offsets: Iterable[int], cut: bool) -> None:
        for offset in offsets:
            for version in self.history[partition].get(offset, []):
                version.cut = version.cut or cut  # one that was compacted before, too: its offset is used again
            version = self.latest(partition, offset)
            if version is not None and version.until is None:
                version.until = self.event
