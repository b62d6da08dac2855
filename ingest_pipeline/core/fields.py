"""Types of an event's fields and their PostgreSQL types.

Binary COPY checks no types, so the writer compares the columns' OIDs before its first batch (postgres/schema.py).
"""

import types
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

import msgspec

from .errors import SettingsError
from .time_forms import TimeForm

BIGINT_MIN, BIGINT_MAX = -(2**63), 2**63 - 1

PG_TYPES: dict[type, tuple[str, int]] = {
    str: ("text", 25),
    bool: ("boolean", 16),
    int: ("bigint", 20),
    float: ("double precision", 701),
    datetime: ("timestamp with time zone", 1184),
    date: ("date", 1082),
    Decimal: ("numeric", 1700),
    UUID: ("uuid", 2950),
    dict: ("jsonb", 3802),
    list: ("jsonb", 3802),
    bytes: ("bytea", 17),
}
"""Python type → PostgreSQL's name and OID (pg_type.dat, fixed for built-in types)."""


_DIGITS_BEFORE, _DIGITS_BEHIND = 131_072, 16_383
"""Maximum decimal digits of PostgreSQL's numeric, before and behind the point."""
_ORDINARY_EXPONENT = 300


class AsJson:
    """`Annotated[Address, AsJson]` makes a Struct one jsonb column instead of a column per field."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an event and its column.

    Attributes:
        name: the column's name. `parent_child` for a field of a nested Struct.
        json_name: the key in the JSON object.
        python_type: a key of PG_TYPES.
        nullable: whether the field or a Struct around the field is declared `| None`.
        decode_type: type for the fast decoder, with bounds on int and a required zone on datetime.
        lenient_type: type for the second try, with str in place of datetime.
        time_form: how a datetime or date is written. None: ISO 8601.
        attribute: the field's name in its Struct.
        path: path in the JSON, below `$.`.
        dotted: path in the decoded event.
        holds_structs: a jsonb value contains decoded Structs, to be turned into dicts.
        description: text of the field's `Meta(description=...)`, or None.
    """

    name: str
    json_name: str
    python_type: type
    nullable: bool
    decode_type: Any
    lenient_type: Any
    default: Any
    default_factory: Any
    attribute: str = ""
    path: str = ""
    dotted: str = ""
    holds_structs: bool = False
    description: str | None = None
    time_form: TimeForm | None = None

    @property
    def required(self) -> bool:
        """Whether a record without the field is refused."""
        return self.default is msgspec.NODEFAULT and self.default_factory is msgspec.NODEFAULT

    @property
    def pg_type(self) -> str:
        return PG_TYPES[self.python_type][0]

    @property
    def pg_oid(self) -> int:
        return PG_TYPES[self.python_type][1]


def field_of(info: msgspec.structs.FieldInfo, owner: str) -> Field:
    """The Field for a Struct's field. Raises SettingsError when no column type fits."""
    base, metas, nullable = unwrap(info.type)
    python_type = get_origin(base) or base
    if AsJson in metas and not is_struct(base):
        raise SettingsError(f"{owner}.{info.name}: AsJson is for a Struct, {info.type!r} is none")
    if is_struct(base):
        python_type = list if base.__struct_config__.array_like else dict
    if python_type not in PG_TYPES:
        allowed = ", ".join(sorted({kind.__name__ for kind in PG_TYPES}))
        raise SettingsError(
            f"{owner}.{info.name}: type {info.type!r} has no column type. Use one of {allowed}, or one of them | None"
        )
    if python_type in (dict, list) and not _is_json(base):
        raise SettingsError(
            f"{owner}.{info.name}: {info.type!r} holds what jsonb cannot. Use str, int, float, bool, dict, list,"
            " Any or a Struct of these"
        )
    descriptions = [meta.description for meta in metas if isinstance(meta, msgspec.Meta) and meta.description]
    strict: Any = base
    lenient: Any = base
    time_form = next((meta for meta in metas if isinstance(meta, TimeForm)), None)
    if time_form is not None:
        if python_type not in (datetime, date):
            raise SettingsError(f"{owner}.{info.name}: {type(time_form).__name__} is for a datetime or a date")
        strict = lenient = time_form.wire_type
        metas = ()
    elif python_type is datetime:
        metas = (*metas, msgspec.Meta(tz=True))
        lenient = str
    elif python_type is int:
        metas = (*metas, *_missing_bounds(metas))
    for meta in metas:
        if isinstance(meta, msgspec.Meta):
            strict = Annotated[strict, meta]
            lenient = lenient if python_type is datetime else Annotated[lenient, meta]
    return Field(
        name=info.name,
        json_name=info.encode_name,
        python_type=python_type,
        nullable=nullable,
        decode_type=strict | None if nullable else strict,
        lenient_type=lenient | None if nullable else lenient,
        default=info.default,
        default_factory=info.default_factory,
        attribute=info.name,
        path=info.encode_name,
        dotted=info.name,
        holds_structs=python_type in (dict, list) and _holds_structs(base),
        description=next(iter(descriptions), None),
        time_form=time_form,
    )


def not_numeric(number: Decimal, most_digits: int) -> str | None:
    """Why PostgreSQL's numeric cannot hold a number of up to `most_digits` digits. None: the number fits."""
    if not number.is_finite():
        return "not a finite number"
    magnitude = number.adjusted()
    if abs(magnitude) <= _ORDINARY_EXPONENT and most_digits <= _DIGITS_BEHIND - _ORDINARY_EXPONENT:
        return None
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)
    if magnitude >= _DIGITS_BEFORE or exponent < -_DIGITS_BEHIND:
        return "more digits than PostgreSQL's numeric holds (131,072 before the point, 16,383 behind it)"
    return None


def is_struct(declared: Any) -> bool:
    return isinstance(declared, type) and issubclass(declared, msgspec.Struct)


def check_event(stream: str, event: object) -> None:
    """Raises SettingsError for anything but a msgspec Struct."""
    if not is_struct(event):
        name = event.__name__ if isinstance(event, type) else f"an instance of {type(event).__name__}"
        raise SettingsError(
            f"stream {stream}: event is {name}, and must be a msgspec Struct: declare"
            " `class Event(msgspec.Struct)` with the same fields"
        )


def unwrap(declared: Any) -> tuple[Any, tuple[Any, ...], bool]:
    """Returns (bare type, annotations of msgspec and of this package, whether None is allowed)."""
    nullable = False
    metas: tuple[Any, ...] = ()
    while True:
        origin = get_origin(declared)
        if origin is Annotated:
            declared, *extra = get_args(declared)
            metas = (*metas, *(meta for meta in extra if meta is AsJson or isinstance(meta, msgspec.Meta | TimeForm)))
        elif origin in (Union, types.UnionType) and type(None) in get_args(declared):
            rest = [arg for arg in get_args(declared) if arg is not type(None)]
            if len(rest) != 1:
                return declared, metas, True
            nullable, declared = True, rest[0]
        else:
            return declared, metas, nullable


def _is_json(declared: Any, seen: Collection[Any] = ()) -> bool:
    """Whether a dict, list or Struct of this type decodes to plain JSON values only."""
    origin = get_origin(declared)
    if origin is Annotated:
        return _is_json(get_args(declared)[0], seen)
    if origin in (dict, list, Union, types.UnionType):
        return all(_is_json(arg, seen) for arg in get_args(declared))
    if is_struct(declared):
        inside = (*seen, declared)
        return declared in seen or all(_is_json(field.type, inside) for field in msgspec.structs.fields(declared))
    return origin is Literal or declared in (str, int, float, bool, dict, list, Any, types.NoneType)


def _holds_structs(declared: Any) -> bool:
    return is_struct(declared) or any(map(_holds_structs, get_args(declared)))


def _missing_bounds(metas: tuple[Any, ...]) -> tuple[msgspec.Meta, ...]:
    low = any(meta.ge is not None or meta.gt is not None for meta in metas)
    high = any(meta.le is not None or meta.lt is not None for meta in metas)
    return (
        *(() if low else (msgspec.Meta(ge=BIGINT_MIN),)),
        *(() if high else (msgspec.Meta(le=BIGINT_MAX),)),
    )
