"""Columns for a record's key and headers. In a Row they follow kafka_timestamp and precede the event's columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .dead_letters import Headers, read_headers
from .errors import RecordRefused, RefusalStage
from .record import STAMP, Message


@dataclass(frozen=True, slots=True)
class RecordColumns:
    """Which of a record's key and headers are columns.

    Attributes:
        key: bytes or str, the type of the key's column. None: no column.
        key_required: a record without a key is refused.
        headers: whether a column holds the headers, in the same form as in a dead letter.
    """

    key: type[bytes] | type[str] | None = None
    headers: bool = False
    key_required: bool = False

    @property
    def any(self) -> bool:
        return self.key is not None or self.headers

    @property
    def headers_slice(self) -> slice:
        """The headers' slice of a Row. Empty without a headers column."""
        start = STAMP + 1 + (self.key is not None)
        return slice(start, start + self.headers)

    def read(self, messages: Sequence[Message]) -> tuple[list[list[Any]], dict[int, RecordRefused]]:
        """Returns (a list of values per column, index of a message → why the message cannot become a row).

        Headers may be read only once per message. Later readers take the headers from the row.
        """
        columns: list[list[Any]] = []
        refused: dict[int, RecordRefused] = {}
        if self.key is not None:
            columns.append([message.key() for message in messages])
        if self.key is str or self.key_required:
            for i, key in enumerate(columns[0]):
                try:
                    columns[0][i] = self.key_value(key)
                except RecordRefused as error:
                    columns[0][i], refused[i] = None, error
        if self.headers:
            columns.append([None] * len(messages))
            for i, message in enumerate(messages):
                columns[-1][i], readable = read_headers(message)
                if not readable:
                    refused[i] = RecordRefused("headers cannot be read: a key is not UTF-8", stage=RefusalStage.DECODE)
        return columns, {i: error for i, error in refused.items() if messages[i].value() is not None}

    def of_letter(self, key: bytes | None, headers: Headers | None) -> tuple[Any, ...]:
        """The columns' values from a dead letter. Raises RecordRefused for a key that its column cannot hold."""
        values: list[Any] = [] if self.key is None else [self.key_value(key)]
        return (*values, headers) if self.headers else tuple(values)

    def key_value(self, key: bytes | None) -> bytes | str | None:
        """The key's column. Raises RecordRefused for a key that its column cannot hold."""
        if key is None and self.key_required:
            raise RecordRefused("the record has no key, which is the row's key", stage=RefusalStage.DECODE)
        if key is None or self.key is bytes:
            return key
        try:
            text = key.decode()
        except UnicodeDecodeError:
            raise RecordRefused("key is not UTF-8, which its text column needs", stage=RefusalStage.DECODE) from None
        if "\0" in text:
            raise RecordRefused(
                "NUL character in the key, which PostgreSQL cannot store as text", stage=RefusalStage.VALUE
            )
        return text


NO_RECORD_COLUMNS = RecordColumns()
