"""Valid declarations of streams, and errors that name the invalid part."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest
from pydantic import BaseModel

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.errors import SettingsError
from ingest_pipeline.core.fields import BIGINT_MAX
from ingest_pipeline.core.stream import Stream
from ingest_pipeline.core.streams import by_name
from ingest_pipeline.operations.clients import Clients
from ingest_pipeline.operations.stream_context import StreamContext
from ingest_pipeline.orchestration.asset_keys import topic_key
from ingest_pipeline.postgres.table_reads import ddl
from ingest_pipeline.postgres.tables import event_table
from ingest_pipeline.settings import Settings
from ingest_pipeline.streams import STREAMS

READINGS = msgspec.defstruct("Reading", [("event_time", datetime)])


def event(**fields: Any) -> type[msgspec.Struct]:
    declared = [(name, kind) for name, kind in {"event_time": datetime, **fields}.items()]
    return msgspec.defstruct("Event", declared)


@pytest.mark.parametrize(
    ("kind", "pg_type", "nullable"),
    [
        (str, "text", False),
        (int, "bigint", False),
        (float, "double precision", False),
        (bool, "boolean", False),
        (datetime, "timestamp with time zone", False),
        (date, "date", False),
        (Decimal, "numeric", False),
        (UUID, "uuid", False),
        (dict, "jsonb", False),
        (dict[str, int], "jsonb", False),
        (list, "jsonb", False),
        (list[float], "jsonb", False),
        (dict[str, list[Any] | None], "jsonb", False),
        (list[Literal["a"]], "jsonb", False),
        (bytes, "bytea", False),
        (str | None, "text", True),
        (Annotated[int, msgspec.Meta(ge=0)], "bigint", False),
        (Annotated[int | None, msgspec.Meta(ge=0)], "bigint", True),
    ],
)
def test_every_field_type_has_its_column_type(kind: Any, pg_type: str, nullable: bool) -> None:
    field = Stream("readings", event(x=kind)).fields[1]
    assert (field.pg_type, field.nullable) == (pg_type, nullable)


@pytest.mark.parametrize(
    "kind", [dict[str, datetime], list[UUID], list[dict[str, Decimal]], list[bytes], list[msgspec.Raw]]
)
def test_a_jsonb_field_holds_only_json_types(kind: Any) -> None:
    with pytest.raises(SettingsError, match=r"Event\.strange: .* holds what jsonb cannot"):
        Stream("readings", event(strange=kind))


@pytest.mark.parametrize("kind", [complex, set, tuple[int, int], int | str, object, Any, type(None), msgspec.Raw])
def test_any_other_field_type_is_refused_by_name(kind: Any) -> None:
    with pytest.raises(SettingsError, match=r"Event\.strange"):
        Stream("readings", event(strange=kind))


@pytest.mark.parametrize("name", ["", "Readings", "9lives", "a-b", "a b", "x" * 41, "é"])
def test_a_stream_name_is_a_plain_word(name: str) -> None:
    with pytest.raises(SettingsError, match="name"):
        Stream(name, event())


@pytest.mark.parametrize("topic", ["a b", "..", "x" * 250, "a/b"])
def test_a_topic_name_is_one_that_kafka_allows(topic: str) -> None:
    with pytest.raises(SettingsError, match="Kafka"):
        Stream("readings", event(), topic=topic)


@pytest.mark.parametrize("table", ["x" * 64, "é" * 32, "a\0b"])
def test_a_table_name_fits_postgresql(table: str) -> None:
    with pytest.raises(SettingsError, match="63 bytes"):
        Stream("readings", event(), table=table)


@pytest.mark.parametrize("name", ["kafka_offset", "kafka_timestamp", "ingested_at", "ctid", "cmin", "cmax", "tableoid"])
def test_our_own_columns_cannot_be_declared(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Stream("readings", event(**{name: int}))


@pytest.mark.parametrize(("kind", "indexed"), [(str, False), (date, False), (datetime, True), (datetime | None, True)])
def test_an_event_time_that_is_a_datetime_gets_an_index(kind: Any, indexed: bool) -> None:
    stream = Stream("readings", event(event_time=kind))
    assert stream.has_event_time == indexed
    assert len(event_table(stream, "public").indexes) == indexed


def test_an_event_needs_no_time() -> None:
    stream = Stream("readings", msgspec.defstruct("Bare", [("level", int)]))
    assert (stream.has_event_time, len(event_table(stream, "public").indexes)) == (False, 0)


@pytest.mark.parametrize(
    "tags",
    [{"a b": ""}, {"": "x"}, {"a/b/c": ""}, {"x" * 64: ""}, {"dagster/priority": ""}, {"a": "b c"}, {"a": "x" * 64}],
)
def test_a_tag_that_dagster_refuses_is_refused(tags: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=r"stream readings: .*tag .* up to 63"):
        Stream("readings", event(), tags=tags)


def test_max_silence_is_at_least_a_minute() -> None:
    assert Stream("readings", event(), max_silence=timedelta(minutes=1)).max_silence
    with pytest.raises(SettingsError, match="at least a minute"):
        Stream("readings", event(), max_silence=timedelta(seconds=59))


def test_a_stream_with_tags_is_hashable() -> None:
    tagged = Stream("readings", READINGS, tags={"tier": "gold"})
    assert tagged in {tagged}
    assert tagged != Stream("readings", READINGS)


@pytest.mark.parametrize("attribute", ["name", "topic", "table"])
def test_two_streams_with_a_common_name_are_refused(attribute: str) -> None:
    names = {"name": "one", "topic": "one_topic", "table": "one_table"}
    other = {"name": "two", "topic": "two_topic", "table": "two_table", attribute: names[attribute]}
    with pytest.raises(SettingsError, match=f"share the {attribute}"):
        by_name([Stream(event=event(), **names), Stream(event=event(), **other)])


def test_two_topics_with_the_same_asset_are_refused_with_a_remedy() -> None:
    """Kafka refuses topics that differ only in . and _, but accepts topics that differ only in - and _."""
    eu = Stream("one", event(), topic="orders.eu")
    with pytest.raises(
        SettingsError, match=r"one and two share the topic asset 'orders_eu': .* topic_asset=\"orders_eu_2\""
    ):
        by_name([eu, Stream("two", event(), topic="orders-eu")])
    apart = Stream("two", event(), topic="orders-eu", topic_asset="orders_eu_2")
    assert [stream.topic_asset_name for stream in by_name([eu, apart]).values()] == ["orders_eu", "orders_eu_2"]
    assert topic_key(StreamContext(apart, Clients(Settings()))).path == ["kafka", "orders_eu_2"]


@pytest.mark.parametrize("name", ["orders-eu", "orders.eu", "a b", "a/b", "é"])
def test_a_topic_asset_that_dagster_refuses_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=r"stream readings: topic_asset '.*' is not of A-Z"):
        Stream("readings", event(), topic_asset=name)


def test_system_columns_are_refused_with_a_remedy() -> None:
    box = {"xmin": float, "ymin": float, "xmax": float, "ymax": float}
    with pytest.raises(
        SettingsError, match=r"Event\.xmin, Event\.xmax: .* system column .*`xmin_value: .*name=\"xmin\""
    ):
        Stream("readings", event(**box))
    assert Stream("readings", event(box=msgspec.defstruct("Box", box.items()))).fields[1].name == "box_xmin"
    mended = [("event_time", datetime), ("xmin_value", float, msgspec.field(name="xmin"))]
    stream = Stream("readings", msgspec.defstruct("Event", mended))
    value = b'{"event_time": "2026-01-01T00:00:00Z", "xmin": 1.5}'
    assert (stream.fields[1].name, JsonDecoder(stream).decode(value)[1]) == ("xmin_value", 1.5)


def test_more_columns_than_postgresql_allows_are_refused() -> None:
    ours = len(Stream("readings", event()).table_columns)
    for more, fits in ((1600 - ours, True), (1601 - ours, False)):
        many = event(**{f"c{number}": int for number in range(more)})
        if fits:
            assert len(Stream("readings", many).table_columns) == 1600
        else:
            with pytest.raises(SettingsError, match=r"1,601 columns are more than PostgreSQL's 1,600"):
                Stream("readings", many)


@pytest.mark.parametrize("suffix", ["_pkey", "_event_time_brin"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_table_with_the_name_of_another_tables_index_is_refused(suffix: str, turned: bool) -> None:
    """Tables and indexes of a PostgreSQL schema share their names."""
    streams = [Stream("one", event()), Stream("two", event(), table=f"one{suffix}")]
    with pytest.raises(
        SettingsError, match=f"stream two: the table 'one{suffix}' has the name of an index of stream one"
    ):
        by_name(reversed(streams) if turned else streams)


@pytest.mark.parametrize("table", ["a.b.c", ".a", "a.", "."])
def test_a_table_name_has_at_most_one_schema(table: str) -> None:
    with pytest.raises(SettingsError, match=r"stream readings: table '.*' is not a table's name or schema\.name"):
        Stream("readings", event(), table=table)


def test_tables_and_indexes_of_different_schemas_may_share_their_names() -> None:
    streams = [Stream("one", event()), Stream("two", event(), table="telemetry.one_pkey")]
    assert len(by_name(streams)) == 2
    with pytest.raises(SettingsError, match="has the name of an index of stream three"):
        by_name([*streams, Stream("three", event(), table="telemetry.one")])


def test_the_schema_of_a_table_wins_over_the_shared_schema() -> None:
    plain, qualified = Stream("one", event()), Stream("two", event(), table="telemetry.two")
    assert [str(stream.table_name.within("public")) for stream in (plain, qualified)] == [
        "public.one",
        "telemetry.two",
    ]
    assert "CREATE TABLE telemetry.two (" in ddl(qualified, "public")


def test_an_int_gets_the_bounds_of_bigint_unless_declared_closer() -> None:
    fields = Stream("readings", event(wide=int, narrow=Annotated[int, msgspec.Meta(ge=0, le=9)])).fields
    wide, narrow = (msgspec.json.Decoder(field.decode_type) for field in fields[1:])
    assert wide.decode(str(BIGINT_MAX).encode()) == BIGINT_MAX
    with pytest.raises(msgspec.ValidationError):
        wide.decode(str(BIGINT_MAX + 1).encode())
    with pytest.raises(msgspec.ValidationError):
        narrow.decode(b"10")


def test_the_definition_changes_only_with_the_row() -> None:
    plain = Stream("readings", event(x=int))
    told = {"owners": ("team:ingest",), "tags": {"tier": "gold"}, "max_silence": timedelta(hours=1)}
    described = Annotated[int, msgspec.Meta(description="of x")]
    assert plain.definition() == Stream("readings", event(x=described), **told).definition()  # type: ignore[arg-type]
    others = [
        Stream("readings", event(x=float)),
        Stream("readings", event(x=int | None)),
        Stream("readings", event(y=int)),
        Stream("readings", event(x=int), table="other"),
        Stream("readings", event(x=int), topic="other"),
    ]
    assert len({plain.definition(), *(other.definition() for other in others)}) == 6
    assert plain.definition() != plain.definition("setting")


def test_two_streams_ship() -> None:
    assert [stream.name for stream in STREAMS] == ["temperature", "price"]
    assert STREAMS[0].columns[4:] == ("device_id", "temperature", "event_time")
    assert STREAMS[1].columns[4:] == ("symbol", "price", "event_time")


def test_an_event_that_is_no_struct_is_named() -> None:
    class Model(BaseModel):
        x: int

    @dataclass
    class Data:
        x: int

    for kind, name in ((Model, "Model"), (Data, "Data"), (READINGS(datetime.now(UTC)), "an instance of Reading")):
        with pytest.raises(SettingsError, match=f"^stream readings: event is {name}, and must be a msgspec Struct: "):
            Stream("readings", kind)  # type: ignore[arg-type]
