"""The options of a keyed stream, of a stream into a table that exists, and the key of a deletion."""

from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import msgspec
import pytest

from ingest_pipeline.core.codecs import JsonCodec
from ingest_pipeline.core.decode import JsonDecoder, RecordDecoder
from ingest_pipeline.core.envelopes import EnvelopeReader
from ingest_pipeline.core.errors import RecordRefused, SettingsError
from ingest_pipeline.core.keyed_rows import KeyedRows
from ingest_pipeline.core.record import Deletion, EventRow, Message, NextOffset, Position
from ingest_pipeline.core.record_keys import record_keys
from ingest_pipeline.core.rows import RecordRules, decode_batch
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.operations.decoders import UnwrappedDecoder
from ingest_pipeline.operations.replays import ReplayRequest, ranges
from ingest_pipeline.orchestration.described import column_schema, table_metadata
from ingest_pipeline.postgres.table_reads import ddl
from ingest_pipeline.settings import Settings
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


@pytest.mark.parametrize("only_newer", ["", "version"])
@pytest.mark.parametrize("key", [("number",), ("site", "number")])
def test_rows_are_written_in_the_order_of_their_keys(key: tuple[str, ...], only_newer: str) -> None:
    level = msgspec.defstruct("Level", [("site", str), ("number", int), ("version", int, 0)])
    rows: list[EventRow] = [(1, 0, offset, None, "a", number, 0) for offset, number in enumerate([30, 4, 100, 4])]
    latest = KeyedRows(Stream("level", level, key=key, only_newer=only_newer)).latest(rows).latest
    assert [(rows[i][5], i) for i in latest] == [(4, 3), (30, 0), (100, 2)]


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
    keys = record_keys(stream)
    assert keys is not None
    row = dict(zip(stream.columns[4:], keys.deleted_row(record_key), strict=True))
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
    keys = record_keys(Stream("item", Item, key=key, deletes=True))
    assert keys is not None
    with pytest.raises(RecordRefused, match=reason) as caught:
        keys.deleted_row(record_key)
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
        rules=RecordRules(record_columns=stream.record_columns, record_keys=record_keys(stream)),
    )


class Event(msgspec.Struct):
    """One event."""

    kafka_offset: int
    event_time: datetime


PLAIN = Stream("reading", msgspec.defstruct("Plain", [("event_time", datetime)]))
EXISTING = Stream("reading", Event, coordinates=False)


def test_no_name_is_reserved_for_our_columns() -> None:
    with pytest.raises(SettingsError, match=r"Event\.kafka_offset: every event table has a column of that name"):
        Stream("reading", Event)
    assert [column.name for column in EXISTING.table_columns] == ["kafka_offset", "event_time"]
    value = b'{"kafka_offset": 1, "event_time": "2026-01-01T00:00:00Z"}'
    assert JsonDecoder(EXISTING).decode(value)[0] == 1


def test_the_statement_to_create_the_table_has_only_the_fields() -> None:
    statement = ddl(EXISTING, "public")
    assert "kafka_partition" not in statement
    assert "PRIMARY KEY" not in statement
    assert "INDEX" not in statement
    assert "kafka_offset BIGINT NOT NULL" in statement


def test_dagster_shows_neither_our_key_nor_a_query_by_it() -> None:
    assert column_schema(EXISTING).constraints.other == []
    assert [column.description for column in column_schema(EXISTING).columns] == [None, None]
    metadata = table_metadata(EXISTING, Settings())
    assert "newest_rows_sql" not in metadata
    assert "newest_rows_sql" in table_metadata(PLAIN, Settings())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timestamp_zone": "UTC"}, "timestamp_zone is for a table that exists, with coordinates=False"),
        ({"coordinates": False, "timestamp_zone": "Mars"}, "timestamp_zone 'Mars' is not a time zone, such as UTC"),
        ({"coordinates": False, "timestamp_zone": "../etc"}, "is not a time zone"),
        ({"coordinates": False, "key": ("event_time",)}, "key is for a table with the Kafka coordinates"),
        ({"coordinates": False, "many": True}, "many is for a table with the Kafka coordinates"),
        ({"coordinates": False, "id_column": "id"}, "id_column is for a table with the Kafka coordinates"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        replace(PLAIN, **options)


def test_each_option_changes_the_definition() -> None:
    streams = [PLAIN, replace(PLAIN, coordinates=False), replace(PLAIN, coordinates=False, timestamp_zone="UTC")]
    assert len({stream.definition() for stream in streams}) == 3


def test_a_replay_is_refused_with_the_reason() -> None:
    context: Any = SimpleNamespace(stream=EXISTING)
    with pytest.raises(SettingsError, match="reading has coordinates=False: a replay tells the stored records"):
        ranges(ReplayRequest(partition=0, from_offset=0, to_offset=1), context)
