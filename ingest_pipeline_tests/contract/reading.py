"""Reading until something is there, in bounded time on every broker."""

import time
from collections.abc import Callable, Mapping

from ingest_pipeline.core.errors import IngestError
from ingest_pipeline.core.ports import Source
from ingest_pipeline.core.record import Message, NextOffset
from ingest_pipeline_tests.contract.kafka_worlds import OneTopic

SECONDS = 120.0


def read_until(
    source: OneTopic, done: Callable[[list[Message], dict[int, NextOffset]], bool], max_records: int = 1000
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
    source: OneTopic, ends: Mapping[int, int], max_records: int = 1000
) -> tuple[list[Message], dict[int, NextOffset]]:
    """Everything up to these ends of partition, told by the source."""
    return read_until(
        source,
        lambda _, seen: {partition: place.next_offset for partition, place in seen.items()} == dict(ends),
        max_records,
    )


def read_error(source: OneTopic, kind: type[Exception]) -> Exception:
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


class Reading:
    """Everything that was read from a source of several topics.

    Attributes:
        ends: topic → partition → newest end.
        errors: topic → error.
    """

    def __init__(self, source: Source, max_records: int = 1000) -> None:
        self._source, self._max_records = source, max_records
        self.records: dict[str, list[Message]] = {}
        self.ends: dict[str, dict[int, int]] = {}
        self.errors: dict[str, IngestError] = {}

    def until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not done():
            self.once()
            assert time.monotonic() < deadline, f"{SECONDS:g} s: ends {self.ends}, errors {self.errors}"

    def once(self) -> None:
        chunks = self._source.read(self._max_records, 0.05)
        assert sum(len(chunk.messages) for chunk in chunks.values()) <= self._max_records
        for topic, chunk in chunks.items():
            self.records.setdefault(topic, []).extend(chunk.messages)
            self.ends.setdefault(topic, {}).update({p: end.next_offset for p, end in chunk.ends.items()})
            if chunk.error is not None:
                self.errors[topic] = chunk.error

    def values(self, topic: str) -> list[bytes | None]:
        return values(self.records.get(topic, []))

    def offsets(self, topic: str, partition: int = 0) -> list[int]:
        return offsets(self.records.get(topic, []), partition)
