"""The column types of an existing table that can take a stream's values, and how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, get_args, get_origin

from psycopg.types.json import Json, Jsonb
from sqlalchemy import Connection, Row, text

from ..core.columns import Column
from ..core.fields import Field, unwrap
from ..core.stream import Stream
from . import conversions
from .conversions import Convert

_TEXT, _VARCHAR, _CHAR, _JSON, _REAL, _NUMERIC, _TIMESTAMP = 25, 1043, 1042, 114, 700, 1700, 1114
_TEXTS = {_TEXT, _VARCHAR, _CHAR}
_WRITABLE = {
    "text": _TEXTS,
    "boolean": {16},
    "bigint": {21, 23, 20, _NUMERIC},
    "double precision": {_REAL, 701},
    "timestamp with time zone": {1184, _TIMESTAMP},
    "date": {1082},
    "numeric": {_NUMERIC},
    "uuid": {2950},
    "jsonb": {3802, _JSON},
    "bytea": {17},
}
"""Declared type → OIDs of the columns' types. A text also goes to an enum and to citext."""
_ELEMENTS = {str: {_TEXT, _VARCHAR}, int: {21, 23, 20}, float: {_REAL, 701}, bool: {16}}
"""Type of a list's items → OIDs of an array's element types."""
_BYTES = {21: 2, 23: 4}
_MODIFIER_HEADER = 4
"""PostgreSQL adds this to the length of a varchar, and to precision and scale of a numeric."""
_TYPES = text("""
    WITH RECURSIVE resolved AS (
        SELECT a.attname AS name, a.atttypid AS oid, a.atttypmod AS modifier,
               format_type(a.atttypid, a.atttypmod) AS type
        FROM pg_attribute a WHERE a.attrelid = to_regclass(:name) AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT r.name, t.typbasetype, CASE WHEN t.typtypmod = -1 THEN r.modifier ELSE t.typtypmod END, r.type
        FROM resolved r JOIN pg_type t ON t.oid = r.oid WHERE t.typtype = 'd')
    SELECT r.name, r.type, r.oid::bigint, r.modifier, t.typname, t.typtype = 'e' AS is_enum,
           CASE WHEN t.typcategory = 'A' THEN t.typelem::bigint ELSE 0 END AS element
    FROM resolved r JOIN pg_type t ON t.oid = r.oid WHERE t.typtype <> 'd'""")
"""A domain is resolved to its type. PostgreSQL checks the domain's constraints."""


@dataclass(frozen=True, slots=True)
class ColumnType:
    """How values go to a column.

    Attributes:
        type: PostgreSQL's text of the column's type.
        oid: of the type that the driver writes. Text goes to an enum, char(n) and citext.
        convert: None: values go as they are.
    """

    name: str
    type: str
    oid: int
    convert: Convert | None = None


def column_types(connection: Connection, stream: Stream, table: str) -> list[ColumnType]:
    """Of the columns that a run writes, in order. Call this for a table without problems, by its quoted name."""
    chosen = _chosen(connection, stream, table)
    return [kind for kind in chosen.values() if isinstance(kind, ColumnType)]


def type_problems(connection: Connection, stream: Stream, table: str) -> dict[str, str]:
    """Column → why its type cannot take the stream's values."""
    return {name: kind for name, kind in _chosen(connection, stream, table).items() if isinstance(kind, str)}


def type_remarks(types: Sequence[ColumnType]) -> list[str]:
    return [
        f"column {kind.name} is real, which keeps about 6 digits of a number" for kind in types if kind.oid == _REAL
    ]


def _chosen(connection: Connection, stream: Stream, table: str) -> dict[str, ColumnType | str]:
    types = {row.name: row for row in connection.execute(_TYPES, {"name": table})}
    fields = {item.name: item for item in stream.fields}
    return {
        column.name: _choose(column, fields, types[column.name], stream.timestamp_zone)
        for column in stream.written_columns
        if column.name in types
    }


def _choose(column: Column, fields: Mapping[str, Field], actual: Row[Any], zone: str) -> ColumnType | str:
    if column.pg_type == "text" and (actual.is_enum or actual.typname == "citext"):
        return ColumnType(column.name, actual.type, _TEXT)
    if column.pg_type == "jsonb" and actual.element:
        item = fields.get(column.name)
        return (item and _array(item, actual)) or _problem(column, actual)
    if actual.oid not in _WRITABLE[column.pg_type]:
        return _problem(column, actual)
    if actual.oid == _TIMESTAMP and not zone:
        return f'is {actual.type}, which names no instant: declare whose clock its values show, as timestamp_zone="UTC"'
    oid = _TEXT if actual.oid in _TEXTS else actual.oid
    own_type = _own_type(column, actual.oid, zone)
    limit = _limit(actual.oid, actual.modifier)
    steps = (limit, own_type) if actual.oid == _TIMESTAMP else (own_type, limit)
    return ColumnType(column.name, actual.type, oid, conversions.in_turn(*steps))


def _own_type(column: Column, oid: int, zone: str) -> Convert | None:
    """To the Python type that the driver writes to the column's type."""
    if oid == _NUMERIC and column.pg_type == "bigint":
        return Decimal
    if oid == _TIMESTAMP:
        return conversions.time_without_zone(zone)
    if column.pg_type == "jsonb":
        return Json if oid == _JSON else Jsonb
    return None


def _limit(oid: int, modifier: int) -> Convert | None:
    """Refuses values that the type does not hold unchanged."""
    if oid in _BYTES:
        return conversions.integer_of_bytes(_BYTES[oid])
    if oid == _REAL:
        return conversions.real
    if modifier == -1:
        return None
    if oid in _TEXTS:
        return conversions.text_of_length(modifier - _MODIFIER_HEADER)
    if oid == _NUMERIC:
        packed = modifier - _MODIFIER_HEADER
        return conversions.numeric_of(packed >> 16 & 0xFFFF, ((packed & 0x7FF) ^ 1024) - 1024)
    return conversions.time_of_precision(modifier)


def _array(item: Field, actual: Row[Any]) -> ColumnType | None:
    declared, _, _ = unwrap(item.decode_type)
    arguments = get_args(declared) if get_origin(declared) is list else ()
    if not arguments or actual.element not in _ELEMENTS.get(unwrap(arguments[0])[0], ()):
        return None
    limit = _limit(actual.element, actual.modifier)
    return ColumnType(item.name, actual.type, actual.oid, conversions.array_of(limit, item.decode_type))


def _problem(column: Column, actual: Row[Any]) -> str:
    return (
        f"is {actual.type}, and {column.pg_type} cannot be written to it unchanged: change the column, or declare the"
        " field with a type that docs/tables.md lists for it"
    )
