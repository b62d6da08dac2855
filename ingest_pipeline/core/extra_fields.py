"""What of a JSON object the event does not declare."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from .documents import check_json
from .nesting import Nested, Shape

_objects = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)


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

    def of(self, value: bytes | msgspec.Raw) -> msgspec.Raw | None:
        """A JSON object of the undeclared keys, each with its value as it was sent; None when there are none.

        Args:
            value: a JSON object that was decoded as the event before.

        Raises:
            MsgspecError, UnicodeError, RecursionError: something undeclared is not JSON that jsonb takes.
        """
        found: Mapping[str, msgspec.Raw] | None = _objects.decode(value)
        if found is None:
            return None
        more = {key: raw for key, raw in found.items() if key not in self._declared}
        for raw in more.values():
            check_json(raw)
        for key, inner in self._nested:
            if key in found and (below := inner.of(found[key])) is not None:
                more[key] = below
        pairs = [msgspec.json.encode(key) + b":" + bytes(raw) for key, raw in more.items()]
        return msgspec.Raw(b"{" + b",".join(pairs) + b"}") if pairs else None
