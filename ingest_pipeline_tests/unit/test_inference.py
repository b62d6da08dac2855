"""What `ingest stream-from-topic` prints reads every record of its sample, in Python and in YAML."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.inference import Inferred, decode_object, infer
from ingest_pipeline.core.inferred_text import python_text, quoted, yaml_text
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.orchestration.components.attributes import attributes_model, stream_of

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
TIMES = st.sampled_from(
    ["2026-01-31", "2026-01-31T06:00:00Z", "2026-01-31 06:00", "0001-01-01", "9999-12-31T23:59:59-01:00", "20260131"]
)
NUMBERS = st.integers() | st.integers(10**11, 10**13) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS | TIMES | st.uuids().map(str)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))
KEYS = TEXTS | st.sampled_from(
    ["timestamp", "createdAt", "class", "date", "kafka", "offset", "a", "b", "a_b", "on", "_id", "@timestamp", "xmin"]
)
OBJECTS = st.lists(st.dictionaries(KEYS, VALUES, max_size=6), min_size=1, max_size=5)


def inferred(records: list[bytes]) -> Inferred:
    return infer(list(map(decode_object, records)))


def streams(records: list[bytes]) -> tuple[Stream, Stream]:
    """The streams of the printed Python and of the printed YAML."""
    sample = inferred(records)
    namespace: dict[str, Any] = {"__name__": "printed"}
    exec(compile(python_text("reading", "a.topic", sample), "printed", "exec", dont_inherit=True), namespace)
    attributes = yaml.safe_load(yaml_text("reading", "a.topic", sample))["attributes"]
    return namespace["STREAMS"][0], stream_of(attributes_model().model_validate(attributes))


def text(*records: dict[str, Any]) -> str:
    return python_text("reading", "reading", inferred([json.dumps(record).encode() for record in records]))


@settings(deadline=None)
@given(OBJECTS)
@example([{"kafka": {"offset": 1}}, {"a": {"b": 1}, "a_b": 2}])
@example([{"é" * 40: {"ü" * 40: 1}}])
@example([{"名": {"x": None}}, {}])
@example([{"x": 10**400}, {"x": 1.5}])
@example([{"datetime": "2026-01-31T00:00:00Z", "when": "2026-01-31T00:00:00Z"}])
def test_every_record_of_the_sample_becomes_a_row(objects: list[dict[str, Any]]) -> None:
    records = [json.dumps(item, ensure_ascii=bool(len(objects) % 2)).encode() for item in objects]
    in_python, in_yaml = streams(records)
    assert in_python.table_columns == in_yaml.table_columns
    for stream in (in_python, in_yaml):
        decoder = JsonDecoder(stream)
        for record in records:
            decoder.decode(record)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([1, 2], "value: int"),
        ([1, None], "value: int | None"),
        ([1, 2.5], "value: float"),
        ([2**63], "value: Decimal"),
        ([True], "value: bool"),
        (["a", "2026-01-31"], "value: str"),
        (["2026-01-31"], "value: date"),
        (["2026-01-31", "2026-01-31T06:00Z"], "value: datetime"),
        (["6f1f4d52-3c1c-4c3b-9d43-0f6b8c7e9a10"], "value: UUID"),
        (["12.50"], "value: str"),
        ([[1], [2]], "value: list[int]"),
        ([["2026-01-31"]], "value: list[str]"),
        ([[{"a": 1}]], "value: list"),
        ([[]], "value: list"),
        ([{}], "value: dict"),
        ([{str(number): 1} for number in range(101)], "value: dict"),
        ([{"a": 1}, None], "value: Value | None"),
        ([1767225600123], "value: int"),
        ([None], "value: str | None"),
    ],
)
def test_a_field_has_the_narrowest_type(values: list[Any], line: str) -> None:
    assert f"\n    {line}\n" in text(*({"value": value} for value in values))


@pytest.mark.parametrize(
    ("record", "line"),
    [
        ({"createdAt": 1767225600}, 'created_at: Annotated[datetime, Epoch("s")] = field(name="createdAt")'),
        ({"created": 1767225600123}, 'created: Annotated[datetime, Epoch("ms")]'),
        ({"seen_ts": 1767225600123456}, 'seen_ts: Annotated[datetime, Epoch("us")]'),
        ({"ts": 1767225600123456789}, 'event_time: Annotated[datetime, Epoch("ns")] = field(name="ts")'),
        ({"ts": 17}, "ts: int"),
        ({"@timestamp": "2026-01-31T06:00:00Z"}, 'event_time: datetime = field(name="@timestamp")'),
        ({"time": "noon"}, "time: str"),
        ({"class": 1}, 'class_value: int = field(name="class")'),
        ({"kafka_offset": 1}, 'kafka_offset_value: int = field(name="kafka_offset")'),
        ({"7 day": 1}, 'field_7_day: int = field(name="7 day")'),
        ({"deviceId": "x"}, 'device_id: str = field(name="deviceId")'),
        ({"type": "x"}, "type: str"),
        ({"a\x85": 1}, 'a: int = field(name="a\\x85")'),
    ],
)
def test_a_key_gives_a_name_and_a_time(record: dict[str, Any], line: str) -> None:
    assert f"\n    {line}\n" in text(record)


def test_an_absent_key_is_optional() -> None:
    assert "    b: int | None = None\n" in text({"a": 1, "b": 1}, {"a": 1})
    assert '    b_c: int | None = field(name="b-c", default=None)\n' in text({"a": 1, "b-c": 1}, {"a": 1})


def test_a_key_of_several_types_goes_into_the_extra_column() -> None:
    printed = text({"extra": 1, "value": 1}, {"extra": 1, "value": "a"})
    assert 'extra_column="extra_2"' in printed
    assert "value" not in printed


@given(st.text())
def test_a_quoted_text_is_the_text_in_both_languages(word: str) -> None:
    if not any("\ud800" <= char <= "\udfff" for char in word):
        assert yaml.safe_load(quoted(word)) == word
    assert eval(quoted(word)) == word
