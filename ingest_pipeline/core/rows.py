"""Messages → rows and dead letters. The drain loop spends half of its time here, so the code works on columns.

CPU per record of 90 bytes on one core with msgspec 0.22: 0.8 µs by columns, 1.0 µs record by record.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress
from operator import add, itemgetter
from typing import Any

from .choices import Tombstones
from .dead_letters import Headers, dead_letter
from .errors import IngestError, RecordDeleted, RecordRefused, RecordSkipped, RefusalStage, UnknownFault
from .record import (
    MAX_MS,
    MIN_MS,
    NO_TIMESTAMP_MS,
    PG_EPOCH_MS,
    Advance,
    Batch,
    Deletion,
    Message,
    NextOffset,
    Position,
    RecordKeys,
    next_offset_after,
)
from .record_columns import NO_RECORD_COLUMNS, NOTHING_READ, RecordColumns

Decode = Callable[[bytes], tuple[object, ...]]
DecodeMany = Callable[[Sequence[bytes | None]], tuple[list[tuple[object, ...]], list[int]]]

_NO_TIMESTAMP = 0
_PG_EPOCH = PG_EPOCH_MS * 1000
_MAX_STAMP = MAX_MS * 1000 - _PG_EPOCH


@dataclass(frozen=True, slots=True)
class RecordRules:
    """The rules that apply to a record before its value is decoded.

    Attributes:
        tombstones: only count records without a value, or make dead letters of them.
        record_columns: what becomes of the key and the headers.
        record_keys: make a Deletion of a tombstone or of a change event about a deleted row. None: both are skipped.
    """

    max_record_bytes: int = 1 << 20
    dead_letter_max_bytes: int = 1 << 20
    tombstones: Tombstones = Tombstones.SKIP
    record_columns: RecordColumns = NO_RECORD_COLUMNS
    record_keys: RecordKeys | None = None


DEFAULT_RULES = RecordRules()


def one_by_one(values: Sequence[bytes | None]) -> tuple[list[tuple[object, ...]], list[int]]:
    """The DecodeMany of a decoder for single values."""
    return [], list(range(len(values)))


def decode_batch(
    messages: list[Message],
    ends: Mapping[int, NextOffset],
    positions: Mapping[int, Position],
    *,
    decode: Decode,
    rules: RecordRules,
    decode_many: DecodeMany = one_by_one,
) -> Batch | None:
    """Make rows, dead letters and advances of messages. None if no position advances.

    Args:
        positions: the ledger's positions, for all partitions in `messages` and `ends`.
        decode_many: returns rows in order, and indices of values that `decode` gets one at a time.
    """
    partitions = _column("partition", messages)
    incarnations = _incarnations(partitions, positions)
    offsets, values = _column("offset", messages), _column("value", messages)
    parts = rules.record_columns.read(messages) if rules.record_columns.any else NOTHING_READ
    unreadable, headers = parts.refused, parts.headers
    if rules.record_columns.frame is not None and any(headers):
        values = list(map(rules.record_columns.framed, values, headers))
    for i in unreadable:
        values[i] = None
    coordinates = list(zip(incarnations, partitions, offsets, _stamps(messages), *parts.columns, strict=True))
    batch = Batch([], [], [], {}, records=len(messages), record_keys=rules.record_keys)
    skipped = Counter[int]()
    rows, odd = decode_many(_without_large(values, rules.max_record_bytes))
    kept = bytearray(b"\1") * len(messages)
    dropped = 0
    deletions: list[int] = []
    for i in odd:  # ascending, so all records before i are settled
        before, tombstone = i - dropped, values[i] is None and i not in unreadable
        try:
            if i in unreadable:
                raise unreadable[i]
            key = partial(_read_key, rules.record_columns, messages[i], headers[i : i + 1])
            decoded, deleted = decode_or_delete(values[i], key, decode, rules)
            rows.insert(before, decoded)
            deletions += [before] * deleted
            continue
        except RecordRefused as refused:
            skips = rules.tombstones == Tombstones.SKIP and rules.record_keys is None
            if isinstance(refused, RecordSkipped) or (tombstone and skips):
                skipped[partitions[i]] += 1
            else:
                batch.dead_letters.append(
                    dead_letter(
                        messages[i],
                        coordinates[i][0],
                        refused,
                        value_limit=rules.dead_letter_max_bytes,
                        headers_read=headers[i : i + 1],
                    )
                )
                batch.rows_before.append(before)
        kept[i], dropped = 0, dropped + 1
    if len(rows) != (expected := len(messages) - dropped):  # `map` below stops silently at the shorter list
        raise UnknownFault(f"the decoder gave {len(rows)} rows for {expected} records: none was stored")
    batch.rows = list(map(add, compress(coordinates, kept) if dropped else coordinates, rows))
    for index in deletions:
        batch.rows[index] = Deletion(batch.rows[index])
    batch.messages = list(compress(messages, kept)) if dropped else messages
    batch.headers = list(compress(headers, kept)) if dropped else headers
    batch.advances = _advances(_last(partitions, messages), ends, positions, skipped)
    return batch if batch.advances else None


def _column(name: str, messages: Sequence[Message]) -> list[Any]:
    """Results of one method. A single lookup in the type is twice as fast as a lookup per message."""
    return list(map(getattr(type(messages[0]), name), messages)) if messages else []


def _without_large(values: list[bytes | None], max_bytes: int) -> list[bytes | None]:
    """None in place of too large values."""
    if max(map(len, filter(None, values)), default=0) <= max_bytes:
        return values
    return [value if value is None or len(value) <= max_bytes else None for value in values]


def decode_one(value: bytes | None, decode: Decode, max_bytes: int) -> tuple[object, ...]:
    """The event's columns of one row. Raises RecordRefused, EnvironmentFault and MemoryError."""
    if value is None:
        raise RecordRefused("a tombstone: the record has no value")
    if len(value) > max_bytes:
        raise RecordRefused(f"larger than MAX_RECORD_BYTES, {max_bytes:,} bytes", stage=RefusalStage.SIZE)
    try:
        return decode(value)
    except (IngestError, MemoryError):
        raise
    except Exception as error:  # for example an event whose own check changed a field's type
        raise RecordRefused(f"cannot be decoded ({type(error).__name__})") from None


def decode_or_delete(
    value: bytes | None, read_key: Callable[[], bytes | None], decode: Decode, rules: RecordRules
) -> tuple[tuple[object, ...], bool]:
    """As decode_one, and whether the row is a Deletion, whose columns come from the record's key."""
    if rules.record_keys is None:
        return decode_one(value, decode, rules.max_record_bytes), False
    if value is not None:
        try:
            return decode_one(value, decode, rules.max_record_bytes), False
        except RecordDeleted:
            pass
    return rules.record_keys.deleted_row(read_key()), True


def _read_key(columns: RecordColumns, message: Message, headers: Sequence[Headers | None]) -> bytes | None:
    return columns.framed_key(message.key(), *headers)


def _incarnations(partitions: Iterable[int], positions: Mapping[int, Position]) -> Iterator[int]:
    return map({p: position.incarnation for p, position in positions.items()}.__getitem__, partitions)


def _stamps(messages: Sequence[Message]) -> list[int | None]:
    """Microseconds since 2000-01-01, PostgreSQL's epoch. None without a time that PostgreSQL can store."""
    if not messages:
        return []
    stamps = _column("timestamp", messages)
    if _NO_TIMESTAMP not in map(itemgetter(0), stamps):
        microseconds = [ms * 1000 - _PG_EPOCH for _, ms in stamps]
        if min(microseconds) >= -_PG_EPOCH and max(microseconds) <= _MAX_STAMP:
            return microseconds
    return [
        (ms - PG_EPOCH_MS) * 1000
        if kind != _NO_TIMESTAMP and ms != NO_TIMESTAMP_MS and MIN_MS <= ms <= MAX_MS
        else None
        for kind, ms in stamps
    ]


def _last(partitions: Sequence[int], messages: Sequence[Message]) -> dict[int, Message]:
    last: dict[int, Message] = {}
    partition_count = len(set(partitions))
    for partition, message in zip(reversed(partitions), reversed(messages), strict=True):
        if len(last) == partition_count:
            break
        last.setdefault(partition, message)
    return last


def _advances(
    last: Mapping[int, Message],
    ends: Mapping[int, NextOffset],
    positions: Mapping[int, Position],
    skipped: Mapping[int, int],
) -> dict[int, Advance]:
    """Partition → advance: behind the last record, or to an end of partition behind the last record."""
    reached = {partition: next_offset_after(message) for partition, message in last.items()}
    for partition, end in ends.items():
        if partition not in reached or end.next_offset > reached[partition].next_offset:
            reached[partition] = end
    return {
        partition: Advance(positions[partition].incarnation, expected, resume_at, skipped.get(partition, 0))
        for partition, resume_at in reached.items()
        if resume_at.next_offset > (expected := positions[partition].resume_at.next_offset)
    }
