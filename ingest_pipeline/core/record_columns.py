"""The parts of a record beside its value that a stream may have as columns: its key, its headers.

They stand in a Row behind kafka_timestamp, before the event's own columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .dead_letters import Headers, read_headers
from .errors import RecordRefused
from .record import STAMP, Message


@dataclass(frozen=True, slots=True)
class RecordColumns:
    """What of a record goes along.

    Attributes:
        key: bytes or str, the type of the key's column; None leaves the key out.
        headers: whether the headers go along, in the form that dead letters keep them in.
    """

    key: type[bytes] | type[str] | None = None
    headers: bool = False

    @property
    def any(self) -> bool:
        return self.key is not None or self.headers

    @property
    def headers_slice(self) -> slice:
        """Where a Row has its headers; an empty slice when it has none."""
        start = STAMP + 1 + (self.key is not None)
        return slice(start, start + self.headers)

    def read(self, messages: Sequence[Message]) -> tuple[list[list[Any]], dict[int, RecordRefused]]:
        """(a list of values for each part, index of a message → why it cannot become a row, if it is no tombstone).

        Headers are asked for here, once a message: whoever needs them again finds them in the row.
        """
        columns: list[list[Any]] = []
        refused: dict[int, RecordRefused] = {}
        if self.key is not None:
            columns.append([message.key() for message in messages])
        if self.key is str:
            for i, key in enumerate(columns[0]):
                try:
                    columns[0][i] = self._key(key)
                except RecordRefused as error:
                    columns[0][i], refused[i] = None, error
        if self.headers:
            columns.append([None] * len(messages))
            for i, message in enumerate(messages):
                columns[-1][i], readable = read_headers(message)
                if not readable:
                    refused[i] = RecordRefused("headers cannot be read: a key is not UTF-8", stage="decode")
        return columns, {i: why for i, why in refused.items() if messages[i].value() is not None}

    def of_letter(self, key: bytes | None, headers: Headers | None) -> tuple[Any, ...]:
        """The parts from what a dead letter holds. Raises RecordRefused for a key that its column cannot hold."""
        parts: list[Any] = [] if self.key is None else [self._key(key)]
        return (*parts, headers) if self.headers else tuple(parts)

    def _key(self, key: bytes | None) -> bytes | str | None:
        if key is None or self.key is bytes:
            return key
        try:
            text = key.decode()
        except UnicodeDecodeError:
            raise RecordRefused("key is not UTF-8, which its text column needs", stage="decode") from None
        if "\0" in text:
            raise RecordRefused("NUL character in the key, which PostgreSQL cannot store as text", stage="value")
        return text


NO_RECORD_COLUMNS = RecordColumns()
