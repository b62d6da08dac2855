"""Decoding by columns gives the same rows and dead letters as decoding record by record."""

import json
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.errors import UnknownFault
from ingest_pipeline.core.record import MAX_MS, MIN_MS, Batch, NextOffset, Position
from ingest_pipeline.core.rows import RecordRules, decode_batch
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.testing.log import MemoryMessage
from ingest_pipeline_tests.samples import BAD, READING, STEADY, good

POSITIONS = {0: Position(0, 1, NextOffset(0)), 1: Position(1, 2, NextOffset(0))}
DECODER = JsonDecoder(READING)
RULES = RecordRules(max_record_bytes=400, dead_letter_max_bytes=20)

PIECES = [
    good(),
    good("x\\n"),
    BAD,
    None,
    b"",
    b"{",
    b"}",
    b"{}",
    b'{"device_id": "a", "temperature": 1, "timestamp": "2026-01-01T00:00:00Z"',
    b', "temperature": 2}',
    b'{"device_id": "a", "temperature": 1, "timestamp": "2026-01-01T00:00:00"}',
    b'{"device_id": "a",\n "temperature": 1,\n "timestamp": "2026-01-01T00:00:00Z"}',
    b' {"device_id": "a", "temperature": 1, "timestamp": "2026-01-01T00:00:00Z"} \n',
    b'{"device_id": "\\u0000", "temperature": 1, "timestamp": "2026-01-01T00:00:00Z"}',
    b'{"device_id": "\\\\u0000", "temperature": 1, "timestamp": "2026-01-01T00:00:00Z"}',
    b'{"device_id": "a", "temperature": 1, "timestamp": "0001-01-01T00:00:00+14:00"}',
    b'{"device_id": "a", "temperature": 1, "timestamp": "9999-12-31T23:59:59-14:00"}',
    good("y" * 500),
    good() + good(),
    good() + b"\n" + good(),
    good()[:-1],
    b'{"device_id": "' + good() + b'"}',
    b'{"device_id": "}',
    b'{"}',
    b'{"device_id": "a", "temperature": 1, "timestamp": "2026-01-01T00:00:00Z", "more": [{}',
    b'{}], "x": {}}',
    b"[" + good() + b"]",
    b"\xff\xfe",
    b"\xef\xbb\xbf" + good(),
]


def outcome(batch: Batch | None) -> Any:
    if batch is None:
        return None
    letters = [(letter.offset, letter.stage, letter.reason, letter.value) for letter in batch.dead_letters]
    kept = [message.offset() for message in batch.messages]
    return batch.rows, kept, letters, batch.rows_before, batch.advances


def messages(values: list[bytes | None], stamps: list[int | None] | None = None) -> list[Any]:
    times = stamps or [1_700_000_000_000] * len(values)
    return [
        MemoryMessage(number % 2, number // 2, 0, value, timestamp_ms=ms)
        for number, (value, ms) in enumerate(zip(values, times, strict=True))
    ]


@settings(STEADY, max_examples=400)
@given(st.lists(st.sampled_from(PIECES), max_size=100), st.lists(st.just(good()), max_size=60))
@example([good()] * 1000, [])
@example([good() + b'{"device_id": "a", "x": {}', b', "y": {}}'], [good()])
def test_decoding_together_equals_decoding_alone(odd: list[bytes | None], healthy: list[bytes]) -> None:
    values = [*healthy, *odd, *healthy]
    alone = decode_batch(messages(values), {}, POSITIONS, decode=DECODER.decode, rules=RULES)
    many = decode_batch(
        messages(values), {}, POSITIONS, decode=DECODER.decode, rules=RULES, decode_many=DECODER.decode_many
    )
    assert outcome(many) == outcome(alone)


@settings(STEADY, max_examples=1000)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text('{}[]",:\n 1a', max_size=12).map(str.encode)), max_size=6))
def test_values_do_not_mix(values: list[bytes | None]) -> None:
    rows, odd = DECODER.decode_many(values)
    even = [value for i, value in enumerate(values) if i not in odd]
    assert rows == [DECODER.decode(value) for value in even if value is not None]
    assert len(rows) == len(even) == len(values) - len(set(odd))


def test_only_doubtful_records_are_decoded_alone() -> None:
    alone: list[bytes] = []

    def counted(value: bytes) -> tuple[Any, ...]:
        alone.append(value)
        return DECODER.decode(value)

    values: list[bytes | None] = [*[good()] * 300, BAD, good("nul\0"), *[good("\\")] * 300]
    batch = decode_batch(messages(values), {}, POSITIONS, decode=counted, rules=RULES, decode_many=DECODER.decode_many)
    assert batch is not None
    assert (len(batch.rows), len(batch.dead_letters), alone) == (600, 2, values[300:302])


def test_a_too_large_value_is_not_decoded() -> None:
    def many(values: Sequence[bytes | None]) -> tuple[list[tuple[Any, ...]], list[int]]:
        assert values[1] is None
        return DECODER.decode_many(values)

    values: list[bytes | None] = [good(), good("a" * 500), None, good()]
    batch = decode_batch(messages(values), {}, POSITIONS, decode=DECODER.decode, rules=RULES, decode_many=many)
    assert batch is not None
    assert (len(batch.rows), [letter.stage for letter in batch.dead_letters], batch.rows_before) == (2, ["size"], [1])


@pytest.mark.parametrize("rows", [0, 2, 4])
def test_a_decoder_with_a_wrong_row_count_stores_nothing(rows: int) -> None:
    def many(values: Sequence[bytes | None]) -> tuple[list[tuple[Any, ...]], list[int]]:
        return [(1,)] * rows, []

    with pytest.raises(UnknownFault, match=f"{rows} rows for 3 records"):
        decode_batch(messages([good()] * 3), {}, POSITIONS, decode=DECODER.decode, rules=RULES, decode_many=many)


class Mood(msgspec.Struct):
    number: int


class Restless(msgspec.Struct):
    event_time: datetime
    mood: Mood

    def __post_init__(self) -> None:
        if self.mood.number == 2:
            self.event_time = "soon"  # type: ignore[assignment]
        if self.mood.number == 3:
            self.mood = None  # type: ignore[assignment]


def test_an_event_that_changes_its_types_is_one_dead_letter() -> None:
    decoder = JsonDecoder(Stream("restless", Restless))
    values: list[bytes | None] = [
        b'{"event_time": "2026-01-01T00:00:00Z", "mood": {"number": %d}}' % number for number in (1, 2, 1, 3, 1)
    ]
    batch = decode_batch(
        messages(values), {}, POSITIONS, decode=decoder.decode, rules=RULES, decode_many=decoder.decode_many
    )
    assert batch is not None
    assert ([letter.reason for letter in batch.dead_letters], batch.rows_before, len(batch.rows)) == (
        ["cannot be decoded (AttributeError)"] * 2,
        [1, 2],
        3,
    )


@pytest.mark.parametrize(
    "stamps", [[None, 5], [MIN_MS, MAX_MS], [MIN_MS - 1, 0], [0, MAX_MS + 1], [2**62, -(2**62)], [0, 1], [-1, -2]]
)
def test_timestamps_that_postgres_cannot_store_are_null(stamps: list[int | None]) -> None:
    batch = decode_batch(messages([good()] * 2, stamps), {}, POSITIONS, decode=DECODER.decode, rules=RULES)
    assert batch is not None
    storable = [None if ms is None or ms == -1 or not MIN_MS <= ms <= MAX_MS else ms for ms in stamps]
    assert [row[3] for row in batch.rows] == [None if ms is None else (ms - 946_684_800_000) * 1000 for ms in storable]


class AppendTime(MemoryMessage):
    """A message with the broker's time in place of the producer's."""

    def timestamp(self) -> tuple[int, int]:
        return 2, super().timestamp()[1]


def test_the_brokers_time_is_stored_like_the_producers() -> None:
    records: list[Any] = [AppendTime(0, 0, 0, good(), timestamp_ms=ms) for ms in (946_684_800_001, -1)]
    batch = decode_batch(records, {}, POSITIONS, decode=DECODER.decode, rules=RULES)
    assert batch is not None
    assert [row[3] for row in batch.rows] == [1000, None]


class Fare(msgspec.Struct):
    fare: Decimal
    event_time: datetime
    ended: datetime | None = None


@pytest.mark.parametrize("fare", ["1.5", "NaN", "-Infinity"])
def test_streams_with_decimals_are_decoded_one_by_one(fare: str) -> None:
    decoder = JsonDecoder(Stream("fare", Fare))
    value = json.dumps({"fare": fare, "event_time": "2026-01-01T00:00:00Z"}).encode()
    assert decoder.decode_many([value] * 2) == ([], [0, 1])
