"""Whether a stream's table can be keyed as declared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal

from .choices import OnConflict
from .columns import Column
from .errors import SettingsError
from .fields import PG_TYPES
from .record import STAMP

_NOT_IN_A_KEY = {PG_TYPES[kind][0] for kind in (dict, list, float)}
_NOT_IN_A_RECORD_KEY = _NOT_IN_A_KEY | {PG_TYPES[kind][0] for kind in (bytes, datetime)}
_VERSIONS = {PG_TYPES[kind][0] for kind in (int, Decimal, datetime, date)}
"""Types with the same order in Python and PostgreSQL."""


def check_key(
    key: Sequence[str],
    row_columns: Sequence[Column],
    *,
    on_conflict: str,
    only_newer: str,
    deletes: bool,
    many: bool,
    key_column: str,
) -> None:
    """Raises SettingsError with the reason, which does not name the stream. The arguments are a Stream's attributes."""
    if on_conflict not in set(OnConflict):
        raise SettingsError(f'on_conflict {on_conflict!r} is neither "update" nor "ignore"')
    if not key:
        if on_conflict != OnConflict.UPDATE or only_newer or deletes:
            raise SettingsError("on_conflict, only_newer and deletes need a key")
        return
    if not isinstance(key, tuple) or len(set(key)) < len(key):
        raise SettingsError(f'key {key!r} is not a tuple of different columns, such as key=("device_id",)')
    if many:
        raise SettingsError("a stream with a key stores one row of each record, and many=True stores several")
    columns = {column.name: column for column in row_columns[STAMP + 1 :]}
    for name in key:
        if (column := columns.get(name)) is None:
            raise SettingsError(f"key: {name!r} is neither a field of the event nor the key_column")
        if column.nullable:
            raise SettingsError(f"key: {name} is declared `| None`, and a key is never null")
        if column.pg_type in _NOT_IN_A_KEY:
            raise SettingsError(f"key: {name} is {column.pg_type}, which has no exact equality")
    if only_newer:
        _check_version(only_newer, on_conflict, columns)
    if deletes and key != (key_column,):
        _check_record_key(key, columns, key_column)


def _check_version(only_newer: str, on_conflict: str, columns: Mapping[str, Column]) -> None:
    if on_conflict != OnConflict.UPDATE:
        raise SettingsError('only_newer goes with on_conflict="update"')
    column = columns.get(only_newer)
    if column is None or column.nullable or column.pg_type not in _VERSIONS:
        raise SettingsError(
            f"only_newer {only_newer!r} is not a field of int, Decimal, datetime or date without `| None`"
        )


def _check_record_key(key: Sequence[str], columns: Mapping[str, Column], key_column: str) -> None:
    if key_column in key:
        raise SettingsError("deletes: the key is the key_column alone, or fields of the event")
    for name in key:
        if columns[name].pg_type in _NOT_IN_A_RECORD_KEY:
            raise SettingsError(
                f"deletes: {name} is {columns[name].pg_type}, which a tombstone's key cannot hold. The key is of str,"
                " int, bool, Decimal, UUID or date"
            )
