"""The options of a keyed stream, and the key of a deletion."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from ingest_pipeline.core.codecs import JsonCodec
from ingest_pipeline.core.decode import RecordDecoder
from ingest_pipeline.core.envelopes import EnvelopeReader
from ingest_pipeline.core.errors import RecordRefused, SettingsError
from ingest_pipeline.core.record import Deletion, Message, NextOffset, Position
from ingest_pipeline.core.record_keys import deleted_row
from ingest_pipeline.core.rows import RecordRules, decode_batch
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.core.unwrapped import UnwrappedDecoder
from ingest_pipeline.testing.log import MemoryMessage


class Item(msgspec.Struct):
    name: str
    number: int
    price: Decimal
    uid: UUID
    day: date
    at: datetime
    share: float
    tags: list[str]
    note: str | None = None


def test_a_stream_without_a_key_keeps_its_definition() -> None:
    assert Stream("item", Item).definition() != Stream("item", Item, key=("name",)).definition()
    changed = [Stream("item", Item, key=("name",), **options) for options in CHANGES]
    assert len({stream.definition() for stream in changed}) == len(CHANGES)
    assert Stream("item", Item).primary_key == ("kafka_incarnation", "kafka_partition", "kafka_offset")


CHANGES: list[dict[str, Any]] = [{}, {"on_conflict": "ignore"}, {"only_newer": "at"}, {"deletes": True}]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"on_conflict": "ignore"}, "need a key"),
        ({"deletes": True}, "need a key"),
        ({"key": "name"}, "not a tuple of different columns"),
        ({"key": ("name", "name")}, "not a tuple of different columns"),
        ({"key": ("absent",)}, "neither a field of the event nor the key_column"),
        ({"key": ("note",)}, "a key is never null"),
        ({"key": ("tags",)}, "jsonb, which has no exact equality"),
        ({"key": ("share",)}, "double precision, which has no exact equality"),
        ({"key": ("name",), "on_conflict": "replace"}, 'neither "update" nor "ignore"'),
        ({"key": ("name",), "on_conflict": "ignore", "only_newer": "at"}, 'goes with on_conflict="update"'),
        ({"key": ("name",), "only_newer": "note"}, "is not a field of int"),
        ({"key": ("name",), "only_newer": "name"}, "is not a field of int"),
        ({"key": ("at",), "deletes": True}, "a tombstone's key cannot hold"),
        ({"key": ("name", "k"), "key_column": "k", "deletes": True}, "the key_column alone"),
        ({"key": ("name",), "many": True}, "many=True stores several"),
    ],
    ids=str,
)
def test_a_key_that_cannot_work_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        Stream("item", Item, **options)


UUID_TEXT = "12345678-1234-5678-1234-567812345678"


@pytest.mark.parametrize(
    ("key", "record_key", "values"),
    [
        (("name",), b"plain text", ("plain text",)),
        (("name",), b'"quoted"', ("quoted",)),
        (("name",), b' {"name":"a","more":1}', ("a",)),
        (("name",), b'{"schema":{"type":"struct"},"payload":{"name":"a"}}', ("a",)),
        (("number",), b"17", (17,)),
        (("uid",), f'"{UUID_TEXT}"'.encode(), (UUID(UUID_TEXT),)),
        (("price",), b"1.50", (Decimal("1.50"),)),
        (("number", "day"), b'{"day":"2026-01-02","number":3}', (3, date(2026, 1, 2))),
    ],
)
def test_the_key_of_a_deletion(key: tuple[str, ...], record_key: bytes, values: tuple[Any, ...]) -> None:
    stream = Stream("item", Item, key=key, deletes=True)
    read = deleted_row(stream)
    assert read is not None
    row = dict(zip(stream.columns[4:], read(record_key), strict=True))
    assert tuple(row.pop(name) for name in key) == values
    assert set(row.values()) == {None}


@pytest.mark.parametrize(
    ("key", "record_key", "reason"),
    [
        (("name",), None, "the record has no key"),
        (("name",), b"\xff", "not valid UTF-8"),
        (("name",), b"a\0", "NUL"),
        (("name",), b'{"nam', "in the record's key: Input data was truncated"),
        (("number",), b"secret", "in the record's key: JSON is malformed: invalid character"),
        (("number",), b'"17"', "in the record's key: Expected `int`, got `str`"),
        (("price",), b'"sNaN"', "in the record's key: not a finite number"),
        (("price",), b'"1E+140000"', "in the record's key: more digits than PostgreSQL's numeric holds"),
        (("name", "number"), b"a", "not a JSON object"),
    ],
)
def test_a_key_that_cannot_be_read_is_refused_without_its_bytes(
    key: tuple[str, ...], record_key: bytes | None, reason: str
) -> None:
    read = deleted_row(Stream("item", Item, key=key, deletes=True))
    assert read is not None
    with pytest.raises(RecordRefused, match=reason) as caught:
        read(record_key)
    assert "secret" not in caught.value.message


class Small(msgspec.Struct):
    number: int


def test_the_key_column_alone_is_the_key_of_a_deletion() -> None:
    stream = Stream("small", Small, key_column="k", key_type=str, key=("k",), deletes=True)
    batch = decoded(stream, [(b"a", b'{"number":1}'), (b"a", None), (None, b'{"number":1}'), (b"\xff", None)])
    assert [(type(row) is Deletion, row[4:]) for row in batch.rows] == [(False, ("a", 1)), (True, ("a", None))]
    assert [letter.reason for letter in batch.dead_letters] == [
        "the record has no key, which is the row's key",
        "key is not UTF-8, which its text column needs",
    ]


def test_a_change_event_about_a_deleted_row_is_a_deletion() -> None:
    change = b'{"op":"d","before":{"number":7},"after":null}'
    record = (b'{"number":7}', change)
    for deletes in (True, False):
        stream = Stream("small", Small, key=("number",), envelope="debezium", deletes=deletes)
        batch = decoded(stream, [record, (b'{"number":7}', None)])
        assert [row[4:] for row in batch.rows if type(row) is Deletion] == [(7,)] * 2 * deletes
        assert batch.advances[0].skipped == (0 if deletes else 2)


def test_the_example_of_the_page_declares_a_stream() -> None:
    page = (Path(__file__).parents[2] / "docs" / "streams.md").read_text()
    example = page.split("## One row per key")[1].split("```python\n")[1].split("```")[0]
    namespace: dict[str, Any] = {"Struct": msgspec.Struct, "Stream": Stream, "datetime": datetime}
    exec(compile(example, "docs/streams.md", "exec", dont_inherit=True), namespace)
    assert namespace["LEVELS"].primary_key == ("device_id",)


def decoded(stream: Stream, records: list[tuple[bytes | None, bytes | None]]) -> Any:
    decoder: Any = RecordDecoder(stream, JsonCodec())
    if stream.envelope:
        decoder = UnwrappedDecoder(decoder, EnvelopeReader(stream).text)
    messages: list[Message] = [MemoryMessage(0, i, 0, value, key=key) for i, (key, value) in enumerate(records)]
    return decode_batch(
        messages,
        {},
        {0: Position(0, 1, NextOffset(0))},
        decode=decoder.decode,
        decode_many=decoder.decode_many,
        rules=RecordRules(record_columns=stream.record_columns, deleted_row=deleted_row(stream)),
    )
