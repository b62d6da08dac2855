"""Parts of a value in headers: schema ids of Confluent's serializers, and CloudEvents in binary mode.

The registry is a stub that knows GUIDs, because Apicurio 3.0.9 has none. The producer is Confluent's own serializer.
"""

import base64
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

import msgspec
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient, header_schema_id_serializer
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from ingest_pipeline import Avro, JsonSchema, Protobuf, Stream
from ingest_pipeline.core.choices import NaiveTimestamps
from ingest_pipeline.core.errors import RecordRefused, SchemaRegistryUnavailable
from ingest_pipeline.core.record import Batch, NextOffset, Position
from ingest_pipeline.core.record_columns import structured, with_schema_id
from ingest_pipeline.core.rows import RecordRules, decode_batch
from ingest_pipeline.operations.decoders import decoder_of
from ingest_pipeline.schema_registry.registry import SchemaRegistry
from ingest_pipeline.testing.log import MemoryMessage
from ingest_pipeline_tests.meter_message import METER
from ingest_pipeline_tests.unit.test_avro import MILLIS, record

GUID = UUID("0f0e0d0c-0b0a-0908-0706-050403020100")
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SCHEMA = json.dumps(record("Point", x="double", at=MILLIS))
POSITIONS = {0: Position(0, 1, NextOffset(0))}
Headers = Sequence[tuple[str, bytes | None]]


class Point(msgspec.Struct):
    x: float
    event_time: datetime = msgspec.field(name="at")


class StubRegistry(BaseHTTPRequestHandler):
    """Registers the schema under an id and a GUID, and gives it by the GUID only."""

    known: dict[str, str]

    def do_POST(self) -> None:
        schema = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["schema"]
        self.known[str(GUID)] = schema
        self._answer(200, {"id": 7, "guid": str(GUID), "version": 1, "schema": schema})

    def do_GET(self) -> None:
        schema = self.known.get(self.path.removeprefix("/schemas/guids/"))
        if schema is None:
            self._answer(404, {"error_code": 40403, "message": "Schema not found"})
        else:
            self._answer(200, {"schema": schema, "guid": str(GUID)})

    def _answer(self, status: int, answer: Any) -> None:
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Without output."""


@pytest.fixture
def registry_url() -> Iterator[str]:
    stub = type("Stub", (StubRegistry,), {"known": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), stub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def registry(registry_url: str) -> Iterator[SchemaRegistry]:
    opened = SchemaRegistry({"url": registry_url})
    yield opened
    opened.close()


def produced(url: str) -> tuple[bytes, Headers]:
    """A record of Confluent's serializer with the id in a header."""
    with SchemaRegistryClient({"url": url}) as client:
        options = {"schema.id.serializer": header_schema_id_serializer}
        serialize = AvroSerializer(client, SCHEMA, conf=options)
        headers: list[tuple[str, bytes | None]] = [("trace", b"\xff")]
        value = serialize({"x": 0.1, "at": AT}, SerializationContext("points", MessageField.VALUE, headers))
    assert isinstance(value, bytes)
    return value, headers


class Once(MemoryMessage):
    """A second read of the headers would kill the process if the first one failed."""

    reads = 0

    def headers(self) -> Any:
        self.reads += 1
        assert self.reads == 1
        headers = super().headers()
        if headers is not None and headers[0][0] == "unreadable":
            raise SystemError
        return headers


def batch_of(
    stream: Stream, records: Sequence[tuple[bytes | None, Headers | None]], registry: Callable[[], Any] | None = None
) -> Batch:
    decoder = decoder_of(stream, NaiveTimestamps.UTC, registry or (lambda: pytest.fail("no registry is needed")))
    rules = RecordRules(record_columns=stream.record_columns)
    batches = []
    for together in ({"decode_many": decoder.decode_many}, {}):
        messages = [Once(0, n, 0, value, headers=headers) for n, (value, headers) in enumerate(records)]
        batches.append(decode_batch(messages, {}, POSITIONS, decode=decoder.decode, rules=rules, **together))
    together_batch, alone = batches
    assert together_batch is not None and alone is not None
    assert (together_batch.rows, together_batch.dead_letters) == (alone.rows, alone.dead_letters)
    return together_batch


def test_a_schema_is_found_by_the_guid_in_a_header(registry_url: str, registry: SchemaRegistry) -> None:
    value, headers = produced(registry_url)
    assert (headers[1][0], headers[1][1]) == ("__value_schema_id", b"\1" + GUID.bytes)
    batch = batch_of(Stream("points", Point, format=Avro()), [(value, headers)] * 2, lambda: registry)
    assert [row[4:] for row in batch.rows] == [(0.1, AT)] * 2


def test_reasons_name_the_guid(registry_url: str, registry: SchemaRegistry) -> None:
    value, headers = produced(registry_url)
    other = [("__value_schema_id", b"\1" + bytes(16))]
    records: list[Any] = [(value, None), (value, other), (value[:-1], headers), (value, [("__value_schema_id", b"\2")])]
    batch = batch_of(Stream("points", Point, format=Avro()), records, lambda: registry)
    assert [letter.reason for letter in batch.dead_letters] == [
        "no schema id: the value does not start with a zero byte and four bytes of id",
        "the schema registry does not know schema id 00000000-0000-0000-0000-000000000000",
        f"the bytes do not follow schema id {GUID}",
        "no schema id: the value does not start with a zero byte and four bytes of id",
    ]
    assert batch.dead_letters[2].value == value[:-1]
    assert batch.dead_letters[2].headers is not None and batch.dead_letters[2].headers[0][0] == "trace"


def test_a_registry_that_is_away_refuses_no_record() -> None:
    value = b"\1" + GUID.bytes
    away = SchemaRegistry({"url": "http://127.0.0.1:1"})
    decoder = decoder_of(Stream("points", Point, format=Avro()), NaiveTimestamps.UTC, lambda: away)
    with pytest.raises(SchemaRegistryUnavailable):
        decoder.decode(value)


def test_a_missing_field_names_the_guid(registry_url: str, registry: SchemaRegistry) -> None:
    class More(msgspec.Struct):
        x: float
        more: str

    value, headers = produced(registry_url)
    batch = batch_of(Stream("points", More, format=Avro()), [(value, headers)], lambda: registry)
    assert [letter.reason for letter in batch.dead_letters] == [f"schema id {GUID} has no field `more`"]


def test_other_formats_take_the_id_out_of_a_header_too() -> None:
    class Count(msgspec.Struct):
        device_id: str
        count: int

    guid = b"\1" + GUID.bytes
    batch = batch_of(
        Stream("counts", Count, format=JsonSchema()),
        [(b'{"device_id": "a", "count": 1}', [("__value_schema_id", guid)])],
    )
    message = METER(device_id="a", count=1).SerializeToString()
    header = guid + b"\2\2"  # Confluent's serializer writes the message's path behind the GUID
    batch_2 = batch_of(Stream("counts", Count, format=Protobuf(METER)), [(message, [("__value_schema_id", header)])])
    assert [batch.rows[0][4:], batch_2.rows[0][4:]] == [("a", 1)] * 2


def test_unreadable_headers_leave_a_record_with_its_id(registry_url: str, registry: SchemaRegistry) -> None:
    value, _ = produced(registry_url)
    framed = b"\1" + GUID.bytes + value
    unreadable = [("unreadable", b"")]
    batch = batch_of(
        Stream("points", Point, format=Avro()), [(framed, unreadable), (value, unreadable)], lambda: registry
    )
    assert ([row[2] for row in batch.rows], [letter.offset for letter in batch.dead_letters]) == ([0], [1])
    assert (batch.headers, batch.dead_letters[0].headers) == ([None], None)


class Order(msgspec.Struct):
    number: int
    kind: str = msgspec.field(name="ce_type")
    source: str | None = msgspec.field(name="ce_source", default=None)


ORDERS = Stream("orders", Order, envelope="cloudevents")
BINARY: Headers = [("ce_specversion", b"1.0"), ("ce_type", "größe".encode()), ("content-type", b"application/json")]


def test_a_cloud_event_in_binary_mode() -> None:
    records: list[tuple[bytes, Headers | None]] = [
        (b'{"number": 1}', BINARY),
        (b' {"number": 2} ', [*BINARY, ("ce_source", b"/shop"), ("ce_source", None)]),
        (b'{"specversion": "1.0", "type": "b", "data": {"number": 3}}', None),
        (b'{"specversion": "1.0", "type": "c", "data": {"number": 4}}', [("content-type", b"application/json")]),
    ]
    batch = batch_of(ORDERS, records)
    assert [row[4:] for row in batch.rows] == [
        (1, "größe", None),
        (2, "größe", "/shop"),
        (3, "b", None),
        (4, "c", None),
    ]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'{"number": 1}, "type": 5', "JSON is malformed: trailing characters"),
        (b'{"number": 1},"data":{"number":2}', "JSON is malformed: trailing characters"),
        (b'{"number": "1"}', "Expected `int`, got `str` - at `$.number`"),
        (b"5", "the envelope's event is not a JSON object"),
        (b"null", "the CloudEvent has no `data`"),
        (b"\xff", "JSON is malformed: invalid character"),
    ],
)
def test_bad_data_of_a_binary_cloud_event_is_refused(value: bytes, reason: str) -> None:
    (letter,) = batch_of(ORDERS, [(value, BINARY)]).dead_letters
    assert (letter.reason, letter.value) == (reason, value)
    assert letter.headers is not None and letter.headers[0] == ["ce_specversion", base64.b64encode(b"1.0").decode()]


def test_an_attribute_cannot_take_the_place_of_the_data() -> None:
    (row,) = batch_of(ORDERS, [(b'{"number": 1}', [*BINARY, ("ce_data", b"x")])]).rows
    assert row[4] == 1


def test_tombstones_and_values_without_parts_stay_as_they_are() -> None:
    headers = [["trace", "eA=="], ["ce_type", None]]
    assert structured(b"{}", headers) == with_schema_id(b"{}", headers) == b"{}"
    assert batch_of(ORDERS, [(None, BINARY)]).advances[0].skipped == 1


def test_a_value_that_is_too_large_is_refused() -> None:
    decoder = decoder_of(ORDERS, NaiveTimestamps.UTC, lambda: pytest.fail("no registry is needed"))
    rules = RecordRules(max_record_bytes=10, record_columns=ORDERS.record_columns)
    message = Once(0, 0, 0, b'{"number": 1}', headers=BINARY)
    batch = decode_batch([message], {}, POSITIONS, decode=decoder.decode, rules=rules)
    assert batch is not None and batch.dead_letters[0].stage == "size"


def test_the_guid_must_be_whole() -> None:
    decoder = decoder_of(Stream("points", Point, format=JsonSchema()), NaiveTimestamps.UTC, lambda: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(RecordRefused, match="no schema id"):
        decoder.decode(b"\1" + bytes(15))
