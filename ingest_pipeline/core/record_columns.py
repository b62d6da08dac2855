"""What becomes of a record's key and headers: columns, which follow STAMP in an EventRow, or parts of the value."""

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from .choices import Envelope
from .dead_letters import Headers, encoded, raw_headers
from .errors import RecordRefused, RefusalStage
from .formats import Avro, Format, Json, JsonSchema, Protobuf
from .many import try_map, with_gaps
from .record import Message

Frame = Callable[[bytes, Headers], bytes]
"""(value, headers) → value with the headers' parts. The same value without such parts."""
_SCHEMA_ID, _KEY_SCHEMA_ID, _CLOUD, _VERSION = "__value_schema_id", "__key_schema_id", "ce_", "specversion"
_one_value = msgspec.json.Decoder(msgspec.Raw)


def frame_of(record_format: Format, envelope: str) -> Frame | None:
    """None: the headers have no part of a value."""
    if isinstance(record_format, Avro | JsonSchema | Protobuf):
        return with_schema_id
    if envelope == Envelope.CLOUDEVENTS and isinstance(record_format, Json):
        return structured
    return None


def with_schema_id(value: bytes, headers: Headers, name: str = _SCHEMA_ID) -> bytes:
    """The value behind the schema id that Confluent's serializers can write into a header, in the same bytes."""
    return next((schema_id + value for key, schema_id in _texts(headers) if key == name), value)


def structured(value: bytes, headers: Headers) -> bytes:
    """A CloudEvent of the binary mode, whose attributes are headers, in the structured mode."""
    attributes = {
        key.removeprefix(_CLOUD): msgspec.Raw(msgspec.json.encode(text.decode(errors="replace")))
        for key, text in _texts(headers)
        if key.startswith(_CLOUD)
    }
    if _VERSION not in attributes:
        return value
    try:
        data = _one_value.decode(value)
    except msgspec.MsgspecError:
        return value  # no data of a CloudEvent, and the decoder says why
    return msgspec.json.encode(attributes | {"data": data})


def _texts(headers: Headers) -> Iterator[tuple[str, bytes]]:
    for key, text in headers:
        if key is not None and text is not None:
            yield key, base64.b64decode(text)


class ReadParts(NamedTuple):
    """The keys and headers of messages.

    Attributes:
        columns: a list of values per column.
        refused: index of a message → why the message cannot become a row.
        headers: of each message, None where they cannot be read. Empty if they are not needed.
    """

    columns: list[list[Any]]
    refused: dict[int, RecordRefused]
    headers: list[Headers | None]


NOTHING_READ = ReadParts([], {}, [])


@dataclass(frozen=True, slots=True)
class RecordColumns:
    """Which of a record's key and headers are columns.

    Attributes:
        key: bytes or str, the type of the key's column. None: no column.
        key_required: a record without a key is refused.
        headers: whether a column holds the headers, in the same form as in a dead letter.
        topic: value of the topic's column. "": no column.
        frame: puts parts of a value that are in headers into the value. None: the headers have none.
    """

    key: type[bytes] | type[str] | None = None
    headers: bool = False
    key_required: bool = False
    frame: Frame | None = None
    topic: str = ""

    @property
    def any(self) -> bool:
        return self.key is not None or self.headers or self.frame is not None or bool(self.topic)

    def read(self, messages: Sequence[Message]) -> ReadParts:
        """Headers may be read only once per message. Later readers take them from the result."""
        columns: list[list[Any]] = [[self.topic] * len(messages)] if self.topic else []
        refused: dict[int, RecordRefused] = {}
        if self.key is not None:
            columns.append([message.key() for message in messages])
        if self.key is str or self.key_required:
            keys = columns[-1]
            for i, key in enumerate(keys):
                try:
                    keys[i] = self.key_value(key)
                except RecordRefused as error:
                    keys[i], refused[i] = None, error
        headers: list[Headers | None] = []
        if self.headers or self.frame is not None:
            raw, unreadable = try_map(raw_headers, messages)
            complete = with_gaps(raw, unreadable)
            headers = list(map(encoded, complete)) if any(raw) else complete
        if self.headers:
            columns.append(headers)
            for i in unreadable:
                refused[i] = RecordRefused("headers cannot be read: a key is not UTF-8")
        of_values = {i: error for i, error in refused.items() if messages[i].value() is not None}
        return ReadParts(columns, of_values, headers)

    def framed(self, value: bytes | None, headers: Headers | None) -> bytes | None:
        """The value with its parts in headers."""
        if value is None or not headers or self.frame is None:
            return value
        return self.frame(value, headers)

    def framed_key(self, key: bytes | None, headers: Headers | None = None) -> bytes | None:
        """The key with its schema's id in headers."""
        if key is None or not headers or self.frame is not with_schema_id:
            return key
        return with_schema_id(key, headers, _KEY_SCHEMA_ID)

    def of_letter(self, key: bytes | None, headers: Headers | None) -> tuple[Any, ...]:
        """The columns' values from a dead letter. Raises RecordRefused for a key that its column cannot hold."""
        values: list[Any] = [self.topic] if self.topic else []
        values += [] if self.key is None else [self.key_value(key)]
        return (*values, headers) if self.headers else tuple(values)

    def key_value(self, key: bytes | None) -> bytes | str | None:
        """The key's column. Raises RecordRefused for a key that its column cannot hold."""
        if key is None and self.key_required:
            raise RecordRefused("the record has no key, which is the row's key")
        if key is None or self.key is bytes:
            return key
        try:
            text = key.decode()
        except UnicodeDecodeError:
            raise RecordRefused("key is not UTF-8, which its text column needs") from None
        if "\0" in text:
            raise RecordRefused(
                "NUL character in the key, which PostgreSQL cannot store as text", stage=RefusalStage.VALUE
            )
        return text


NO_RECORD_COLUMNS = RecordColumns()
