"""Value → the last items of an EventRow, for a stream with several tables."""

from collections.abc import Sequence
from typing import Any

import msgspec

from .choices import Others
from .decode import RecordDecoder
from .errors import RecordRefused, RecordSkipped
from .many import try_map
from .reasons import UNDECODABLE, reason_of
from .route import Route
from .stream import Stream

_KINDS = {str: "this text", bool: "a boolean", int: "a number", float: "a number", list: "an array", dict: "an object"}


class RoutedDecoder:
    """Reads a record's route, and decodes the record with the decoder of its table. `decoders`: of `stream.tables`."""

    def __init__(self, stream: Stream, route: Route, decoders: Sequence[RecordDecoder]) -> None:
        self._decoders, self._others = decoders, route.others
        self._numbers = route.numbers([table.table for table in stream.tables])
        self._path = f"$.{route.field}"
        self._read_text, self._read_any = (_reader(route.field, kind) for kind in (str | None, Any))

    def decode(self, value: bytes) -> tuple[Any, ...]:
        """As RecordDecoder.decode, and the table's number."""
        try:
            text = self._read_any(value).text
        except UNDECODABLE as error:
            raise RecordRefused(reason_of(error)) from None
        number = self._number(text if isinstance(text, str) else None)
        if number is None:
            reason = f"no table for {_KINDS.get(type(text), 'null or a missing key')} - at `{self._path}`"
            skips = self._others == Others.SKIP
            raise (RecordSkipped if skips else RecordRefused)(reason)
        return (*self._decoders[number].decode(value), number)

    def decode_many(self, values: Sequence[bytes | None]) -> tuple[list[tuple[Any, ...]], list[int]]:
        """As RecordDecoder.decode_many."""
        routed, unread = try_map(self._read_text, values)
        without_route = set(unread)
        readable = (i for i in range(len(values)) if i not in without_route) if unread else range(len(values))
        indices: list[list[int]] = [[] for _ in self._decoders]
        for i, record in zip(readable, routed, strict=True):
            if (number := self._number(record.text)) is not None:
                indices[number].append(i)
        rows: list[tuple[Any, ...] | None] = [None] * len(values)
        for number, of_table in enumerate(indices):
            decoded, refused = self._decoders[number].decode_many([values[i] for i in of_table])
            without_row = set(refused)
            accepted = (i for n, i in enumerate(of_table) if n not in without_row)
            for i, row in zip(accepted, decoded, strict=True):
                rows[i] = (*row, number)
        return [row for row in rows if row is not None], [i for i, row in enumerate(rows) if row is None]

    def _number(self, text: str | None) -> int | None:
        number = None if text is None else self._numbers.get(text)
        return len(self._decoders) - 1 if number is None and self._others == Others.TABLE else number


def _reader(name: str, kind: Any) -> Any:
    members = [("text", kind, msgspec.field(name=name, default=None))]
    return msgspec.json.Decoder(msgspec.defstruct("Routed", members)).decode
