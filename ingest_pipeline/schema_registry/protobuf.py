"""Protobuf records → mappings, parsed with the stream's generated message class.

Protobuf matches fields by number, so the class can read records of older and newer schemas without asking the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC
from typing import Any

import msgspec

from ..core.errors import RecordRefused, RefusalStage
from ..core.formats import Protobuf
from ..core.stream import Stream
from .registry import payload_of

_LONGEST_VARINT = 10
_WELL_KNOWN: dict[str, Callable[[Any], Any]] = {
    "google.protobuf.Timestamp": lambda message: message.ToDatetime(UTC),
    "google.protobuf.Duration": lambda message: message.ToTimedelta().total_seconds(),
    **{
        f"google.protobuf.{kind}Value": lambda message: message.value
        for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
    },
}


class ProtobufReader:
    """Reads one stream's records."""

    def __init__(self, stream: Stream) -> None:
        assert isinstance(stream.format, Protobuf)
        message = stream.format.message
        self._name, self._indexes = message.DESCRIPTOR.name, _indexes_of(message.DESCRIPTOR)
        self._parse: Callable[[bytes], Any] = message.FromString
        self._nullable = [
            member.json_name
            for member in stream.shape.members
            if member.nullable and member.default is msgspec.NODEFAULT and member.default_factory is msgspec.NODEFAULT
        ]

    def read(self, value: bytes) -> Mapping[str, Any]:
        """The message's fields by their names in the .proto file. A field without a value is absent, or None if the
        event declares it nullable. Raises RecordRefused."""
        payload = payload_of(value)
        indexes, start = _indexes(payload)
        if indexes != self._indexes:
            raise RecordRefused(
                f"message {indexes} of its schema, and {self._name} is message {self._indexes}",
                stage=RefusalStage.DECODE,
            )
        try:
            fields = _fields(self._parse(payload[start:]))
        except MemoryError:
            raise
        except Exception:  # the parser's own DecodeError, and a time or duration outside Python's range
            raise RecordRefused(f"the bytes are no {self._name}", stage=RefusalStage.DECODE) from None
        for name in self._nullable:
            fields.setdefault(name, None)
        return fields


def _indexes_of(descriptor: Any) -> list[int]:
    """The path of a message in its .proto file: its index among the messages around it, outermost first."""
    parent = descriptor.containing_type
    if parent is None:
        return [list(descriptor.file.message_types_by_name).index(descriptor.name)]
    return [*_indexes_of(parent), list(parent.nested_types_by_name).index(descriptor.name)]


def _indexes(payload: bytes) -> tuple[list[int], int]:
    """(the path in front of a message, the message's start). The path [0] is written as a single zero byte."""
    count, start = _varint(payload, 0)
    if count == 0:
        return [0], start
    indexes: list[int] = []
    for _ in range(min(count, len(payload))):
        index, start = _varint(payload, start)
        indexes.append(index)
    return indexes, start


def _varint(payload: bytes, start: int) -> tuple[int, int]:
    """(a zigzag number of variable length, the index behind it). Raises RecordRefused."""
    number = 0
    for i, byte in enumerate(payload[start : start + _LONGEST_VARINT]):
        number |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), start + i + 1
    raise RecordRefused("the path of the message is cut off", stage=RefusalStage.DECODE)


def _fields(message: Any) -> dict[str, Any]:
    """Field → Python value. Absent: a field with presence and without a value."""
    fields: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            entry = field.message_type.fields_by_name["value"]
            fields[field.name] = {str(key): _value(entry, item) for key, item in value.items()}
        elif field.is_repeated:
            fields[field.name] = [_value(field, item) for item in value]
        else:
            fields[field.name] = _value(field, value)
    return fields


def _value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        convert: Callable[[Any], Any] = _WELL_KNOWN.get(field.message_type.full_name, _fields)
        return convert(value)
    if field.enum_type is not None:
        member = field.enum_type.values_by_number.get(value)
        return value if member is None else member.name
    return value
