"""Value → the elements of a Row, where a record may hold several events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import msgspec

from .choices import NaiveTimestamps
from .codecs import Codec
from .decode import RecordDecoder
from .elements import Element
from .errors import IngestError, RecordRefused, RecordSkipped, RefusalStage
from .many import try_map, with_gaps
from .reasons import in_element, reason_of
from .stream import Stream
from .timestamps import may_have_nanoseconds

Split = Callable[[bytes], list[bytes] | None]
_raw_array = msgspec.json.Decoder(list[msgspec.Raw])


def json_elements(value: bytes) -> list[bytes] | None:
    """The elements of a JSON array. None for another value. Raises RecordRefused."""
    if not value.lstrip().startswith(b"["):
        return None
    try:
        return list(map(bytes, _raw_array.decode(value)))
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise RecordRefused(reason_of(error), stage=RefusalStage.DECODE) from None


def single(value: bytes) -> None:
    """For formats without arrays."""


class ManyDecoder(RecordDecoder):
    """Decodes records of several events. All events of a record become rows, or the record is refused.

    Args:
        split: takes an array apart.
    """

    def __init__(self, stream: Stream, codec: Codec, naive_timestamps: NaiveTimestamps, split: Split) -> None:
        super().__init__(stream, codec, naive_timestamps)
        self._split = split

    def decode(self, value: bytes) -> tuple[list[Element]]:
        """The record's elements. Raises RecordRefused, also as RecordSkipped without an event."""
        parts = self._split(value)
        if parts is None:
            rows = self._rows(value)
        else:
            rows = []
            for i, part in enumerate(parts):
                try:
                    rows += self._rows(part)
                except RecordRefused as refused:
                    raise RecordRefused(in_element(refused.message, i), stage=refused.stage) from None
        if not rows:
            raise RecordSkipped("the record has no event to store", stage=RefusalStage.DECODE)
        return (_numbered(rows),)

    def decode_many(self, values: Sequence[bytes | None]) -> tuple[list[tuple[object, ...]], list[int]]:
        """As RecordDecoder.decode_many."""
        if self._transform is not None:
            return try_map(self.decode, values)
        parts: list[bytes | None] = []
        lengths: list[int] = []
        for value in values:
            elements = self._parts(value)
            parts += elements
            lengths.append(len(elements))
        decoded, refused = super().decode_many(parts)
        rows = iter(with_gaps(decoded, refused))
        records: list[tuple[object, ...]] = []
        odd: list[int] = []
        for i, length in enumerate(lengths):
            own = [row for row in islice(rows, length) if row is not None]
            if own and len(own) == length:
                records.append((_numbered(own),))
            else:
                odd.append(i)
        return records, odd

    def _parts(self, value: bytes | None) -> Sequence[bytes | None]:
        """Without elements for a value accepted by `decode`."""
        if value is None:
            return ()
        try:
            parts = self._split(value)
        except RecordRefused:
            return ()
        return [value] if parts is None else parts

    def _rows(self, value: bytes) -> list[tuple[Any, ...]]:
        if self._transform is None:
            return [super().decode(value)]
        return [self._row(event, value) for event in self._transform.events(self._event(value))]

    def _event(self, value: bytes) -> Any:
        if not (self._always_lenient or may_have_nanoseconds(value)):
            try:
                return self._fast(value)
            except (IngestError, MemoryError):
                raise
            except Exception:  # noqa: S110 (the lenient decode gives the reason)
                pass
        return self._rebuilt(*self._read_leniently(value))

    def _row(self, event: Any, value: bytes) -> tuple[Any, ...]:
        values = self._values(event)
        self._limits.check(values, len(value))
        self._limits.check_nul(values)
        return values if self._undeclared is None else (*values, self._extra(value, self._undeclared))


def _numbered(rows: Sequence[tuple[Any, ...]]) -> list[Element]:
    return [(ordinal, *row) for ordinal, row in enumerate(rows)]
