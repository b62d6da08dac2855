"""Records of several events: which rows they become, and what a bad element does to its record."""

import re
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingest_pipeline.core.choices import NaiveTimestamps
from ingest_pipeline.core.errors import RecordRefused, RecordSkipped, SettingsError
from ingest_pipeline.core.formats import Avro, Csv
from ingest_pipeline.core.many import element_at
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.operations.decoders import Decoder, decoder_of
from ingest_pipeline_tests.samples import STEADY, plain


class Count(msgspec.Struct):
    name: str
    count: Annotated[int, msgspec.Meta(ge=0)] = 0


class Batch(msgspec.Struct):
    names: list[str]
    count: int = 0
    name: str = ""


COUNTS = Stream("count", Count, many=True)
PAGE = (Path(__file__).parents[2] / "docs" / "streams.md").read_text()


def decoder(stream: Stream) -> Decoder:
    return decoder_of(stream, NaiveTimestamps.UTC, lambda: pytest.fail("no registry is needed"))


def elements(stream: Stream, value: bytes) -> list[Any]:
    (rows,) = decoder(stream).decode(value)
    return list(map(plain, rows))


def refused(stream: Stream, value: bytes) -> str:
    with pytest.raises(RecordRefused) as error:
        decoder(stream).decode(value)
    assert not isinstance(error.value, RecordSkipped)
    return error.value.message


def test_an_array_becomes_numbered_rows() -> None:
    assert elements(COUNTS, b'[{"name": "a"}, {"name": "b", "count": 2}]') == [(0, "a", 0), (1, "b", 2)]


def test_an_object_is_an_array_of_one_event() -> None:
    assert elements(COUNTS, b' {"name": "a"}') == [(0, "a", 0)]


@pytest.mark.parametrize("value", [b"[]", b" [ ] "])
def test_an_empty_array_is_skipped(value: bytes) -> None:
    with pytest.raises(RecordSkipped):
        decoder(COUNTS).decode(value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'[{"name": "a"}, {"name": "b", "count": -1}]', "Expected `int` >= 0 - at `$[1].count`"),
        (b'[{"name": "a"}, {}]', "Object missing required field `name` - at `$[1]`"),
        (b'[{"name": "\\u0000"}]', "NUL character, which PostgreSQL cannot store - at `$[0].name`"),
        (b'[{"name": "a"}, 7]', "Expected `object`, got `int` - at `$[1]`"),
        (b'[{"name": "a"}', "Input data was truncated"),
        (b'[{"name": "\xff"}]', "not valid UTF-8 - at `$[0]`"),
        (b'{"name": 1}', "Expected `str`, got `int` - at `$.name`"),
    ],
)
def test_a_bad_element_refuses_its_record_and_is_named(value: bytes, reason: str) -> None:
    assert refused(COUNTS, value) == reason


def test_a_row_of_the_table_leads_back_to_its_element() -> None:
    records = [(1, 0, 5, None, [(0, "a"), (1, "b")]), (1, 0, 6, None, [(2, "c")]), (1, 0, 7, None, [(0, "d")])]
    assert [element_at(records, i) for i in range(4)] == [(0, 0), (0, 1), (1, 2), (2, 0)]


class Everything(msgspec.Struct):
    text: str
    time: datetime | None = None
    price: Decimal | None = None
    more: dict[str, Any] = {}


_ELEMENTS = st.sampled_from(
    [
        b'{"text": "a"}',
        b'{"text": "b", "time": "2026-01-01T00:00:00.1234567Z"}',
        b'{"text": "c", "time": "20260101T00", "other": [1]}',
        b'{"text": "d", "more": {"x": 1.10}}',
        b'{"text": "e", "price": 1.50}',
        b'{"text": "f", "more": {"x": "\\u0000"}}',
        b'{"text": 1}',
        b"null",
        b"[]",
        b"{",
    ]
)
_ARRAYS = st.one_of(
    st.lists(_ELEMENTS, max_size=4).map(lambda parts: b"[" + b",".join(parts) + b"]"), _ELEMENTS, st.binary(max_size=8)
)


def repeated(event: Any) -> list[Any] | None:
    text = event.text if isinstance(event, Everything) else event.name
    return {"a": [event, event], "c": [], "d": None}.get(text, [event])  # "b" and "f": one row


@pytest.mark.parametrize("transform", [None, repeated])
@pytest.mark.parametrize("extra", ["", "extra"])
@pytest.mark.parametrize("event", [Count, Everything])
@STEADY
@example(values=[b'[{"text": "a", "name": "a"}, {}]', b'[{"text": "b", "name": "b"}]'])
@example(values=[b'[{"name": "a"}, {"name": "b"}]', b'{"name": "c"}', b'[{"name": "a"}, 1]', b'{"name": "a"}'])
@given(values=st.lists(_ARRAYS, max_size=5))
def test_all_values_together_give_the_rows_of_each_value(
    event: Any, extra: str, transform: Any, values: list[bytes]
) -> None:
    stream = Stream("any", event, many=True, extra_column=extra, transform=transform)
    rows = decoder(stream)
    together, odd = rows.decode_many(values)
    left = iter(together)
    for i, value in enumerate(values):
        if i not in odd:
            (ours,), (theirs,) = next(left), rows.decode(value)
            assert list(map(plain, ours)) == list(map(plain, theirs)) != []
    assert next(left, None) is None


def test_the_transforms_of_a_batch_are_rows_without_a_second_decode() -> None:
    rows = decoder(Stream("count", Count, many=True, transform=repeated))
    together, odd = rows.decode_many([b'[{"name": "a"}, {"name": "d"}]', b'{"name": "c"}', b'[{"name": "b"}, 1]'])
    assert (together, odd) == ([([(0, "a", 0), (1, "a", 0)],)], [1, 2])


def split(event: Batch) -> list[Batch] | None:
    return [Batch([], event.count, name) for name in event.names] or None


def test_a_transform_returns_the_rows_of_its_record() -> None:
    stream = Stream("split", Batch, many=True, transform=split)
    assert elements(stream, b'{"names": ["a", "b"], "count": 3}') == [(0, [], 3, "a"), (1, [], 3, "b")]
    assert elements(stream, b'[{"names": ["a"]}, {"names": []}, {"names": ["b"]}]') == [
        (0, [], 0, "a"),
        (1, [], 0, "b"),
    ]
    with pytest.raises(RecordSkipped):
        decoder(stream).decode(b'{"names": []}')


def failing(event: Count) -> Any:
    return [event, Count("x", -1)] if event.count else 1 / 0


def test_a_bad_event_of_a_transform_refuses_its_record() -> None:
    stream = Stream("count", Count, many=True, transform=failing)
    assert refused(stream, b'{"name": "a", "count": 1}') == "Expected `int` >= 0 - at `$.count`, after the transform"
    assert refused(stream, b'[{"name": "a", "count": 0}]').startswith("refused by the stream's transform (ZeroDivi")


class Timed(msgspec.Struct):
    text: str
    time: datetime


def test_a_transform_sees_times_of_every_form() -> None:
    stream = Stream("timed", Timed, many=True, transform=lambda event: [event, event])
    for text in (b"2026-01-01T00:00:00Z", b"20260101T00", b"2026-01-01T00:00:00.1234567Z"):
        rows = elements(stream, b'{"text": "a", "time": "' + text + b'"}')
        assert [(row[0], row[2].year, row[2].tzinfo is not None) for row in rows] == [(0, 2026, True), (1, 2026, True)]


class Listed(msgspec.Struct, array_like=True):
    name: str


class Own(msgspec.Struct):
    kafka_ordinal: int


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"event": Own}, "adds the column kafka_ordinal"),
        ({"event": Count, "key_column": "kafka_ordinal"}, "adds the column kafka_ordinal"),
        ({"event": Listed}, "read from an array itself"),
        ({"event": Count, "envelope": "debezium"}, "a transform has to make the list"),
        ({"event": Count, "format": Csv()}, "a transform has to make the list"),
        ({"event": Count, "format": Avro()}, "a transform has to make the list"),
    ],
)
def test_what_cannot_hold_several_events_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        Stream("count", many=True, **options)


def test_other_streams_stay_as_they_were() -> None:
    plain_stream = Stream("count", Count)
    assert plain_stream.primary_key == ("kafka_incarnation", "kafka_partition", "kafka_offset")
    assert plain_stream.definition() != COUNTS.definition()
    assert COUNTS.primary_key == (*plain_stream.primary_key, "kafka_ordinal")
    names = [column.name for column in COUNTS.table_columns]
    assert names == [*COUNTS.primary_key, "name", "count", "kafka_timestamp", "ingested_at"]


def test_the_example_in_the_docs() -> None:
    section = PAGE[PAGE.index("## Several events in one record") :]
    (example,) = re.findall(r"```python\n(.*?)```", section[: section.index("\n## ")], re.DOTALL)
    declaration, stream = example.strip().rsplit("\n", 1)
    namespace: dict[str, Any] = {"Annotated": Annotated, **vars(msgspec), "Stream": Stream}
    exec(compile(declaration, "docs/streams.md", "exec", dont_inherit=True), namespace)
    value, rows = re.findall(r"value `(\[.*?\])` becomes", section)[0], re.findall(r"\n\| 0 \| (.*) \|", section)
    decoded = elements(eval(stream, namespace), value.encode())
    assert [
        " | ".join(f"{item:g}" if isinstance(item, float) else str(item) for item in row) for row in decoded
    ] == rows
