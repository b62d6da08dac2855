"""Columns of jsonb that take their JSON as it was sent: with every digit of its numbers.

Python would make a double of 12345678901234567.89 and write 1.2345678901234568e+16. So the text itself goes to
PostgreSQL, whose jsonb keeps numbers exactly. The text is decoded all the same: msgspec does not look for broken UTF-8
in what it skips, and the declared type has to hold.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from .errors import RecordRefused, RefusalStage
from .fields import Field
from .reasons import inside, reason_of

ESCAPED_NUL = b"\\u0000"
_anything = msgspec.json.Decoder(float_hook=str)
"""A number with a point or an exponent may have any size: only its form is looked at."""


class Documents:
    """Which of a row's values are such JSON, and what it has to be.

    Args:
        fields: the row's, in its order.
        sent: False when none is, since the event's own check has to see the values and may change them.
    """

    def __init__(self, fields: Sequence[Field], sent: bool) -> None:
        self._checks = [
            (i, item.path, msgspec.json.Decoder(item.decode_type, float_hook=str).decode)
            for i, item in enumerate(fields)
            if sent and is_document(item)
        ]
        self.any = bool(self._checks)

    def type_of(self, item: Field, otherwise: Any) -> Any:
        """What a field is decoded as: its text, for one of these."""
        return msgspec.Raw if self.any and is_document(item) else otherwise

    def checked(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """The row, with None for a JSON null. Raises RecordRefused for JSON that is not of the declared type."""
        for i, path, decode in self._checks:
            if isinstance(row[i], msgspec.Raw):
                try:
                    value = decode(row[i])
                except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
                    raise RecordRefused(inside(reason_of(error), path), stage=RefusalStage.DECODE) from None
                if value is None:
                    row = (*row[:i], None, *row[i + 1 :])
        return row


def is_document(item: Field) -> bool:
    """Whether the field is jsonb without a Struct inside, whose defaults and names JSON as it was sent would lack."""
    return item.python_type in (dict, list) and not item.holds_structs


def check_json(text: msgspec.Raw) -> None:
    """Raises MsgspecError, UnicodeError or RecursionError for what is not JSON that jsonb takes."""
    _anything.decode(text)


def json_text(value: Any) -> str | bytes:
    """What the driver sends of a value for jsonb: the JSON itself, where it is that."""
    return bytes(value) if isinstance(value, msgspec.Raw) else json.dumps(value)


def holds_nul(value: Any) -> bool:
    """Whether a string in it has U+0000, however deep. Not by recursion: msgspec reads deeper than Python calls."""
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
