"""Value → the elements of an EventRow, where a record may hold several events."""

from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import Any

import msgspec

from .choices import NaiveTimestamps
from .codecs import Codec
from .decode import RecordDecoder
from .errors import RecordRefused, RecordSkipped
from .many import Element, merged, try_map, with_gaps
from .reasons import UNDECODABLE, in_element, reason_of
from .stream import Stream

Split = Callable[[bytes], list[bytes] | None]
_raw_array = msgspec.json.Decoder(list[msgspec.Raw])


def json_elements(value: bytes) -> list[bytes] | None:
    """The elements of a JSON array. None for another value. Raises RecordRefused."""
    if not value.lstrip().startswith(b"["):
        return None
    try:
        return list(map(bytes, _raw_array.decode(value)))
    except UNDECODABLE as error:
        raise RecordRefused(reason_of(error)) from None


def single(value: bytes) -> None:
    """For formats without arrays."""


class ManyDecoder(RecordDecoder):
    """Decodes records of several events. All events of a record become rows, or the record is refused."""

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
            raise RecordSkipped("the record has no event to store")
        return (_numbered(rows),)

    def decode_many(self, values: Sequence[bytes | None]) -> tuple[list[tuple[object, ...]], list[int]]:
        parts: list[bytes | None] = []
        lengths: list[int] = []
        for value in values:
            elements = self._parts(value)
            parts += elements
            lengths.append(len(elements))
        if self._transform is None:
            rows = iter(with_gaps(*super().decode_many(parts)))
        else:
            made = self._transformed(parts, self._transform.events)
            rows, of_parts = chain.from_iterable(made), iter(made)
            lengths = [sum(map(len, islice(of_parts, length))) for length in lengths]
        records: list[tuple[object, ...]] = []
        odd: list[int] = []
        for i, length in enumerate(lengths):
            own = [row for row in islice(rows, length) if row is not None]
            if own and len(own) == length:
                records.append((_numbered(own),))
            else:
                odd.append(i)
        return records, odd

    def _transformed(self, parts: Sequence[bytes | None], events_of: Callable[[Any], list[Any]]) -> list[list[Any]]:
        """The rows that the transform makes of each part. None stands for a row that only `decode` can make."""
        unmade: list[list[Any]] = [[None]] * len(parts)
        if not self._plain or self._undeclared is not None:
            return unmade
        decoded, odd = self._fast_many(self._codec.without_doubtful(parts))
        events, refused = try_map(events_of, decoded)
        try:
            rows = iter(with_gaps(*self._rows_of(list(chain.from_iterable(events)))))
        except MemoryError:
            raise
        except Exception:  # as in RecordDecoder.decode_many
            return unmade
        made = [list(islice(rows, len(of_part))) for of_part in events]
        return [[None] if of_part is None else of_part for of_part in with_gaps(made, merged(odd, refused))]

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
        events_of = self._transform.events
        events = self._tried(value, events_of, lambda value: events_of(self._rebuilt(*self._read_leniently(value))))
        return [self._row(event, value) for event in events]

    def _row(self, event: Any, value: bytes) -> tuple[Any, ...]:
        values = self._values(event)
        self._limits.check(values, len(value))
        self._limits.check_nul(values)
        return values if self._undeclared is None else (*values, self._extra(value, self._undeclared))


def _numbered(rows: Sequence[tuple[Any, ...]]) -> list[Element]:
    return [(ordinal, *row) for ordinal, row in enumerate(rows)]
