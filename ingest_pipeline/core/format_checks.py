"""Whether a format and an envelope can give an event."""

from __future__ import annotations

from .choices import Envelope
from .errors import SettingsError
from .formats import Csv, Format, Json, JsonSchema, Protobuf
from .nesting import Shape


def check_format(record_format: Format, envelope: str, shape: Shape, extra_column: str) -> None:
    """Raises SettingsError with the reason, which does not name the stream."""
    if extra_column:
        _check_extra(record_format, shape)
    if envelope not in set(Envelope):
        names = ", ".join(repr(str(name)) for name in Envelope if name)
        raise SettingsError(f"envelope {envelope!r} is not one of {names}")
    if envelope and isinstance(record_format, Csv | Protobuf):
        raise SettingsError(f"the format {record_format} has no envelope")
    if isinstance(record_format, Protobuf):
        _check_message(record_format, shape)
    if isinstance(record_format, Csv) and (
        shape.nested or any(item.python_type in (dict, list, bytes) for item in shape.leaves)
    ):
        raise SettingsError(
            f"{shape.struct.__name__} has a field that a CSV value cannot hold: no Struct, dict, list or bytes"
        )


def _check_extra(record_format: Format, shape: Shape) -> None:
    if not isinstance(record_format, Json | JsonSchema):
        raise SettingsError(f"extra_column is for JSON, and the format is {record_format}")
    if shape.struct.__struct_config__.forbid_unknown_fields:
        raise SettingsError(
            f"{shape.struct.__name__} forbids unknown fields, so extra_column would stay empty: leave one of the two"
        )
    for struct in shape.structs:
        if struct.__struct_config__.array_like:
            raise SettingsError(f"{struct.__name__} is read from an array, which has no keys for extra_column")


def _check_message(protobuf: Protobuf, shape: Shape) -> None:
    descriptor = protobuf.message.DESCRIPTOR
    for member in shape.members:
        if member.required and member.json_name not in descriptor.fields_by_name:
            raise SettingsError(
                f"{shape.struct.__name__}.{member.attribute}: the message {descriptor.full_name} has no field"
                f" {member.json_name!r}"
            )
