"""The declaration of a route, and its decoder by columns and record by record."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pytest

from ingest_pipeline.core.choices import NaiveTimestamps
from ingest_pipeline.core.errors import RecordRefused, RecordSkipped, SettingsError
from ingest_pipeline.core.formats import Csv, Json
from ingest_pipeline.core.route import Route
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.core.streams import by_name
from ingest_pipeline.operations.decoders import Decoder, decoder_of
from ingest_pipeline.settings.declared import settings_of


class Event(msgspec.Struct):
    kind: str
    event_time: datetime


class Click(Event):
    url: str


class Price(Event):
    amount: Decimal


TIME = "2026-01-01T00:00:00Z"
ROUTE = Route("kind", {"click": ("clicks", Click), "price": ("prices", Price), "view": "views"})


def stream(**options: Any) -> Stream:
    return Stream("event", Event, **{"route": ROUTE, **options})


def decoder(of: Stream) -> Decoder:
    return decoder_of(of, NaiveTimestamps.UTC, lambda: pytest.fail("no registry is needed"))


def record(kind: Any = "view", **values: Any) -> bytes:
    return msgspec.json.encode({"kind": kind, "event_time": TIME, **values})


def test_a_table_has_the_columns_of_its_struct_and_the_streams_options() -> None:
    tables = stream(key_column="record_key", partition_by="day").tables
    assert [(table.table, [item.name for item in table.fields][2:]) for table in tables] == [
        ("clicks", ["url"]),
        ("prices", ["amount"]),
        ("views", []),
    ]
    assert {table.key_column for table in tables} == {"record_key"}
    assert {table.primary_key[-1] for table in tables} == {"event_time"}
    assert {(table.name, table.topic, table.job) for table in tables} == {("event", "event", "event")}


def test_a_stream_without_a_route_is_its_own_table() -> None:
    plain = Stream("event", Event)
    assert plain.tables == (plain,)


VALUES: list[bytes | None] = [
    record(),
    record("click", url="u"),
    None,
    record("price", amount="1.5"),
    record("scroll"),
    record("click"),
    record(3),
    b'{"kind": "view"',
    record("click", url="v"),
    b'{"kind": "view", "event_time": "2026-01-01T00:00:00.1234567Z"}',
    b'{"event_time": "2026-01-01T00:00:00Z"}',
]


@pytest.mark.parametrize("others", ["dead-letter", "skip", "table"])
def test_many_values_decode_as_single_values(others: str) -> None:
    decode = decoder(stream(route=Route("kind", ROUTE.tables, others)))
    rows, odd = decode.decode_many(VALUES)
    by_columns = dict(zip([i for i in range(len(VALUES)) if i not in odd], rows, strict=True))
    assert odd == sorted(odd)
    assert by_columns.keys() >= {0, 1, 8}
    for i, value in enumerate(VALUES):
        try:
            single = decode.decode(value) if value is not None else None
        except RecordRefused:
            single = None
        assert by_columns.get(i, single) == single


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("scroll", "this text"),
        (3, "a number"),
        (1e300, "a number"),
        (None, "null or a missing key"),
        (["view"], "an array"),
        ({"view": 1}, "an object"),
        (True, "a boolean"),
    ],
)
def test_the_reason_names_the_field_and_the_kind_of_the_value(kind: Any, words: str) -> None:
    with pytest.raises(RecordRefused, match=rf"^no table for {words} - at `\$\.kind`$") as caught:
        decoder(stream()).decode(record(kind))
    assert not isinstance(caught.value, RecordSkipped)
    with pytest.raises(RecordSkipped):
        decoder(stream(route=Route("kind", ROUTE.tables, "skip"))).decode(record(kind))


def test_a_transform_gets_the_event_of_its_table() -> None:
    def transform(event: Any) -> Any:
        return msgspec.structs.replace(event, url=event.url.upper()) if isinstance(event, Click) else event

    decode = decoder(stream(transform=transform))
    assert decode.decode(record("click", url="u"))[-2] == "U"
    assert decode.decode_many([record("click", url="u"), record()])[1] == []


def test_a_debezium_topic_is_routed_by_its_source() -> None:
    by_table = Route("__source_table", {"click": ("clicks", Click), "view": "views"})
    decode = decoder(stream(envelope="debezium", route=by_table))
    change = {"op": "c", "source": {"table": "click"}, "after": {"kind": "a", "event_time": TIME, "url": "u"}}
    assert decode.decode(msgspec.json.encode(change))[-2:] == ("u", 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"route": Route("", {"a": "b"})}, "route needs a field and at least one table"),
        ({"route": Route("kind", {})}, "route needs a field and at least one table"),
        ({"route": Route("kind", {"a": ("b", int)})}, r"'a' does not lead to a table or to \(table, Struct\)"),  # type: ignore[dict-item]
        ({"route": Route("kind", {1: "b"})}, "1 does not lead to a table"),  # type: ignore[dict-item]
        ({"route": Route("kind", {"a": "b"}, "drop")}, "others is one of 'dead-letter', 'skip', 'table'"),
        ({"route": Route("kind", {"a": "t", "b": ("t", Click)})}, "route gives a table two Structs"),
        ({"table": "mine"}, "table 'mine' gets no record of the route"),
        ({"format": Csv()}, "route reads a field of JSON"),
        ({"many": True}, "many is for a stream with one table"),
        ({"key": ("kind",)}, "key is for a stream with one table"),
        ({"route": Route("kind", {"a": ("b.c.d", Click)})}, "'b.c.d' is not a table's name"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=f"stream event: .*{words}"):
        stream(**options)


def test_the_definition_changes_with_the_route() -> None:
    def other(url: Any) -> Any:
        return msgspec.defstruct("Click", [("url", url)], bases=(Event,), module=__name__)

    routes = [
        ROUTE,
        Route("type", ROUTE.tables),
        Route("kind", ROUTE.tables, "skip"),
        Route("kind", {**ROUTE.tables, "tap": ("clicks", Click)}),
        Route("kind", {**ROUTE.tables, "view": "clicks", "click": "views"}),
        Route("kind", {**ROUTE.tables, "click": ("clicks", other(int))}),
        Route("kind", {**ROUTE.tables, "click": ("clicks", other(Annotated[str, msgspec.Meta(max_length=9)]))}),
    ]
    definitions = {stream(route=route).definition() for route in routes}
    assert len(definitions) == len(routes)
    assert stream(format=Json()).definition() == stream().definition()


class TestSharedTable:
    def stream(self, name: str, **options: Any) -> Stream:
        return Stream(name, **{"event": Event, "table": "event", "topic_column": "kafka_topic", **options})

    def test_the_topic_is_in_the_primary_key(self) -> None:
        first, second = streams = [self.stream("one"), self.stream("two")]
        assert list(by_name(streams).values()) == streams
        assert first.primary_key == second.primary_key
        assert first.primary_key[-1] == "kafka_topic"

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"topic_column": ""}, "declare both with topic_column="),
            ({"key": ("kind",), "topic_column": ""}, "records of two topics have no order"),
            ({"event": Click}, "declare different columns"),
            ({"partition_by": "day"}, "differ in partition_by"),
            ({"topic_column": "topic"}, "differ in primary key"),
        ],
    )
    def test_what_would_mix_rows_is_refused(self, options: dict[str, Any], words: str) -> None:
        streams = [self.stream("one"), self.stream("two", **options)]
        for turned in (streams, streams[::-1]):
            with pytest.raises(SettingsError, match=f"share the table event.*{words}"):
                by_name(turned)

    def test_the_schema_may_be_written_out(self) -> None:
        plain = [self.stream("one", topic_column=""), self.stream("two", topic_column="", table="public.event")]
        with pytest.raises(SettingsError, match=r"one and two share the table public\.event: declare both"):
            settings_of(plain, {})
        settings_of([self.stream("one"), self.stream("two", table="public.event")], {})

    def test_a_route_names_a_table_once(self) -> None:
        twice = Stream("event", Event, route=Route("kind", {"a": "t", "b": "public.t"}))
        with pytest.raises(SettingsError, match=r"route names the table public\.t twice"):
            settings_of([twice], {})
