"""Protobuf records → mappings, parsed with the stream's generated message class.

Protobuf matches fields by number, so the class can read records of older and newer schemas without asking the registry.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from ..core.errors import RecordRefused
from ..core.fields import Field
from ..core.nesting import Nested
from ..core.timestamps import EPOCH
from .registry import ID_BYTES, payload_of

_LONGEST_VARINT = 10
Convert = Callable[[Any], Any]
_NANOSECONDS = 1_000_000_000


def _timestamp(message: Any) -> datetime:
    """As the message's ToDatetime, in half the time. Raises ValueError and OverflowError."""
    nanos = message.nanos
    if not 0 <= nanos < _NANOSECONDS:
        raise ValueError("a second has 1,000,000,000 nanoseconds")
    return EPOCH + timedelta(0, message.seconds, nanos // 1000)


_WELL_KNOWN: dict[str, Convert] = {
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.Duration": lambda message: message.ToTimedelta().total_seconds(),
    **{
        f"google.protobuf.{kind}Value": lambda message: message.value
        for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
    },
}


class ProtobufReader:
    """Reads a message's fields that the members name."""

    def __init__(self, message: Any, members: Sequence[Field | Nested]) -> None:
        self._name, self._indexes = message.DESCRIPTOR.name, _indexes_of(message.DESCRIPTOR)
        self._path = b""  # of the last message
        self._parse: Convert = message.FromString
        self._convert = _converter(message.DESCRIPTOR, {member.json_name for member in members})
        self._nullable = [member.json_name for member in members if member.nullable and member.required]

    def read(self, value: bytes) -> Mapping[str, Any]:
        """The message's fields by their names in the .proto file. A field without a value is absent, or None if the
        event declares it nullable. Raises RecordRefused."""
        start = ID_BYTES + len(self._path)
        same_path = value.startswith(b"\0") and value[ID_BYTES:start] == self._path != b""
        message = value[start:] if same_path else self._message(value)
        try:
            fields: dict[str, Any] = self._convert(self._parse(message))
        except (DecodeError, ValueError, OverflowError):  # a time or duration may lie outside Python's range
            raise RecordRefused(f"the bytes are no {self._name}") from None
        for name in self._nullable:
            fields.setdefault(name, None)
        return fields

    def _message(self, value: bytes) -> bytes:
        """The bytes behind the message's path."""
        payload = payload_of(value)
        indexes, start = _indexes(payload)
        if indexes != self._indexes:
            raise RecordRefused(f"message {indexes} of its schema, and {self._name} is message {self._indexes}")
        self._path = payload[:start]
        return payload[start:]


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
    raise RecordRefused("the path of the message is cut off")


def _converter(descriptor: Any, names: Collection[str] | None = None) -> Convert:
    """A function from a message to its fields by name. Absent: a field with presence and without a value.

    Args:
        names: the wanted fields. None: all.
    """
    plain: list[tuple[str, Convert | None]] = []
    present: list[tuple[str, Convert | None]] = []
    for field in descriptor.fields:
        if names is None or field.name in names:
            (present if field.has_presence else plain).append((field.name, _field_converter(field)))

    def convert(message: Any) -> dict[str, Any]:
        fields = {}
        for name, inner in plain:
            value = getattr(message, name)
            fields[name] = value if inner is None else inner(value)
        for name, inner in present:
            if message.HasField(name):
                value = getattr(message, name)
                fields[name] = value if inner is None else inner(value)
        return fields

    return convert


def _field_converter(field: Any) -> Convert | None:
    """A function for a field's value. None: the value needs no conversion."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        item = _value_converter(field.message_type.fields_by_name["value"]) or (lambda value: value)
        return lambda entries: {str(key): item(entries[key]) for key in entries}
    single = _value_converter(field)
    if field.is_repeated:
        return list if single is None else lambda values: [single(value) for value in values]
    return single


def _value_converter(field: Any) -> Convert | None:
    if field.message_type is not None:
        return _WELL_KNOWN.get(field.message_type.full_name) or _Later(field.message_type)
    if field.enum_type is not None:
        names = {number: member.name for number, member in field.enum_type.values_by_number.items()}
        return lambda number: names.get(number, number)
    return None


class _Later:
    """Converts a message. The converter is made on first use, because a message may contain itself."""

    def __init__(self, descriptor: Any) -> None:
        self._descriptor = descriptor

    @cached_property
    def _convert(self) -> Convert:
        return _converter(self._descriptor)

    def __call__(self, message: Any) -> Any:
        return self._convert(message)
