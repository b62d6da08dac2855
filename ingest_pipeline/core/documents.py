"""jsonb columns with a field's JSON text: numbers keep every digit.

Python would turn 12345678901234567.89 into a double and write 1.2345678901234568e+16. PostgreSQL's jsonb keeps numbers
exactly: PostgreSQL gets the text. The text is also decoded, to check the declared type and the UTF-8, because msgspec
does not check UTF-8 in skipped text.
"""

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from .errors import RecordRefused
from .fields import Field
from .reasons import UNDECODABLE, inside, reason_of

ESCAPED_NUL = b"\\u0000"
_anything = msgspec.json.Decoder(float_hook=str)
"""`float_hook` takes numbers of any size."""


class Documents:
    """Finds and checks a row's values of JSON text.

    Args:
        sent: False decodes all fields instead, because an event's own check reads the values and may change them.
    """

    def __init__(self, fields: Sequence[Field], sent: bool) -> None:
        self._checks = [
            (i, item.path, msgspec.json.Decoder(item.decode_type, float_hook=str).decode)
            for i, item in enumerate(fields)
            if sent and is_document(item)
        ]
        self.any = bool(self._checks)

    def type_of(self, item: Field, otherwise: Any) -> Any:
        """The type to decode a field as: Raw for JSON text."""
        return msgspec.Raw if self.any and is_document(item) else otherwise

    def checked(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """The row, with None for a JSON null. Raises RecordRefused if JSON does not have the declared type."""
        for i, path, decode in self._checks:
            if isinstance(row[i], msgspec.Raw):
                try:
                    value = decode(row[i])
                except UNDECODABLE as error:
                    raise RecordRefused(inside(reason_of(error), path)) from None
                if value is None:
                    row = (*row[:i], None, *row[i + 1 :])
        return row


def is_document(item: Field) -> bool:
    """Whether the field is jsonb without a Struct. A Struct adds defaults and renames keys, so the text differs."""
    return item.python_type in (dict, list) and not item.holds_structs


def check_json(text: msgspec.Raw) -> None:
    """Raises MsgspecError, UnicodeError or RecursionError if jsonb would refuse the text."""
    _anything.decode(text)


def json_text(value: Any) -> str | bytes:
    """The driver's text for a jsonb value."""
    return bytes(value) if isinstance(value, msgspec.Raw) else json.dumps(value)


def holds_nul(value: Any) -> bool:
    """Whether a string at any depth holds U+0000. Without recursion, because msgspec nests deeper than Python calls."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, str):
            if "\0" in item:
                return True
        elif isinstance(item, dict):
            left += (*item.keys(), *item.values())
        elif isinstance(item, list):
            left += item
        elif isinstance(item, msgspec.Raw) and ESCAPED_NUL in bytes(item):
            left.append(_anything.decode(item))
    return False


def any_nul(values: list[Any]) -> bool:
    """Whether a text of a column holds U+0000."""
    try:
        return "\0" in "".join(filter(None, values))
    except TypeError:  # jsonb
        return holds_nul(values)
