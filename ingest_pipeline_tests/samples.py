"""A small stream, its records and batches, for tests of the loop and the ledger."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from hypothesis import settings

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.record import Batch, Message, NextOffset, Position, RecordKeys, StoredPosition, TopicIdentity
from ingest_pipeline.core.record_keys import record_keys
from ingest_pipeline.core.rows import Decode, RecordRules, decode_batch
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.operations.decoders import key_reader
from ingest_pipeline.schema_registry.registry import SchemaRegistry
from ingest_pipeline.testing.log import MemoryMessage

STEADY = settings(derandomize=True, deadline=None, database=None, max_examples=100)
"""Settings for Hypothesis: the same examples in every run, so that a failure is reproducible."""

IDENTITY = TopicIdentity("cluster", "topic", 2)
STAMP_MS = 1_700_000_000_000
BAD = b'{"broken'


class Reading(msgspec.Struct):
    device_id: str
    temperature: float
    event_time: datetime = msgspec.field(name="timestamp")


READING = Stream("reading", Reading)


def plain(row: Sequence[Any]) -> tuple[Any, ...]:
    """The row with its JSON parsed."""
    return tuple(msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value for value in row)


def good(device: str = "a", temperature: float = 20.5) -> bytes:
    """The value of a valid record."""
    return msgspec.json.encode(
        {"device_id": device, "temperature": temperature, "timestamp": "2026-01-01T00:00:00.5+00:00"}
    )


def message(partition: int, offset: int, value: bytes | None = None, *, epoch: int = 0) -> MemoryMessage:
    """A valid record, or one with this `value`. For a tombstone use `tombstone`."""
    value = good(f"{partition}/{offset}") if value is None else value
    return MemoryMessage(partition, offset, epoch, value, timestamp_ms=STAMP_MS + offset)


def tombstone(partition: int, offset: int) -> MemoryMessage:
    return MemoryMessage(partition, offset, 0, None, timestamp_ms=STAMP_MS)


def messages(partition: int, offsets: Iterable[int]) -> list[Message]:
    return [message(partition, offset) for offset in offsets]


def make_batch(
    positions: Mapping[int, Position],
    records: list[Message],
    ends: Mapping[int, NextOffset] | None = None,
    *,
    stream: Stream = READING,
    decode: Decode | None = None,
) -> Batch:
    """The batch that the loop would make of these records."""
    batch = decode_batch(
        records,
        ends or {},
        positions,
        decode=decode or JsonDecoder(stream).decode,
        rules=RecordRules(
            dead_letter_max_bytes=1024, record_columns=stream.record_columns, record_keys=keys_of(stream)
        ),
    )
    assert batch is not None
    return batch


def keys_of(stream: Stream) -> RecordKeys | None:
    """The reader of the stream's record keys. No schema registry answers."""
    return record_keys(stream, key_reader(stream, lambda: SchemaRegistry({})))


def stored_position(**values: Any) -> StoredPosition:
    """A partition's row in the ledger, without an owner and with counters of 0 unless `values` names others."""
    counters = dict.fromkeys(("first_offset", "rows", "dead_letters", "skipped", "absent", "lost"), 0)
    nothing = dict.fromkeys(("cluster_id", "topic_id", "leader_epoch", "run_id"))
    return StoredPosition(**({"incarnation": 1} | counters | nothing | values))
