"""Whether a stream's records can hold several events."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from .columns import ORDINAL
from .errors import SettingsError
from .formats import Format, Json, JsonSchema
from .nesting import Shape


def check_many(
    record_format: Format, envelope: str, shape: Shape, transform: Callable[[Any], Any] | None, columns: Collection[str]
) -> None:
    """Raises SettingsError with the reason, which does not name the stream. `columns`: the names of all columns."""
    if list(columns).count(ORDINAL.name) > 1:
        raise SettingsError(f"many=True adds the column {ORDINAL.name}: rename the field or the option of that name")
    if shape.struct.__struct_config__.array_like:
        raise SettingsError(f"many=True: {shape.struct.__name__} is read from an array itself")
    if transform is not None:
        return
    if envelope:
        raise SettingsError(f"many=True: an envelope ({envelope}) holds one event, so a transform has to make the list")
    if not isinstance(record_format, Json | JsonSchema):
        raise SettingsError(
            f"many=True: a record of {record_format} holds one event, so a transform has to make the list"
        )
