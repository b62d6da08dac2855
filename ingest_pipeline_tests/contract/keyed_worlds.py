"""A keyed stream on the in-memory ledger and on PostgreSQL, written by COPY and by executemany."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.ledger import Replayed
from ingest_pipeline.core.record import Batch, Message, NextOffset, Position
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.testing.log import MemoryMessage
from ingest_pipeline_tests.contract.stream_worlds import StreamWorld, url_of
from ingest_pipeline_tests.samples import STAMP_MS, make_batch

LIMIT = 1000
"""The table refuses a reading at or above it."""


class Level(msgspec.Struct):
    device: str
    version: int
    reading: int


def level(device: str, version: int, reading: int = 0) -> bytes:
    return msgspec.json.encode(Level(device, version, reading))


def keyed(**options: Any) -> Stream:
    return Stream("level", Level, key=("device",), **options)


KeyedRecord = tuple[int, str | None, bytes | None] | tuple[int, str | None, bytes | None, tuple[str, bytes]]
"""(partition, key, value), and a header."""


class KeyedWorld(StreamWorld):
    """A run that owns partitions 0 and 1 of a keyed stream, whose next records have the next offsets."""

    def __init__(self, kind: str, url: str, stream: Stream) -> None:
        super().__init__(kind, url, stream, partitions=(0, 1))
        self.decode = JsonDecoder(stream).decode
        self.read: dict[int, list[Message]] = {0: [], 1: []}

    def batch(self, *records: KeyedRecord) -> Batch:
        batch: list[Message] = []
        for partition, key, value, *headers in records:
            raw = None if key is None else key.encode()
            offset = len(self.read[partition])
            batch.append(
                MemoryMessage(partition, offset, 0, value, timestamp_ms=STAMP_MS, key=raw, headers=headers or None)
            )
            self.read[partition].append(batch[-1])
        return make_batch(self.session.positions, batch, stream=self.stream)

    def replay_part(self, partition: int, start: int, stop: int) -> Replayed:
        position = {partition: Position(partition, 1, NextOffset(start))}
        records = self.read[partition][start:stop]
        return self.missing.store(make_batch(position, records, stream=self.stream))

    def counters(self) -> tuple[int, int, int]:
        """Sums of rows, dead letters and skipped records, after a check that they account for every offset."""
        positions = self.ledger.positions().values()
        for position in positions:
            assert position.next_offset == position.rows + position.dead_letters + position.skipped
        return tuple(sum(getattr(p, name) for p in positions) for name in ("rows", "dead_letters", "skipped"))  # type: ignore[return-value]

    def rows(self) -> dict[str, tuple[int, int, int, int]]:
        """Device → (version, reading, partition, offset)."""
        if self.in_memory:
            rows: Any = [(*row[4:7], *row[1:3]) for row in self.table.rows.values()]
        else:
            rows = self.sql("SELECT device, version, reading, kafka_partition, kafka_offset FROM level")
        return {device: tuple(rest) for device, *rest in rows}

    def statuses(self) -> dict[tuple[int, int], str]:
        """(partition, offset) of dead letters → status."""
        if self.in_memory:
            return {where[1:]: str(self.table.settled.get(where, "open")) for where in self.table.dead_letters}
        letters = self.sql("SELECT kafka_partition, kafka_offset, status FROM ingest.dead_letter")
        return {(partition, offset): status for partition, offset, status in letters}

    def refuse_high_readings(self) -> None:
        self.check("low", f"reading < {LIMIT}", lambda row: row[6] < LIMIT)

    def accept_high_readings(self) -> None:
        self.drop_check("low")

    def rekey(self, keys: Mapping[tuple[int, int], str]) -> None:
        """Give dead letters another record key."""
        if self.in_memory:
            letters = self.table.dead_letters
            for where, letter in letters.items():
                letters[where] = replace(letter, key=keys[where[1:]].encode())
            return
        update = "UPDATE ingest.dead_letter SET key = %s WHERE kafka_partition = %s AND kafka_offset = %s"
        for (partition, offset), key in keys.items():
            self.sql(update, key.encode(), partition, offset)

    def lose(self, device: str) -> None:
        """Delete a row behind the ledger's back."""
        if self.in_memory:
            for where in [where for where, row in self.table.rows.items() if row[4] == device]:
                del self.table.rows[where]
        else:
            self.sql("DELETE FROM level WHERE device = %s", device)

    def reset(self) -> None:
        """Begin again at offset 0, with empty tables in PostgreSQL."""
        self.sql("TRUNCATE level, ingest.dead_letter, ingest.settled_letters")
        self.sql('UPDATE ingest.position SET next_offset = 0, "rows" = 0, dead_letters = 0, skipped = 0')
        self.session.release()
        assert self.session.own((0, 1), exact=True) == {}
        self.read = {0: [], 1: []}


NewWorld = Callable[[Stream], KeyedWorld]


def new_worlds(request: pytest.FixtureRequest) -> Iterator[NewWorld]:
    """Makes the world of a fixture's parameter for a stream."""
    worlds: list[KeyedWorld] = []

    def make(stream: Stream) -> KeyedWorld:
        worlds.append(KeyedWorld(request.param, url_of(request), stream))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()
