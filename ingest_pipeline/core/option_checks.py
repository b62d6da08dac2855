"""Whether a stream's options fit together, its event and its table."""

import re
import zoneinfo
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from .choices import Envelope, OnConflict
from .columns import ORDINAL, Column
from .errors import SettingsError
from .fields import PG_TYPES
from .formats import Csv, Format, Json, JsonSchema, Protobuf
from .nesting import Shape
from .record import STAMP


def check_table(coordinates: bool, timestamp_zone: str, needing_coordinates: Mapping[str, object]) -> None:
    """Raises SettingsError with the reason, which does not name the stream.

    Args:
        needing_coordinates: option → its value, for options of tables with Kafka coordinates.
    """
    if coordinates and timestamp_zone:
        raise SettingsError("timestamp_zone is for a table that exists, with coordinates=False")
    for option, value in needing_coordinates.items():
        if value and not coordinates:
            raise SettingsError(f"{option} is for a table with the Kafka coordinates, and coordinates is False")
    if timestamp_zone:
        try:
            zoneinfo.ZoneInfo(timestamp_zone)
        except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
            raise SettingsError(f"timestamp_zone {timestamp_zone!r} is not a time zone, such as UTC") from None


_ASSET = re.compile(r"[A-Za-z0-9_]+")
_TAG = re.compile(r"([A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}")
_TAG_VALUE = re.compile(r"[A-Za-z0-9_.-]{0,63}")
_LEAST_SILENCE = timedelta(minutes=1)
"""Dagster's shortest freshness window."""


def check_asset(stream: str, topic_asset: str, tags: Mapping[str, str], max_silence: timedelta | None) -> None:
    """Raises SettingsError with the reason."""
    if not _ASSET.fullmatch(topic_asset):
        raise SettingsError(f"stream {stream}: topic_asset {topic_asset!r} is not of A-Z, a-z, 0-9 and _")
    for key, value in tags.items():
        if not _TAG.fullmatch(key) or key.startswith("dagster/"):
            raise SettingsError(
                f"stream {stream}: tag {key!r} is not `key` or `namespace/key`, each of up to 63 of A-Z, a-z,"
                " 0-9, _, . and -. The namespace dagster is Dagster's own"
            )
        if not _TAG_VALUE.fullmatch(value):
            raise SettingsError(f"stream {stream}: the value of tag {key} is not up to 63 of A-Z, a-z, 0-9, _, . and -")
    if max_silence is not None and max_silence < _LEAST_SILENCE:
        raise SettingsError(f"stream {stream}: max_silence is {max_silence}, at least a minute is needed")


def check_many(
    record_format: Format, envelope: str, shape: Shape, transform: Callable[[Any], Any] | None, columns: Collection[str]
) -> None:
    """Raises SettingsError with the reason, which does not name the stream. `columns`: the names of all columns."""
    if list(columns).count(ORDINAL.name) > 1:
        raise SettingsError(f"many=True adds the column {ORDINAL.name}: rename the field or the option of that name")
    if shape.struct.__struct_config__.array_like:
        raise SettingsError(f"many=True: {shape.struct.__name__} is read from an array itself")
    if transform is not None:
        return
    if envelope:
        raise SettingsError(f"many=True: an envelope ({envelope}) holds one event, so a transform has to make the list")
    if not isinstance(record_format, Json | JsonSchema):
        raise SettingsError(
            f"many=True: a record of {record_format} holds one event, so a transform has to make the list"
        )


def check_format(record_format: Format, envelope: str, shape: Shape, extra_column: str) -> None:
    """Raises SettingsError with the reason, which does not name the stream."""
    if extra_column:
        _check_extra(record_format, shape)
    if envelope not in set(Envelope):
        names = ", ".join(repr(str(name)) for name in Envelope if name)
        raise SettingsError(f"envelope {envelope!r} is not one of {names}")
    if envelope and isinstance(record_format, Csv | Protobuf):
        raise SettingsError(f"the format {record_format} has no envelope")
    if isinstance(record_format, Protobuf):
        _check_message(record_format, shape)
    if isinstance(record_format, Csv) and (
        shape.nested or any(item.python_type in (dict, list, bytes) for item in shape.leaves)
    ):
        raise SettingsError(
            f"{shape.struct.__name__} has a field that a CSV value cannot hold: no Struct, dict, list or bytes"
        )


def _check_extra(record_format: Format, shape: Shape) -> None:
    if not isinstance(record_format, Json | JsonSchema):
        raise SettingsError(f"extra_column is for JSON, and the format is {record_format}")
    if shape.struct.__struct_config__.forbid_unknown_fields:
        raise SettingsError(
            f"{shape.struct.__name__} forbids unknown fields, so extra_column would stay empty: leave one of the two"
        )
    for struct in shape.structs:
        if struct.__struct_config__.array_like:
            raise SettingsError(f"{struct.__name__} is read from an array, which has no keys for extra_column")


def _check_message(protobuf: Protobuf, shape: Shape) -> None:
    descriptor = protobuf.message.DESCRIPTOR
    for member in shape.members:
        if member.required and member.json_name not in descriptor.fields_by_name:
            raise SettingsError(
                f"{shape.struct.__name__}.{member.attribute}: the message {descriptor.full_name} has no field"
                f" {member.json_name!r}"
            )


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
