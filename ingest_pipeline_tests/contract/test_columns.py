"""Key, headers, undeclared fields: the same row whether it is stored at once, redriven or replayed."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.ledger import Redriven, Replayed
from ingest_pipeline.core.record import Message, NextOffset, Position
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.testing.log import MemoryMessage
from ingest_pipeline_tests.contract.stream_worlds import WORLDS, StreamWorld, stream_world
from ingest_pipeline_tests.samples import make_batch, plain

TIME = "2026-01-01T00:00:00Z"
NUL = "NUL character in an undeclared field, which PostgreSQL cannot store"
MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)


class Where(msgspec.Struct):
    city: str


class Reading(msgspec.Struct):
    celsius: float
    event_time: datetime
    site: Where | None = None


def stream(key_type: type = bytes) -> Stream:
    return Stream(
        "sensed",
        Reading,
        key_column="key",
        key_type=key_type,
        headers_column="headers",
        extra_column="extra",
        id_column="id",
    )


class Once(MemoryMessage):
    """Headers that the real client could be asked for only once, or not at all."""

    reads = 0
    unreadable = False

    def headers(self) -> Any:
        self.reads += 1
        assert self.reads == 1
        if self.unreadable:
            raise SystemError
        return super().headers()


def record(offset: int, key: bytes | None, headers: Any = None, **fields: Any) -> Once:
    value = json.dumps({"celsius": 1.5, "event_time": TIME, **fields}).encode()
    return Once(0, offset, 0, value, key=key, headers=headers, timestamp_ms=1_700_000_000_000)


def encoded(value: bytes) -> str:
    return base64.b64encode(value).decode()


def records() -> list[Message]:
    return [
        record(0, b"k0", [("trace", b"\xff"), ("trace", None)], more=[1, {"a": None}], site={"city": "Rome", "zip": 1}),
        record(1, None),
        record(2, b"\xff\x00", [("x", b"")], site={"city": "Oslo"}),
        record(3, "é".encode(), None, site=None, other=2**70),
        Once(0, 4, 0, None, key=b"gone", headers=[("x", b"")]),
    ]


AT = 1, 0
STAMP = (1_700_000_000 - 946_684_800) * 1_000_000
FIRST = [["trace", encoded(b"\xff")], ["trace", None]]
BY_BYTES = [
    (*AT, 0, STAMP, b"k0", FIRST, 1.5, MIDNIGHT, "Rome", {"more": [1, {"a": None}], "site": {"zip": 1}}),
    (*AT, 1, STAMP, None, None, 1.5, MIDNIGHT, None, None),
    (*AT, 2, STAMP, b"\xff\x00", [["x", ""]], 1.5, MIDNIGHT, "Oslo", None),
    (*AT, 3, STAMP, "é".encode(), None, 1.5, MIDNIGHT, None, {"other": 2**70}),
]


def write(world: StreamWorld, messages: list[Message], decode: Any = None) -> None:
    world.session.write(make_batch(world.session.positions, messages, stream=world.stream, decode=decode))


def rows(world: StreamWorld) -> list[tuple[Any, ...]]:
    if world.in_memory:
        return sorted(map(plain, world.table.rows.values()), key=lambda row: row[2])
    names = ", ".join(
        "((extract(epoch FROM kafka_timestamp) - 946684800) * 1000000)::bigint"
        if name == "kafka_timestamp"
        else f'"{name}"'
        for name in world.stream.columns
    )
    return world.sql(f"SELECT {names} FROM sensed ORDER BY kafka_offset")


@pytest.fixture
def key_type() -> type:
    return bytes


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, key_type: type) -> Iterator[StreamWorld]:
    """Its table refuses readings of 7 degrees."""
    with stream_world(request, stream(key_type)) as made:
        made.check("not_seven", "celsius <> 7", lambda row: row[6] != 7)
        yield made


def test_a_row_has_the_parts_of_its_record(world: StreamWorld) -> None:
    write(world, records())
    assert rows(world) == BY_BYTES
    assert world.refused() == []
    assert world.ledger.positions()[0].skipped == 1


def test_one_by_one_and_together_are_the_same(world: StreamWorld) -> None:
    for record in records():
        write(world, [record])
    assert rows(world) == BY_BYTES


def test_a_redriven_row_is_the_row_that_would_have_been_stored(world: StreamWorld) -> None:
    def broken(value: bytes) -> tuple[object, ...]:
        return JsonDecoder(Stream("other", msgspec.defstruct("Other", [("no", int), ("event_time", datetime)]))).decode(
            value
        )

    write(world, records(), decode=broken)
    assert rows(world) == []
    assert [offset for offset, _, _ in world.refused()] == [0, 1, 2, 3]
    world.redrive()
    assert rows(world) == BY_BYTES
    assert world.refused() == []


def test_so_is_a_row_that_the_database_refused(world: StreamWorld) -> None:
    """Its headers have been read: the letter takes them from the row."""
    write(world, [record(0, b"k0", [("trace", b"\xff")], celsius=7, more=1), record(1, b"k1", [("x", None)])])
    assert [offset for offset, _, _ in world.refused()] == [0]
    world.drop_check("not_seven")
    world.redrive()
    assert rows(world) == [
        (*AT, 0, STAMP, b"k0", [["trace", encoded(b"\xff")]], 7.0, MIDNIGHT, None, {"more": 1}),
        (*AT, 1, STAMP, b"k1", [["x", None]], 1.5, MIDNIGHT, None, None),
    ]


def test_a_replayed_row_is_the_same(world: StreamWorld) -> None:
    write(world, records())
    world.table.rows.clear() if world.in_memory else world.sql("DELETE FROM sensed")
    batch = make_batch({0: Position(0, 1, NextOffset(0))}, records(), stream=world.stream)
    assert world.missing.store(batch) == Replayed(stored=4)
    assert rows(world) == BY_BYTES


@pytest.mark.parametrize("key_type", [str])
def test_a_key_that_text_cannot_hold_costs_its_record(world: StreamWorld) -> None:
    write(world, [*records(), record(5, b"a\0b"), record(6, b"\xff", celsius="x")])
    assert [(row[2], row[4]) for row in rows(world)] == [(0, "k0"), (1, None), (3, "é")]
    expected = [
        (2, "decode", "key is not UTF-8, which its text column needs"),
        (5, "value", "NUL character in the key, which PostgreSQL cannot store as text"),
        (6, "decode", "key is not UTF-8, which its text column needs"),
    ]
    assert world.refused() == expected
    world.redrive()
    assert world.refused() == expected


def test_unreadable_headers_cost_their_record_and_are_never_asked_for_again(world: StreamWorld) -> None:
    bad = record(1, b"k")
    bad.unreadable = True
    cold = record(2, b"k", [("x", b"y")], celsius=7)
    write(world, [record(0, b"k", [("x", b"y")]), bad, cold])
    assert [offset for offset, _, _ in world.refused()] == [1, 2]
    assert world.refused()[0][1:] == ("decode", "headers cannot be read: a key is not UTF-8")
    assert (bad.reads, cold.reads) == (1, 1)
    world.drop_check("not_seven")
    world.redrive()
    assert [(row[2], row[5]) for row in rows(world)] == [(0, [["x", "eQ=="]]), (1, None), (2, [["x", "eQ=="]])]


@pytest.mark.parametrize(
    ("undeclared", "expected"),
    [
        (rb'"x": "a\u0000b"', ("value", NUL)),
        (rb'"a\u0000b": 1', ("value", NUL)),
        (rb'"site": {"city": "Rome", "x": ["a\u0000b"]}', ("value", NUL)),
        (b'"x": "\xff"', ("decode", "in an undeclared field: not valid UTF-8")),
        (b'"x": ' + b"[" * 20_000 + b"]" * 20_000, ("decode", "nested too deeply")),
        (b'"x": ' + b"9" * 140_000, ("decode", "in an undeclared field: ")),
    ],
    ids=range(6),
)
def test_undeclared_poison_costs_its_record(world: StreamWorld, undeclared: bytes, expected: tuple[str, str]) -> None:
    value = b'{"celsius": 1.5, "event_time": "2026-01-01T00:00:00Z", ' + undeclared + b"}"
    write(world, [record(0, b"k"), Once(0, 1, 0, value, key=b"k"), record(2, b"k")])
    assert [row[2] for row in rows(world)] == [0, 2]
    ((offset, stage, reason),) = world.refused()
    assert (offset, stage) == (1, expected[0])
    assert reason.startswith(expected[1])


@pytest.mark.parametrize("world", WORLDS[1:], indirect=True)
def test_the_database_numbers_the_rows(world: StreamWorld) -> None:
    write(world, records())
    numbers = [number for (number,) in world.sql("SELECT id FROM sensed ORDER BY kafka_offset")]
    assert len(set(numbers)) == 4
    assert numbers == sorted(numbers)


class Order(msgspec.Struct):
    number: int
    kind: str = msgspec.field(name="ce_type")


@pytest.fixture(params=WORLDS)
def orders(request: pytest.FixtureRequest) -> Iterator[StreamWorld]:
    with stream_world(request, Stream("orders", Order, envelope="cloudevents")) as made:
        made.check("small", "number < 5", lambda row: row[4] < 5)
        yield made


def test_a_redrive_reads_the_parts_of_a_value_in_the_letters_headers(orders: StreamWorld) -> None:
    headers = [("ce_specversion", b"1.0"), ("ce_type", b"sale")]
    write(orders, [MemoryMessage(0, 0, 0, b'{"number": 7}', headers=headers)], orders.decode)
    assert orders.reasons()[0].startswith("check violation (23514), constraint small")
    orders.drop_check("small")
    assert orders.redrive() == Redriven(stored=1)
    if orders.in_memory:
        assert [row[4:] for row in orders.table.rows.values()] == [(7, "sale")]
    else:
        assert orders.sql("SELECT number, kind FROM orders") == [(7, "sale")]
