"""The keys of a JSON object that the event does not declare."""

from collections.abc import Mapping

import msgspec

from .documents import check_json
from .nesting import Nested, Shape

_objects = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)


class Undeclared:
    """Finds keys that neither an event nor a Struct inside the event declares.

    Undeclared keys of a nested Struct stay under the Struct's key.
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
        """A JSON object of the undeclared keys with their original text. None without undeclared keys.

        Args:
            value: a JSON object that the event's decoder has accepted.

        Raises:
            MsgspecError, UnicodeError, RecursionError: jsonb would refuse an undeclared value.
        """
        members: Mapping[str, msgspec.Raw] | None = _objects.decode(value)
        if members is None:
            return None
        extra = {key: raw for key, raw in members.items() if key not in self._declared}
        for raw in extra.values():
            check_json(raw)
        for key, inner in self._nested:
            if key in members and (below := inner.of(members[key])) is not None:
                extra[key] = below
        pairs = [msgspec.json.encode(key) + b":" + bytes(raw) for key, raw in extra.items()]
        return msgspec.Raw(b"{" + b",".join(pairs) + b"}") if pairs else None
