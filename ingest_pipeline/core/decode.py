"""Record → row: one typed decode per record, and a slower second try for refused records.

The second try reads timestamps by the grammar of core/timestamps.py, which accepts more forms than msgspec. A value
with more than six decimals goes straight to the second try, because msgspec rounds such decimals. A reason names a
type or a JSON path, never a value.
"""

from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from operator import attrgetter
from typing import Any, TypeVar

import msgspec

from .choices import NaiveTimestamps
from .codecs import Codec, JsonCodec
from .documents import Documents, any_nul, holds_nul
from .errors import IngestError, RecordRefused, RefusalStage
from .extra_fields import Undeclared
from .fields import Field
from .many import merged, try_map
from .nesting import StructVariant, flat, has_checks
from .reasons import UNDECODABLE, by_its_check, inside, reason_of, refusal
from .stream import Stream
from .time_forms import EPOCH_HINT, ISO, is_unix_time
from .timestamps import may_have_nanoseconds
from .transform import Transform
from .value_checks import FIRST_YEAR, LAST_YEAR, ValueChecks

Rows = TypeVar("Rows")
_RAISED_UNCHANGED = (IngestError, MemoryError)
"""Every other exception is the record's fault. An event's own check may raise any exception, for example when it
calculates with a NaN."""


class RecordDecoder:
    """Decodes one stream's records into its event type."""

    def __init__(self, stream: Stream, codec: Codec, naive_timestamps: NaiveTimestamps = NaiveTimestamps.UTC) -> None:
        self._fields, self._shape, self._codec = stream.fields, stream.shape, codec
        self._limits = ValueChecks(stream.fields, naive_timestamps)
        self._checks = stream.transform is not None or any(map(has_checks, self._shape.structs))
        documents = self._documents = Documents(stream.fields, sent=codec.is_json and not self._checks)
        self._declared = StructVariant(self._shape, self._fast_type)
        lenient = StructVariant(self._shape, self._lenient_type, checks=False)
        self._fast, self._lenient = codec.decoder(self._declared.type), codec.decoder(lenient.type)
        self._fast_many = codec.decoder_of_many(self._declared.type)
        self._transform = None if stream.transform is None else Transform(stream.transform, self._shape)
        if self._transform is not None and not stream.many:
            transform, fast = self._transform, self._fast
            self._fast = lambda value: transform(fast(value))
            self._fast_many = partial(try_map, self._fast)
        self._leaves: Callable[[Any], tuple[Any, ...]] = msgspec.structs.astuple
        if self._shape.nested:
            self._leaves = lambda event: flat(self._shape, [event])[0]
        self._times = tuple(
            i for i, item in enumerate(stream.fields) if item.python_type is datetime or item.time_form is not None
        )
        self._years = tuple(attrgetter(f"{item.dotted}.year") for item in stream.fields if _is_time(item))
        self._undeclared = Undeclared(self._shape) if stream.extra_column else None
        self._structs = tuple(i for i, item in enumerate(stream.fields) if self._needs_builtins(item))
        texts = tuple(i for i, item in enumerate(stream.fields) if item.python_type in (str, dict, list))
        self._texts = () if codec.is_json and stream.transform is None else texts
        self._forms = tuple((i, item) for i, item in enumerate(stream.fields) if item.time_form is not None)
        self._always_lenient = bool(self._forms and self._checks)  # a check expects a datetime
        self._plain = all(map(_needs_no_check, stream.fields)) and not self._always_lenient
        self._converts = bool(self._structs or documents.any or self._forms)
        self._values = self._leaves
        if self._converts:
            self._values = lambda event: self._converted(self._leaves(event))

    def decode(self, value: bytes) -> tuple[Any, ...]:
        """The values of the event's columns and, with an extra column, the undeclared keys. Every datetime is aware.

        Raises:
            RecordRefused: stage "decode" (not JSON, not UTF-8, missing field, wrong type), "timestamp", or "value"
                (NUL, a decimal or a year that PostgreSQL or Python cannot hold).
        """
        values = self._tried(value, self._values, self._decode_leniently)
        self._limits.check(values, len(value))
        if self._codec.nul in value or self._transform is not None:
            self._limits.check_nul(values)
        return values if self._undeclared is None else (*values, self._extra(value, self._undeclared))

    def decode_many(self, values: Sequence[bytes | None]) -> tuple[list[tuple[Any, ...]], list[int]]:
        """Returns (rows in the order of the values, indices of values without a row).

        Faster than `decode` per value. `decode` may still make rows of the values without a row.
        """
        none: tuple[list[tuple[Any, ...]], list[int]] = ([], list(range(len(values))))
        if not self._plain:
            return none
        values = self._codec.without_doubtful(values)
        events, odd = self._fast_many(values)
        try:
            rows, refused = self._rows_of(events)
            odd = merged(odd, refused)
            if self._undeclared is not None:
                odd_set = set(odd)
                decoded = (value for i, value in enumerate(values) if i not in odd_set and value is not None)
                rows = [(*row, self._extra(value, self._undeclared)) for row, value in zip(rows, decoded, strict=True)]
        except MemoryError:
            raise
        except Exception:  # one record's check changed a field's type, and `decode` finds that record
            return none
        return rows, odd

    def _rows_of(self, events: list[Any]) -> tuple[list[tuple[Any, ...]], list[int]]:
        """(rows without undeclared keys, indices of events without a row). Raises ValueError if `decode` has to look
        at every event."""
        for year in self._years:
            if not all(FIRST_YEAR < number < LAST_YEAR for number in set(map(year, events))):
                raise ValueError
        rows = flat(self._shape, events) if self._shape.nested else list(map(msgspec.structs.astuple, events))
        refused: list[int] = []
        if self._converts:
            rows, refused = try_map(self._converted, rows)
        if any(any_nul([row[i] for row in rows]) for i in self._texts):
            raise ValueError
        return rows, refused

    def _tried(self, value: bytes, use: Callable[[Any], Rows], decode_leniently: Callable[[bytes], Rows]) -> Rows:
        """`use` of the fast decode's event, else the lenient decode, which gives the reason of a refusal."""
        if self._always_lenient or may_have_nanoseconds(value):
            return decode_leniently(value)
        try:
            return use(self._fast(value))
        except _RAISED_UNCHANGED:
            raise
        except Exception:
            return decode_leniently(value)

    def _extra(self, value: bytes, undeclared: Undeclared) -> msgspec.Raw | None:
        try:
            extra = undeclared.of(value)
        except UNDECODABLE as error:
            raise RecordRefused(f"in an undeclared field: {reason_of(error)}") from None
        if self._codec.nul in value and holds_nul(extra):
            raise RecordRefused(
                "NUL character in an undeclared field, which PostgreSQL cannot store", stage=RefusalStage.VALUE
            )
        return extra

    def _decode_leniently(self, value: bytes) -> tuple[Any, ...]:
        event, values = self._read_leniently(value)
        if not self._checks:
            return self._as_jsonb(tuple(values))
        event = self._rebuilt(event, values)
        return self._as_jsonb(self._leaves(event if self._transform is None else self._transform(event)))

    def _read_leniently(self, value: bytes) -> tuple[Any, list[Any]]:
        """(the event without its checks, the values of its columns)."""
        try:
            event = self._lenient(value)
        except _RAISED_UNCHANGED:
            raise
        except Exception as error:
            reason = self._as_declared(refusal(error, self._codec.frames))
            reason = self._codec.explained(reason, value)
            raise RecordRefused(reason) from None
        values = list(self._leaves(event))
        for i in self._times:
            if values[i] is not None or not self._fields[i].nullable:
                values[i] = self._parse_time(values[i], self._fields[i])
        return event, values

    def _rebuilt(self, lenient: Any, values: list[Any]) -> Any:
        """Run the event's own checks. The lenient decode leaves them out, because they expect the declared types."""
        try:
            return self._declared.rebuilt(lenient, iter(values))
        except MemoryError:
            raise
        except Exception as error:
            raise RecordRefused(by_its_check(error)) from None

    def _converted(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """Values as the driver writes them: times of another form are read, and jsonb is prepared."""
        if self._forms:
            changed = list(values)
            for i, item in self._forms:
                if changed[i] is not None or not item.nullable:
                    changed[i] = self._parse_time(changed[i], item)
            values = tuple(changed)
        return self._as_jsonb(values)

    def _as_jsonb(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """Values that the driver can write to jsonb: JSON text is checked, Structs become dicts."""
        values = self._documents.checked(values)
        if not self._structs:
            return values
        converted = list(values)
        try:
            for i in self._structs:
                converted[i] = msgspec.to_builtins(converted[i])
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
            raise RecordRefused(inside(reason_of(error), self._fields[i].path)) from None
        return tuple(converted)

    def _as_declared(self, reason: str) -> str:
        """The refusal with the declared type, because the lenient decode reads a timestamp as str."""
        iso = [self._fields[i] for i in self._times if self._fields[i].time_form is None]
        if any(reason.endswith(f"`$.{item.path}`") for item in iso):
            reason = reason.replace("Expected `str", "Expected `datetime")
            return reason + EPOCH_HINT if "`, got `int`" in reason or "`, got `float`" in reason else reason
        return reason

    def _fast_type(self, item: Field) -> Any:
        if item.time_form is not None and not self._codec.is_json:  # the format may have times of its own
            return Any
        return self._documents.type_of(item, item.decode_type)

    def _lenient_type(self, item: Field) -> Any:
        if item.python_type is datetime and not self._codec.is_json:
            return Any
        return self._fast_type(item) if item.time_form else self._documents.type_of(item, item.lenient_type)

    def _needs_builtins(self, item: Field) -> bool:
        """Whether a jsonb value may hold Structs or, in a format other than JSON, times and bytes."""
        return item.holds_structs or (item.python_type in (dict, list) and not self._codec.is_json)

    def _parse_time(self, value: Any, item: Field) -> date:
        if value is None or (item.time_form is None and not isinstance(value, str | datetime)):
            got = "null" if value is None else type(value).__name__
            reason = f"Expected `{item.python_type.__name__}`, got `{got}` - at `$.{item.path}`"
            hint = EPOCH_HINT if isinstance(value, int | float) else ""
            raise RecordRefused(reason + hint)
        try:
            time = (item.time_form or ISO).read(value)
        except ValueError as error:
            hint = EPOCH_HINT if item.time_form is None and is_unix_time(value) else ""
            raise RecordRefused(f"{error} - at `$.{item.path}`{hint}", stage=RefusalStage.TIMESTAMP) from None
        return self._limits.zoned(time, item) if item.python_type is datetime else time.date()


def _is_time(item: Field) -> bool:
    return item.python_type is datetime and item.time_form is None and not item.nullable


def _needs_no_check(item: Field) -> bool:
    """Whether the fast decode of a batch leaves nothing to check in the field but the year."""
    return _is_time(item) or item.time_form is not None or item.python_type not in (datetime, Decimal)


class JsonDecoder(RecordDecoder):
    def __init__(self, stream: Stream, naive_timestamps: NaiveTimestamps = NaiveTimestamps.UTC) -> None:
        super().__init__(stream, JsonCodec(), naive_timestamps)
