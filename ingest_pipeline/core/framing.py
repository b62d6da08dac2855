"""Parts of a value that a producer wrote into the record's headers, put back into the value.

A decoder gets only a value, so the headers' parts go where other producers write them: a schema id in front of the
value, and a CloudEvent's attributes around the data.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator

import msgspec

from .choices import Envelope
from .dead_letters import Headers
from .formats import Avro, Format, Json, JsonSchema, Protobuf

Frame = Callable[[bytes, Headers], bytes]
"""(value, headers) → value with the headers' parts. The same value without such parts."""
_SCHEMA_ID, _CLOUD, _VERSION = "__value_schema_id", "ce_", "specversion"
_one_value = msgspec.json.Decoder(msgspec.Raw)


def frame_of(record_format: Format, envelope: str) -> Frame | None:
    """None: the headers have no part of a value."""
    if isinstance(record_format, Avro | JsonSchema | Protobuf):
        return with_schema_id
    if envelope == Envelope.CLOUDEVENTS and isinstance(record_format, Json):
        return structured
    return None


def with_schema_id(value: bytes, headers: Headers) -> bytes:
    """The value behind the schema id that Confluent's serializers can write into a header, in the same bytes."""
    return next((schema_id + value for key, schema_id in _texts(headers) if key == _SCHEMA_ID), value)


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
