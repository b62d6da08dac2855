"""What of a JSON object the event does not declare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .nesting import Nested, Shape

_objects = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_anything = msgspec.json.Decoder()


class Undeclared:
    """Finds the keys that neither an event nor a Struct inside it declares.

    An object inside whose fields are columns is looked into; what is found there stands under its key.
    """

    def __init__(self, shape: Shape) -> None:
        self._declared: dict[str, Undeclared | None] = {
            member.json_name: Undeclared(member.shape) if isinstance(member, Nested) else None
            for member in shape.members
        }
        if (tag := shape.struct.__struct_config__.tag_field) is not None:
            self._declared[tag] = None
        self._nested = [(name, inner) for name, inner in self._declared.items() if inner is not None]

    def of(self, value: bytes | msgspec.Raw) -> dict[str, Any] | None:
        """Key → value of a JSON object that was decoded as the event before; None when there are none.

        Raises:
            MsgspecError, RecursionError: something undeclared is not JSON that Python can hold.
        """
        found: Mapping[str, msgspec.Raw] | None = _objects.decode(value)
        if found is None:
            return None
        more = {key: _anything.decode(found[key]) for key in found if key not in self._declared}
        for key, inner in self._nested:
            if key in found and (below := inner.of(found[key])) is not None:
                more[key] = below
        return more or None
