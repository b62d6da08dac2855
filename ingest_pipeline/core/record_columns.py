"""What becomes of a record's key and headers: columns, which follow kafka_timestamp in a Row, or parts of the value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .dead_letters import Headers, encoded, raw_headers
from .errors import RecordRefused, RefusalStage
from .framing import Frame
from .many import try_map, with_gaps
from .record import Message


class ReadParts(NamedTuple):
    """The keys and headers of messages.

    Attributes:
        columns: a list of values per column.
        refused: index of a message → why the message cannot become a row.
        headers: of each message, None where they cannot be read. Empty if they are not needed.
    """

    columns: list[list[Any]]
    refused: dict[int, RecordRefused]
    headers: list[Headers | None]


NOTHING_READ = ReadParts([], {}, [])


@dataclass(frozen=True, slots=True)
class RecordColumns:
    """Which of a record's key and headers are columns.

    Attributes:
        key: bytes or str, the type of the key's column. None: no column.
        key_required: a record without a key is refused.
        headers: whether a column holds the headers, in the same form as in a dead letter.
        frame: puts parts of a value that are in headers into the value. None: the headers have none.
    """

    key: type[bytes] | type[str] | None = None
    headers: bool = False
    key_required: bool = False
    frame: Frame | None = None

    @property
    def any(self) -> bool:
        return self.key is not None or self.headers or self.frame is not None

    def read(self, messages: Sequence[Message]) -> ReadParts:
        """Headers may be read only once per message. Later readers take them from the result."""
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
        headers: list[Headers | None] = []
        if self.headers or self.frame is not None:
            raw, unreadable = try_map(raw_headers, messages)
            complete = with_gaps(raw, unreadable)
            headers = list(map(encoded, complete)) if any(raw) else complete
        if self.headers:
            columns.append(headers)
            for i in unreadable:
                refused[i] = RecordRefused("headers cannot be read: a key is not UTF-8", stage=RefusalStage.DECODE)
        of_values = {i: error for i, error in refused.items() if messages[i].value() is not None}
        return ReadParts(columns, of_values, headers)

    def framed(self, value: bytes | None, headers: Headers | None) -> bytes | None:
        """The value with its parts in headers."""
        if value is None or not headers or self.frame is None:
            return value
        return self.frame(value, headers)

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
