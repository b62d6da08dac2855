"""Columns that a stream may have beside its event's: what may be declared, and what each record puts there."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.errors import RecordRefused, SettingsError
from ingest_pipeline.core.record import NextOffset, Position
from ingest_pipeline.core.rows import RecordRules, decode_batch
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.testing.log import MemoryMessage
from ingest_pipeline_tests.samples import BAD, READING, STEADY, Reading, good, plain

ALL = {"key_column": "key", "headers_column": "headers", "extra_column": "extra", "id_column": "id"}
POSITIONS = {0: Position(0, 1, NextOffset(0))}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Array(msgspec.Struct, array_like=True):
    x: int
    event_time: datetime


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    event_time: datetime


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key_column": "kafka_offset"}, "key_column 'kafka_offset': every event table has a column of that name"),
        ({"id_column": "ingested_at"}, "id_column 'ingested_at': every event table has"),
        ({"headers_column": "device_id"}, "headers_column 'device_id': Reading has a field of that name"),
        ({"key_column": "x", "extra_column": "x"}, "extra_column 'x': that is the key_column"),
        ({"id_column": "é" * 32}, "'é+' does not fit PostgreSQL's 63 bytes"),
        ({"extra_column": "a\0b"}, "'a.*b' does not fit"),
        ({"key_column": "xmin"}, "key_column 'xmin': every table of PostgreSQL has a system column of that name"),
        ({"id_column": "tableoid"}, "id_column 'tableoid': every table of PostgreSQL has a system column"),
        ({"key_type": str}, "key_type is bytes or str, and the type of a key_column"),
        ({"key_column": "key", "key_type": int}, "key_type is bytes or str"),
        ({"event": Strict, "extra_column": "more"}, "Strict forbids unknown fields, so extra_column would stay empty"),
        ({"event": Array, "extra_column": "more"}, "Array is read from an array, which has no keys for extra_column"),
        (
            {
                "event": msgspec.defstruct("Outer", [("inner", Array), ("event_time", datetime)]),
                "extra_column": "more",
            },
            "Array is read from an array",
        ),
    ],
)
def test_what_cannot_be_a_column_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=f"stream reading: {message}"):
        Stream(**{"name": "reading", "event": Reading, **options})


def test_the_list_of_columns() -> None:
    stream = Stream("reading", Reading, **ALL, key_type=str)
    assert [(column.name, column.pg_type, column.nullable) for column in stream.table_columns] == [
        ("kafka_incarnation", "smallint", False),
        ("kafka_partition", "integer", False),
        ("kafka_offset", "bigint", False),
        ("id", "bigint", False),
        ("key", "text", True),
        ("headers", "jsonb", True),
        ("device_id", "text", False),
        ("temperature", "double precision", False),
        ("event_time", "timestamp with time zone", False),
        ("extra", "jsonb", True),
        ("kafka_timestamp", "timestamp with time zone", True),
        ("ingested_at", "timestamp with time zone", False),
    ]
    assert stream.columns[3:] == (
        "kafka_timestamp", "key", "headers", "device_id", "temperature", "event_time", "extra",
    )  # fmt: skip
    assert Stream("reading", Reading, key_column="key").table_columns[3].pg_type == "bytea"


def test_the_definition_changes_with_each() -> None:
    streams = [
        Stream("reading", Reading),
        *(Stream("reading", Reading, **{name: column}) for name, column in ALL.items()),
        Stream("reading", Reading, key_column="key", key_type=str),
    ]
    assert len({stream.definition() for stream in streams}) == len(streams)


KEYS = [None, b"", b"k", "é".encode(), b"\xff", b"a\0b"]
VALUES = [good(), None, BAD, good("\\u0041"), good()[:-1] + b', "more": {"a": [1]}}', good("x" * 500)]
HEADERS: list[Any] = [None, [], [("a", b"\x00"), ("a", None)]]


class Once(MemoryMessage):
    def __init__(self, offset: int, value: bytes | None, key: bytes | None, headers: Any) -> None:
        super().__init__(0, offset, 0, value, key=key, timestamp_ms=5)
        self.answer, self.reads = headers, 0

    def headers(self) -> Any:
        self.reads += 1
        if self.answer == "unreadable":
            raise SystemError
        return self.answer


RECORDS = st.tuples(st.sampled_from(VALUES), st.sampled_from(KEYS), st.sampled_from([*HEADERS, "unreadable"]))


@STEADY
@given(
    st.lists(RECORDS, max_size=40),
    st.sampled_from([bytes, str]),
    st.sampled_from(["skip", "dead-letter"]),
    st.sets(st.sampled_from(sorted(ALL))),
)
def test_together_they_give_what_they_give_alone(
    records: list[Any], key_type: Any, tombstones: Any, names: set[str]
) -> None:
    options = {name: ALL[name] for name in names} | ({"key_type": key_type} if "key_column" in names else {})
    stream = Stream("reading", Reading, **options)
    rules = RecordRules(400, 20, tombstones, stream.record_columns)
    decoder = JsonDecoder(stream)

    def batch(**decode_many: Any) -> Any:
        messages: list[Any] = [Once(n, *record) for n, record in enumerate([*records, *[(good(), b"k", None)] * 9])]
        made = decode_batch(messages, {}, POSITIONS, decode=decoder.decode, rules=rules, **decode_many)
        assert made is not None
        assert {message.reads for message in messages} <= {0, 1}
        assert "headers_column" not in names or {message.reads for message in messages} == {1}
        letters = [(letter.offset, letter.stage, letter.reason, letter.headers) for letter in made.dead_letters]
        return made.rows, letters, made.rows_before, made.advances

    alone = batch()
    assert batch(decode_many=decoder.decode_many) == alone
    assert {len(row) for row in alone[0]} == {len(stream.columns)}
    unfit = {n for n, (_, key, _) in enumerate(records) if key in (b"\xff", b"a\0b")}
    if "key_column" in names and key_type is str:
        assert not unfit & {row[2] for row in alone[0]}


def test_healthy_records_with_parts_are_decoded_together() -> None:
    stream = Stream("reading", Reading, **ALL)

    def never(value: bytes) -> tuple[Any, ...]:
        raise AssertionError("decoded alone")

    messages: list[Any] = [Once(n, good(), b"k", None) for n in range(100)]
    decoder = JsonDecoder(stream)
    rules = RecordRules(record_columns=stream.record_columns)
    batch = decode_batch(messages, {}, POSITIONS, decode=never, rules=rules, decode_many=decoder.decode_many)
    assert batch is not None
    assert len(batch.rows) == 100


def test_streams_without_parts_never_ask_for_key_or_headers() -> None:
    class Silent(MemoryMessage):
        def headers(self) -> Any:
            raise AssertionError

        key = headers

    messages: list[Any] = [Silent(0, n, 0, good()) for n in range(3)]
    decoder = JsonDecoder(READING)
    batch = decode_batch(
        messages, {}, POSITIONS, decode=decoder.decode, rules=RecordRules(), decode_many=decoder.decode_many
    )
    assert batch is not None
    assert len(batch.rows) == 3


class Inner(msgspec.Struct, tag_field="kind", tag="inner"):
    x: int = msgspec.field(name="ex", default=0)


class Outer(msgspec.Struct):
    event_time: datetime
    inner: Inner | None = None
    free: dict[str, Any] | None = None


OUTER = Stream("outer", Outer, extra_column="extra")


@pytest.mark.parametrize(
    ("sent", "extra"),
    [
        ({}, None),
        ({"inner": None}, None),
        ({"inner": {"kind": "inner", "ex": 1}}, None),
        ({"inner": {"kind": "inner", "x": 1}}, {"inner": {"x": 1}}),
        ({"Inner": {"x": 1}, "": None}, {"Inner": {"x": 1}, "": None}),
        ({"free": {"x": 1}}, None),
        ({"a": [1, 2.5, "é\n", True, {"b": 2**70}]}, {"a": [1, 2.5, "é\n", True, {"b": 2**70}]}),
    ],
)
@pytest.mark.parametrize("time", ["2026-01-01T12:00:00Z", "2026-01-01 12:00"])
def test_what_is_not_declared(sent: dict[str, Any], extra: Any, time: str) -> None:
    value = json.dumps({"event_time": time, **sent}).encode()
    row = JsonDecoder(OUTER).decode(value)
    assert (row[0], plain(row)[-1]) == (NOON, extra)
    many = JsonDecoder(OUTER).decode_many([value, value])
    assert many == (([row, row], []) if time.endswith("Z") else ([], [0, 1]))


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@STEADY
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), JSON))
def test_nothing_undeclared_is_lost(sent: dict[str, Any]) -> None:
    more = {key: value for key, value in sent.items() if key not in ("event_time", "inner", "free")}
    value = json.dumps({**more, "event_time": "2026-01-01T12:00:00Z"}).encode()
    try:
        assert plain(JsonDecoder(OUTER).decode(value))[-1] == (more or None)
    except RecordRefused as refused:
        assert refused.message == "NUL character in an undeclared field, which PostgreSQL cannot store"
        assert "\\u0000" in json.dumps(more)
