"""Record → row. One typed msgspec decode a record. Whatever that refuses gets a second, slower try.

The second try reads timestamps by the grammar of core/timestamps.py, of which msgspec knows a part. A value that may
hold more than six decimals takes the second way at once, since msgspec would round them. Reasons are templates: they
name a type or a JSON path, never a value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any

import msgspec

from .errors import RecordRefused
from .fields import Field
from .nesting import Derived, flat, has_checks
from .stream import Stream
from .timestamps import may_have_nanoseconds, parse_timestamp
from .undeclared import Undeclared

_BACKSLASH = 0x5C
_ESCAPED_NUL = b"\\u0000"
_JOINED = 256
"""Values searched at a time. Their text stays in the processor's cache."""
_BYTE_POSITION = re.compile(r" \(byte \d+\)")
_QUOTED = re.compile(r"(unknown field|Invalid (?:enum )?value) (?:`.*`|'.*'|\".*\"|-?\d+)(?= - at|$)", re.DOTALL)
_NOT_ITS_OWN = (RecordRefused, MemoryError)
"""Refused already, or no record's fault. Any other exception is the record's: an event's own check may raise anything,
on purpose or by calculating with what it did not expect, such as a NaN."""
_FIRST_YEAR, _LAST_YEAR = 1, 9999


class JsonDecoder:
    """Decodes one stream's records.

    Args:
        stream: whose event type to decode into.
        naive_timestamps: "utc" takes a timestamp without a zone as UTC, "reject" refuses it.
    """

    def __init__(self, stream: Stream, naive_timestamps: str = "utc") -> None:
        self._fields, self._shape = stream.fields, stream.shape
        self._naive_is_utc = naive_timestamps == "utc"
        self._declared = Derived(self._shape, lambda item: item.decode_type)
        self._checks = any(map(has_checks, self._shape.structs))
        lenient = Derived(self._shape, lambda item: item.lenient_type, checks=False)
        self._fast: Callable[[bytes], Any] = msgspec.json.Decoder(self._declared.type).decode
        self._lenient: Callable[[bytes], Any] = msgspec.json.Decoder(lenient.type).decode
        self._leaves: Callable[[Any], tuple[Any, ...]] = msgspec.structs.astuple
        if self._shape.nested:
            self._leaves = lambda event: flat(self._shape, [event])[0]
        self._times = tuple(i for i, item in enumerate(stream.fields) if item.python_type is datetime)
        self._years = tuple(attrgetter(f"{item.dotted}.year") for item in stream.fields if _is_time(item))
        self._plain = all(_is_time(item) or item.python_type not in (datetime, Decimal) for item in stream.fields)
        self._decimals = tuple(i for i, item in enumerate(stream.fields) if item.python_type is Decimal)
        self._undeclared = Undeclared(self._shape) if stream.extra_column else None
        self._structs = tuple(i for i, item in enumerate(stream.fields) if item.holds_structs)
        self._values = self._leaves if not self._structs else lambda event: self._as_json(self._leaves(event))

    def decode(self, value: bytes) -> tuple[Any, ...]:
        """The event's values in the order of its columns, and what it does not declare where the stream keeps that.

        Every datetime is aware.

        Raises:
            RecordRefused: stage "decode" (not JSON, not UTF-8, missing field, wrong type), "timestamp", or "value"
                (NUL, a NaN decimal, a year PostgreSQL or Python cannot hold).
        """
        values = self._decode_leniently(value) if may_have_nanoseconds(value) else self._decode_fast(value)
        for i in self._times:
            time = values[i]
            if time is not None and not _FIRST_YEAR < time.year < _LAST_YEAR:
                self._check_year(time, self._fields[i])
        for i in self._decimals:
            if values[i] is not None and not values[i].is_finite():
                raise RecordRefused(f"not a finite number - at `$.{self._fields[i].path}`", stage="value")
        if _BACKSLASH in value:
            self._check_nul(values)
        return values if self._undeclared is None else (*values, self._extra(value, self._undeclared))

    def decode_many(self, values: Sequence[bytes | None]) -> tuple[list[tuple[Any, ...]], list[int]]:
        """(rows in the order of the values, indices of the values that have none): many at once, in less time.

        What has no row here needs the closer look of `decode`, and may well become one.
        """
        none: tuple[list[tuple[Any, ...]], list[int]] = ([], list(range(len(values))))
        if not self._plain:
            return none
        values = _without_doubtful(values)
        events, odd = _each(self._fast, values)
        try:
            for year in self._years:
                if not all(_FIRST_YEAR < each < _LAST_YEAR for each in set(map(year, events))):
                    return none
            rows = flat(self._shape, events) if self._shape.nested else list(map(msgspec.structs.astuple, events))
            if self._structs:
                rows = list(map(self._as_json, rows))
            if self._undeclared is not None:
                left_out = set(odd)
                read = (value for i, value in enumerate(values) if i not in left_out and value is not None)
                rows = [(*row, self._extra(value, self._undeclared)) for row, value in zip(rows, read, strict=True)]
        except MemoryError:
            raise
        except Exception:  # of one record, whose check made a field something else: `decode` finds which
            return none
        return rows, odd

    def _decode_fast(self, value: bytes) -> tuple[Any, ...]:
        try:
            return self._values(self._fast(value))
        except _NOT_ITS_OWN:
            raise
        except Exception:
            return self._decode_leniently(value)

    def _extra(self, value: bytes, undeclared: Undeclared) -> dict[str, Any] | None:
        try:
            found = undeclared.of(value)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise RecordRefused(f"in an undeclared field: {_reason(error)}", stage="decode") from None
        if _BACKSLASH in value and _holds_nul(found):
            raise RecordRefused("NUL character in an undeclared field, which PostgreSQL cannot store", stage="value")
        return found

    def _decode_leniently(self, value: bytes) -> tuple[Any, ...]:
        try:
            event = self._lenient(value)
        except MemoryError:
            raise
        except Exception as error:
            raise RecordRefused(self._as_declared(_refusal(error)), stage="decode") from None
        values = list(self._leaves(event))
        for i in self._times:
            if values[i] is not None:
                values[i] = self._parse_time(values[i], self._fields[i])
        found = self._checked(event, values) if self._checks else tuple(values)
        return self._as_json(found) if self._structs else found

    def _checked(self, lenient: Any, values: list[Any]) -> tuple[Any, ...]:
        """The event's own checks, which the lenient try left out: they expect the declared types."""
        try:
            event = self._declared.rebuilt(lenient, iter(values))
        except MemoryError:
            raise
        except Exception as error:
            raise RecordRefused(_by_its_check(error), stage="decode") from None
        return self._leaves(event)

    def _as_json(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """Structs that are jsonb, as the dicts that the driver can write."""
        dressed = list(values)
        try:
            for i in self._structs:
                dressed[i] = msgspec.to_builtins(dressed[i])
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
            raise RecordRefused(f"{_reason(error)} - at `$.{self._fields[i].path}`", stage="decode") from None
        return tuple(dressed)

    def _as_declared(self, reason: str) -> str:
        """The lenient try reads a timestamp as str; its refusal is told in the declared type."""
        if any(reason.endswith(f"`$.{self._fields[i].path}`") for i in self._times):
            return reason.replace("Expected `str", "Expected `datetime")
        return reason

    def _parse_time(self, text: str | datetime, item: Field) -> datetime:
        if isinstance(text, datetime):
            return text
        try:
            time = parse_timestamp(text)
        except ValueError:
            raise RecordRefused(f"not an ISO 8601 timestamp - at `$.{item.path}`", stage="timestamp") from None
        if time.tzinfo is not None:
            return time
        if self._naive_is_utc:
            return time.replace(tzinfo=UTC)
        raise RecordRefused(f"timestamp without a time zone - at `$.{item.path}`", stage="timestamp")

    def _check_year(self, time: datetime, item: Field) -> None:
        """Year 1 and 9999 may leave what can be read back once they are converted to UTC."""
        try:
            time.astimezone(UTC)
        except OverflowError:
            raise RecordRefused(f"timestamp outside years 1 to 9999 - at `$.{item.path}`", stage="value") from None

    def _check_nul(self, values: tuple[Any, ...]) -> None:
        for item, value in zip(self._fields, values, strict=True):
            if _holds_nul(value):
                raise RecordRefused(f"NUL character, which PostgreSQL cannot store - at `$.{item.path}`", stage="value")


def _doubtful(json: bytes) -> bool:
    """Whether the text may hold what the typed decode stores wrongly: U+0000, or a timestamp that it rounds."""
    return (b"\\" in json and _ESCAPED_NUL in json) or may_have_nanoseconds(json)


def _without_doubtful(values: Sequence[bytes | None]) -> Sequence[bytes | None]:
    """None in place of doubtful values. Searches many values joined, since a search for each would cost more."""
    doubtful: list[int] = []
    for start in range(0, len(values), _JOINED):
        some = values[start : start + _JOINED]
        if _doubtful(b"".join(filter(None, some))):
            doubtful += [start + i for i, value in enumerate(some) if value is not None and _doubtful(value)]
    if doubtful:
        values = list(values)
        for i in doubtful:
            values[i] = None
    return values


def _each(function: Callable[[Any], Any], items: Sequence[Any]) -> tuple[list[Any], list[int]]:
    """(what comes of the items, the indices of those that are refused): each item is in one of the two.

    Item by item without a line of Python for each: an error ends `extend` behind what there was, and it goes on from
    there; a StopIteration ends it without a sound, before the last item. 0.17 µs an event of 90 bytes, and 1 µs more
    for one that is refused.
    """
    coming = map(function, items)
    done: list[Any] = []
    refused: list[int] = []
    while True:
        try:
            done.extend(coming)
        except MemoryError:  # may be the list's own: no item is at fault
            raise
        except Exception:
            refused.append(len(done) + len(refused))
        else:
            if (seen := len(done) + len(refused)) == len(items):
                return done, refused
            refused.append(seen)


def _is_time(item: Field) -> bool:
    return item.python_type is datetime and not item.nullable


def _holds_nul(value: Any) -> bool:
    """In a string, however deep. Not by recursion: msgspec reads deeper than Python calls."""
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
    return False


def _refusal(error: Exception) -> str:
    """Why msgspec refused a value: by itself, or since a Struct's own check did, whose words may quote the record.

    msgspec makes a ValidationError of a check's ValueError and TypeError, with their text and with them as its cause;
    what else a check raises comes as it is, through a frame of its own.
    """
    frames = error.__traceback__
    if error.__cause__ is not None or (frames is not None and frames.tb_next is not None):
        return _by_its_check(error.__cause__ or error)
    return _reason(error)


def _by_its_check(error: BaseException) -> str:
    return f"refused by the event's own check ({type(error).__name__})"


def _reason(error: BaseException) -> str:
    """The error as a template. msgspec names types and paths; Python's texts may quote: only the class is kept."""
    if isinstance(error, msgspec.MsgspecError):
        return _QUOTED.sub(r"\1", _BYTE_POSITION.sub("", str(error)))
    if isinstance(error, UnicodeError):
        return "not valid UTF-8"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return f"cannot be decoded ({type(error).__name__})"
