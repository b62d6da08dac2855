"""Reading until something is there, in bounded time on every broker."""

import time
from collections.abc import Callable, Mapping

from ingest_pipeline.core.ports import Source
from ingest_pipeline.core.record import Message, NextOffset

SECONDS = 30.0


def read_until(
    source: Source, done: Callable[[list[Message], dict[int, NextOffset]], bool], max_records: int = 1000
) -> tuple[list[Message], dict[int, NextOffset]]:
    """Everything read, and the newest end of each partition, once `done` says so."""
    records: list[Message] = []
    ends: dict[int, NextOffset] = {}
    deadline = time.monotonic() + SECONDS
    while not done(records, ends):
        chunk = source.read(max_records, 0.05)
        assert len(chunk.messages) <= max_records
        records += chunk.messages
        for partition, place in chunk.ends.items():
            behind = [message.offset() + 1 for message in records if message.partition() == partition]
            assert place.next_offset >= max(behind, default=0), "an end before records that were already handed over"
            ends[partition] = place
        assert time.monotonic() < deadline, f"{SECONDS:g} s: {len(records)} records, ends {ends}"
    return records, ends


def read_to(
    source: Source, ends: Mapping[int, int], max_records: int = 1000
) -> tuple[list[Message], dict[int, NextOffset]]:
    """Everything up to these ends of partition, told by the source."""
    return read_until(
        source,
        lambda _, seen: {partition: place.next_offset for partition, place in seen.items()} == dict(ends),
        max_records,
    )


def read_error(source: Source, kind: type[Exception]) -> Exception:
    """The error of this kind that reading ends in."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            source.read(1000, 0.05)
        except kind as error:
            return error
    raise AssertionError(f"{SECONDS:g} s of reading and no {kind.__name__}")


def values(records: list[Message], partition: int | None = None) -> list[bytes | None]:
    return [message.value() for message in records if partition is None or message.partition() == partition]


def offsets(records: list[Message], partition: int = 0) -> list[int]:
    return [message.offset() for message in records if message.partition() == partition]
