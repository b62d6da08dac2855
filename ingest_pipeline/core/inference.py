"""JSON objects of a sample → the fields of an event that fits all objects."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date
from decimal import Decimal
from typing import Any

import msgspec

from .column_names import MOST_COLUMNS, POSTGRES_NAME_BYTES, taken_names
from .fields import BIGINT_MAX, BIGINT_MIN, not_numeric
from .inferred_names import field_names, is_time_name, plain_name
from .timestamps import parse_timestamp

MOST_KEYS = 100
"""An object with more different keys in the sample is a dict: its keys are data."""
MOST_DEPTH = 4
_EVENT_TIME = "event_time"
_EVENT_TIME_NAMES = (_EVENT_TIME, "timestamp", "ts", "time")
_OUR_COLUMNS = 20
"""Maximum number of columns that a stream adds to its event's columns."""
_UNUSABLE = re.compile(r'[\x00-\x1f"\\]')
"""Characters forbidden by msgspec in a field's key."""
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_FIRST_SECOND, _LAST_SECOND = 946_684_800, 4_102_444_800
"""The years 2000 to 2099, in which numbers count as times."""
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_SCALARS = ("str", "int", "float", "bool")
_TEXTS = {"str", "datetime", "date", "UUID"}


class _Float(str):
    """The text of a number with a point or an exponent."""

    __slots__ = ()


decode_object = msgspec.json.Decoder(dict[str, Any], float_hook=_Float).decode
"""An object for `infer`. Raises MsgspecError, UnicodeError and RecursionError."""


@dataclass(frozen=True, slots=True)
class InferredField:
    """A field for all values of the sample.

    Attributes:
        name: in Python, and of the column.
        key: in the record.
        kind: of the field's type: a name of PG_TYPES, such as `list[str]`, or "object" with `fields`.
        epoch: the unit of a time written as a number.
        nullable: a null occurs, or the key is absent in a record.
        optional: the key is absent in a record.
    """

    name: str
    key: str
    kind: str
    epoch: str = ""
    nullable: bool = False
    optional: bool = False
    fields: tuple[InferredField, ...] = ()


@dataclass(slots=True)
class Inferred:
    """The fields of an event.

    Attributes:
        left_out: paths of keys without a common type, and of keys that a Struct cannot have.
    """

    fields: tuple[InferredField, ...] = ()
    left_out: list[str] = field(default_factory=list)

    @property
    def extra_column(self) -> str:
        """A free name of a column for undeclared keys. "" if all keys are fields."""
        columns = {column for item in self.fields for column in _columns(item)}
        return "" if not self.left_out else next(name for name in ("extra", "extra_2", "_extra") if name not in columns)


def infer(objects: Sequence[dict[str, Any]]) -> Inferred:
    """The fields of objects read by `decode_object`."""
    inferred = Inferred()
    return fitted(Inferred(_fields(objects, "", (), inferred.left_out), inferred.left_out))


def fitted(inferred: Inferred) -> Inferred:
    """The fields, changed to fit a table.

    The event's own time is called event_time. An object is a dict where a column of its fields would have a taken name
    or too long a name. Fields beyond PostgreSQL's number of columns are left out.
    """
    fields: list[InferredField] = []
    columns: set[str] = {*taken_names(), *(item.name for item in inferred.fields)}
    room = MOST_COLUMNS - _OUR_COLUMNS
    for item in inferred.fields:
        own = _columns(item)
        if item.fields and (
            columns.intersection(own) or len(own) != len(set(own)) or max(map(_bytes, own)) > POSTGRES_NAME_BYTES
        ):
            item = replace(item, kind="dict", fields=())
            own = [item.name]
        if len(own) > room:
            inferred.left_out.append(item.key)
            continue
        room -= len(own)
        columns.update(own)
        fields.append(item)
    times = {plain_name(item.key): item for item in fields if item.kind == "datetime" and not item.nullable}
    event_time = next((times[name] for name in _EVENT_TIME_NAMES if name in times), None)
    if event_time is not None and _EVENT_TIME not in columns:
        fields = [replace(item, name=_EVENT_TIME) if item is event_time else item for item in fields]
    return Inferred(tuple(fields), inferred.left_out)


def _columns(item: InferredField) -> list[str]:
    return [f"{item.name}_{name}" for inner in item.fields for name in _columns(inner)] or [item.name]


def _bytes(name: str) -> int:
    return len(name.encode())


def _fields(
    objects: Sequence[dict[str, Any]], path: str, prefix: tuple[str, ...], left_out: list[str]
) -> tuple[InferredField, ...]:
    keys = dict.fromkeys(key for item in objects for key in item)
    fields = []
    for key, name in field_names(keys, prefix).items():
        present = [item[key] for item in objects if key in item]
        values = [value for value in present if value is not None]
        kind, epoch = _kind(values, key)
        inner: tuple[InferredField, ...] = ()
        if kind == "object":
            inner = () if len(prefix) >= MOST_DEPTH else _fields(values, f"{path}{key}.", (*prefix, name), left_out)
            kind = kind if inner else "dict"
        if not kind or _UNUSABLE.search(key):
            left_out.append(path + key)
            continue
        optional = len(present) < len(objects)
        nullable = optional or len(values) < len(present)
        fields.append(InferredField(name, key, kind, epoch, nullable=nullable, optional=optional, fields=inner))
    return tuple(fields)


def _kind(values: Sequence[Any], key: str) -> tuple[str, str]:
    """(the type of all values, the unit of an epoch). "" without a common type."""
    kinds = {_kind_of(value) for value in values}
    if not kinds:
        return "str", ""
    if kinds <= {"int", "float"} and (unit := _epoch(values, key)):
        return "datetime", unit
    if kinds <= {"int", "float", "Decimal"}:
        return _number(values, kinds), ""
    if kinds <= _TEXTS:
        kinds = {"datetime"} if kinds == {"datetime", "date"} else kinds
        return (kinds.pop() if len(kinds) == 1 else "str"), ""
    if kinds == {"list"}:
        return _list(values), ""
    if kinds == {"dict"}:
        keys = {name for value in values for name in value}
        return ("object" if 0 < len(keys) <= MOST_KEYS else "dict"), ""
    return (kinds.pop() if len(kinds) == 1 else ""), ""


def _kind_of(value: Any) -> str:
    if isinstance(value, _Float):
        return "float" if math.isfinite(float(value)) else _decimal(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return "int" if BIGINT_MIN <= value <= BIGINT_MAX else _decimal(value)
    return type(value).__name__


def _decimal(value: Any) -> str:
    """Decimal for a number that neither int nor float holds. "number" for a number that PostgreSQL cannot hold."""
    return "Decimal" if not_numeric(Decimal(value), len(str(value))) is None else "number"


def _number(values: Iterable[Any], kinds: Collection[str]) -> str:
    if "float" not in kinds:
        return "Decimal" if "Decimal" in kinds else "int"
    return "float" if all(abs(Decimal(value)) < Decimal("1e308") for value in values) else "Decimal"


def _text(text: str) -> str:
    if _UUID.fullmatch(text):
        return "UUID"
    try:
        time = parse_timestamp(text)
        if not 1 < time.year < 9999:
            return "str"
        time.astimezone(UTC)
    except (ValueError, OverflowError):
        return "str"
    return "date" if _is_date(text) else "datetime"


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _epoch(values: Iterable[Any], key: str) -> str:
    """The unit that makes all numbers times of this century, for a key named like a time."""
    if not is_time_name(key):
        return ""
    numbers = list(map(float, values))
    for unit, per_second in _PER_SECOND.items():
        if all(_FIRST_SECOND <= number / per_second < _LAST_SECOND for number in numbers):
            return unit
    return ""


def _list(values: Iterable[Sequence[Any]]) -> str:
    """A list of scalars of the same type, or any list."""
    kinds = {_kind_of(item) for value in values for item in value}
    kinds = {"str" if kind in _TEXTS else kind for kind in kinds}
    kind = kinds.pop() if len(kinds) == 1 else ""
    return f"list[{kind}]" if kind in _SCALARS else "list"
