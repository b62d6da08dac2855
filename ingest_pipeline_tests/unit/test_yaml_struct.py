"""Fields in YAML give the Struct that the same declaration in Python gives."""

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest
import yaml
from msgspec import Meta, Struct, field
from pydantic import ValidationError

from ingest_pipeline import AsJson, Epoch, Route, Stream, TimeFormat
from ingest_pipeline.core.errors import SettingsError
from ingest_pipeline.orchestration.components.attributes import attributes_model, stream_of

READING = """
name: reading
topic: meters.readings
fields:
  meter: {type: str, description: On the meter., min_length: 1}
  kilowatts: {type: float, ge: 0}
  count: {type: int | None, ge: 0}
  paid: Decimal
  id: UUID
  day: date
  raw: bytes
  on: bool
  event_time: {type: datetime, key: ts, time: {epoch: ms}}
  printed_at: {type: datetime | None, default: null, time: {format: "%d.%m.%Y", zone: Europe/Berlin}}
  tariff: {type: str, default: standard}
  tags: {type: "list[str]", default: []}
  levels: "dict[str, float | None]"
  site:
    type: object | None
    default: null
    fields: {city: str, opened: {type: date, key: openedAt}}
  owner: {type: dict, fields: {name: str}}
  parts: {type: list, fields: {name: str}}
"""


class Site(Struct):
    city: str
    opened: date = field(name="openedAt")


class Owner(Struct):
    name: str


class Parts(Struct):
    name: str


class Reading(Struct, kw_only=True):
    """One reading."""

    meter: Annotated[str, Meta(description="On the meter.", min_length=1)]
    kilowatts: Annotated[float, Meta(ge=0)]
    count: Annotated[int, Meta(ge=0)] | None
    paid: Decimal
    id: UUID
    day: date
    raw: bytes
    on: bool
    event_time: Annotated[datetime, Epoch("ms")] = field(name="ts")
    printed_at: Annotated[datetime, TimeFormat("%d.%m.%Y", zone="Europe/Berlin")] | None = None
    tariff: str = "standard"
    tags: list[str] = []
    levels: dict[str, float | None]
    site: Site | None = None
    owner: Annotated[Owner, AsJson]
    parts: list[Parts]


def declared(text: str, **more: Any) -> Stream:
    return stream_of(attributes_model().model_validate({**yaml.safe_load(text), **more}))


def fault(text: str) -> tuple[str, str]:
    """(message, path) of the refusal."""
    with pytest.raises(SettingsError) as refused:
        declared(text)
    return refused.value.message, ".".join(refused.value.where["path"])


def test_the_stream_is_the_one_of_python() -> None:
    text = READING.replace("  on:", '  "on":')
    in_python = Stream("reading", Reading, topic="meters.readings")
    in_yaml = declared(text, description="One reading.")
    assert in_yaml.definition() == in_python.definition()
    assert in_yaml.table_columns == in_python.table_columns
    assert in_yaml.description == in_python.description
    assert [item.description for item in in_yaml.fields] == [item.description for item in in_python.fields]


def test_every_option_of_a_stream_is_an_attribute() -> None:
    options = set(Stream.__dataclass_fields__) - {"event"}
    model = attributes_model()
    assert set(model.model_fields) == options | {"fields", "description"}
    assert model.model_json_schema()["properties"]["topic"]["description"] == "defaults to the name."


def test_options_have_their_python_values() -> None:
    stream = declared(
        "{name: line, fields: {a: str}, format: {csv: {delimiter: ';'}}, key_column: k, key_type: str,"
        " owners: ['team:x'], max_silence: '2:00:00', tags: {x: y}, transform: 'msgspec.structs:replace',"
        " settings: {batch_size: 7}}"
    )
    from ingest_pipeline import Csv

    assert (stream.format, stream.key_type, stream.owners) == (Csv(";"), str, ("team:x",))
    assert (str(stream.max_silence), stream.tags, stream.settings) == ("2:00:00", {"x": "y"}, {"batch_size": 7})
    assert stream.transform is msgspec.structs.replace


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("{name: r, fields: {a: strng}}", "fields.a", "there is no type 'strng'. Types: str, int"),
        ("{name: r, fields: {a: 'list[strng]'}}", "fields.a", "Did you mean str?"),
        ("{name: r, fields: {a: 'list['}}", "fields.a", "'list[' is not a type"),
        ("{name: r, fields: {a: __import__('os')}}", "fields.a", "is not a type"),
        ("{name: r, fields: {a: 'str | int'}}", "fields.a", "has no column type"),
        ("{name: r, fields: {a: object}}", "fields.a", "an object has fields"),
        ("{name: r, fields: {a: {type: str, fields: {b: str}}}}", "fields.a", "object, dict or list, not 'str'"),
        ("{name: r, fields: {a: {fields: {b: {type: x}}}}}", "fields.a.fields.b", "there is no type 'x'"),
        ("{name: r, fields: {a-b: str}}", "fields.a-b", "Its key may differ"),
        ("{name: r, fields: {class: str}}", "fields.class", "Its key may differ"),
        ("{name: r, fields: {a: {type: int, default: x}}}", "fields.a.default", "Expected `int`"),
        ("{name: r, fields: {a: {type: str, time: {epoch: ms}}}}", "fields.a", "Epoch is for a datetime"),
        ("{name: r, fields: {a: {type: datetime, time: {zone: Mars/X}}}}", "fields.a", "no time zone 'Mars/X'"),
        (
            "{name: r, fields: {a: {type: datetime, time: {epoch: s, zone: UTC}}}}",
            "fields.a.time",
            "an epoch has no format",
        ),
        ("{name: r, fields: {a: {type: str, ge: 1}}}", "fields.a", "ge"),
        ("{name: r, fields: {kafka_offset: int}}", "fields.kafka_offset", "every event table has a column"),
        ("{name: R, fields: {a: str}}", "name", "a name is a lower-case letter"),
        ("{name: r, topic: a b, fields: {a: str}}", "topic", "not a name Kafka allows"),
        ("{name: r, job: A, fields: {a: str}}", "job", "job 'A' is not"),
        ("{name: r, key_column: a, fields: {a: str}}", "key_column", "has a field of that name"),
        ("{name: r, envelope: x, fields: {a: str}}", "envelope", "is not one of"),
        ("{name: r, format: {csv: {quote: x}}, fields: {a: str}}", "format.csv", "has no 'quote', only delimiter"),
        ("{name: r, format: {csv: {delimiter: ab}}, fields: {a: str}}", "format.csv", "is not one character"),
        ("{name: r, format: protobuf, fields: {a: str}}", "format", "needs message"),
        ("{name: r, format: {protobuf: {message: 'no:No'}}, fields: {a: str}}", "format.protobuf.message", "No module"),
        ("{name: r, transform: 'os:nothing', fields: {a: str}}", "transform", "is not module:function"),
        (
            "{name: r, settings: {batch_size: 0}, fields: {a: str}}",
            "settings.batch_size",
            "R_BATCH_SIZE must be a whole",
        ),
    ],
)
def test_a_fault_has_its_path_and_its_reason(text: str, path: str, words: str) -> None:
    message, where = fault(text)
    assert where == path
    assert words in message


@pytest.mark.parametrize("value", [[], {}, [1], {"a": [1]}])
def test_every_event_has_its_own_copy_of_a_default(value: Any) -> None:
    stream = declared("{name: r, fields: {}}", fields={"a": {"type": type(value).__name__, "default": value}})
    first, second = stream.event(), stream.event()
    assert first.a == value
    assert first.a is not second.a


ROUTED = """
name: event
fields: {kind: str}
route:
  field: kind
  tables: {view: views, click: {table: web.clicks, fields: {kind: str, url: str}}}
  others: skip
"""


class Event(Struct):
    kind: str


class WebClicks(Struct):
    kind: str
    url: str


def test_a_route_has_tables_with_and_without_fields_of_their_own() -> None:
    route = Route("kind", {"view": "views", "click": ("web.clicks", WebClicks)}, others="skip")
    in_python, in_yaml = Stream("event", Event, route=route), declared(ROUTED)
    assert in_yaml.definition() == in_python.definition()
    for ours, theirs in zip(in_yaml.tables, in_python.tables, strict=True):
        assert (ours.table, ours.table_columns) == (theirs.table, theirs.table_columns)


def test_a_fault_in_a_route_names_its_path() -> None:
    assert fault(ROUTED.replace("url: str", "url: text"))[1] == "route.tables.click.fields.url"
    with pytest.raises(ValidationError, match=r"route\.others\n"):
        declared(ROUTED.replace("others: skip", "others: drop"))
    assert "no record of the route" in fault(ROUTED + "table: rest")[0]
