"""The key columns of a record without a row: a tombstone, or a change event about a deleted row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from .errors import RecordRefused, RefusalStage
from .fields import not_numeric
from .reasons import reason_of
from .record import STAMP
from .stream import Stream

DeletedRow = Callable[[bytes | None], tuple[Any, ...]]
"""A record's key → the event's columns of a Deletion. Raises RecordRefused."""


def deleted_row(stream: Stream) -> DeletedRow | None:
    """None for a stream without `deletes`.

    The record's key is the key_column's value if that column is the key. Otherwise the record's key is a JSON object
    with the key's fields, or the bare value of a single field. A text may be bare without quotes.
    """
    if not stream.deletes:
        return None
    of_record = sum(map(bool, (stream.topic_column, stream.key_column, stream.headers_column)))
    columns = stream.columns[STAMP + 1 + of_record :]
    empty: tuple[None, ...] = (None,) * len(columns)
    if stream.key == (stream.key_column,):

        def without_fields(key: bytes | None) -> tuple[Any, ...]:
            stream.record_columns.key_value(key)
            return empty

        return without_fields
    read, places = _reader(stream), [columns.index(name) for name in stream.key]

    def with_key(key: bytes | None) -> tuple[Any, ...]:
        if key is None:
            raise RecordRefused("the record has no key, so no row can be deleted", stage=RefusalStage.DECODE)
        row: list[Any] = list(empty)
        for place, value in zip(places, read(key), strict=True):
            row[place] = value
        return tuple(row)

    return with_key


def key_values(stream: Stream) -> Callable[[bytes | None], tuple[Any, ...] | None]:
    """A record's key → the values that the key names, or None. Two keys may name the same values by other bytes."""
    if stream.key == (stream.key_column,):
        return lambda key: None if key is None else (key,)
    read = _reader(stream)

    def values(key: bytes | None) -> tuple[Any, ...] | None:
        try:
            return None if key is None else read(key)
        except RecordRefused:
            return None

    return values


def check_record_key(stream: Stream, values: Sequence[Any], record_key: bytes | None, deleted_row: DeletedRow) -> None:
    """Raises RecordRefused if a deletion of the row would not have been recognized by the record's key.

    A deletion discards older dead letters whose record's key names its row. Another letter would stay open.

    Args:
        values: the event's columns of the row.
    """
    names = stream.columns[-len(values) :]
    try:
        of_key: Sequence[Any] = deleted_row(record_key)
    except RecordRefused:
        of_key = (None,) * len(values)
    if any(
        name in stream.key and value != key_value for name, value, key_value in zip(names, values, of_key, strict=True)
    ):
        raise RecordRefused(
            "the record's key does not name the row, so a later deletion of the row would go unnoticed",
            stage=RefusalStage.INSERT,
        )


def _reader(stream: Stream) -> Callable[[bytes], tuple[Any, ...]]:
    fields = [next(item for item in stream.fields if item.name == name) for name in stream.key]
    members = [(f"field_{i}", item.decode_type, msgspec.field(name=item.json_name)) for i, item in enumerate(fields)]
    key_struct = msgspec.defstruct("Key", members)
    in_object = msgspec.json.Decoder(key_struct)
    wrapped = msgspec.json.Decoder(msgspec.defstruct("KeyWithSchema", [("payload", key_struct)]))
    bare = msgspec.json.Decoder(fields[0].decode_type) if len(fields) == 1 else None
    text = bare is not None and fields[0].python_type is str

    def read(key: bytes) -> tuple[Any, ...]:
        try:
            if key.lstrip().startswith(b"{"):
                has_schema = b'"payload"' in key and b'"schema"' in key
                members = msgspec.structs.astuple(wrapped.decode(key))[0] if has_schema else in_object.decode(key)
                return msgspec.structs.astuple(members)
            if bare is None:
                raise RecordRefused("the record's key is not a JSON object", stage=RefusalStage.DECODE)
            if text and not key.startswith(b'"'):
                return (msgspec.convert(key.decode(), fields[0].decode_type),)
            return (bare.decode(key),)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise RecordRefused(f"in the record's key: {reason_of(error)}", stage=RefusalStage.DECODE) from None

    def checked(key: bytes) -> tuple[Any, ...]:
        values = read(key)
        if any(isinstance(value, str) and "\0" in value for value in values):
            raise RecordRefused("NUL character in the record's key", stage=RefusalStage.VALUE)
        for value in values:
            if isinstance(value, Decimal) and (why := not_numeric(value, len(key))):
                raise RecordRefused(f"in the record's key: {why}", stage=RefusalStage.VALUE)
        return values

    return checked
