"""The key columns of a record without a row: a tombstone, or a change event about a deleted row."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from .errors import RecordRefused, RefusalStage
from .fields import Field, not_numeric
from .reasons import UNDECODABLE, reason_of
from .record import STAMP, RecordKeys
from .stream import Stream

ReadKey = Callable[[bytes], Any]
"""A key in a schema registry's format → a mapping, a single value, or msgspec.Raw with JSON. Raises as DeletedRow."""
SCHEMA_PREFIXES = (b"\0", b"\1")
"""The first byte of a key in a schema registry's format, with an id or with a GUID. No JSON begins so."""


def record_keys(stream: Stream, read_key: ReadKey | None = None) -> RecordKeys | None:
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

        return RecordKeys(without_fields, lambda key: None if key is None else (key,))
    read, places = _reader(stream, read_key), [columns.index(name) for name in stream.key]

    def with_key(key: bytes | None) -> tuple[Any, ...]:
        if key is None:
            raise RecordRefused("the record has no key, so no row can be deleted")
        row: list[Any] = list(empty)
        for place, value in zip(places, read(key), strict=True):
            row[place] = value
        return tuple(row)

    def values(key: bytes | None) -> tuple[Any, ...] | None:
        try:
            return None if key is None else read(key)
        except RecordRefused:
            return None

    return RecordKeys(with_key, values)


def check_record_key(stream: Stream, values: Sequence[Any], record_key: bytes | None, keys: RecordKeys) -> None:
    """Raises RecordRefused if a deletion of the row would not have been recognized by the record's key.

    A deletion discards older dead letters whose record's key names its row. Another letter would stay open.
    """
    names = stream.columns[-len(values) :]
    try:
        of_key: Sequence[Any] = keys.deleted_row(record_key)
    except RecordRefused:
        of_key = (None,) * len(values)
    if any(
        name in stream.key and value != key_value for name, value, key_value in zip(names, values, of_key, strict=True)
    ):
        raise RecordRefused(
            "the record's key does not name the row, so a later deletion of the row would go unnoticed",
            stage=RefusalStage.INSERT,
        )


def _reader(stream: Stream, read_key: ReadKey | None) -> Callable[[bytes], tuple[Any, ...]]:
    fields = [next(item for item in stream.fields if item.name == name) for name in stream.key]
    members = [(f"field_{i}", item.decode_type, msgspec.field(name=item.json_name)) for i, item in enumerate(fields)]
    key_struct = msgspec.defstruct("Key", members)
    in_object = msgspec.json.Decoder(key_struct)
    wrapped = msgspec.json.Decoder(msgspec.defstruct("KeyWithSchema", [("payload", key_struct)]))
    single = fields[0].decode_type if len(fields) == 1 else key_struct
    bare = msgspec.json.Decoder(single) if len(fields) == 1 else None
    text = bare is not None and fields[0].python_type is str

    def read(key: bytes) -> tuple[Any, ...]:
        if read_key is not None and key.startswith(SCHEMA_PREFIXES):
            parts = read_key(key)
            if isinstance(parts, Mapping):
                return msgspec.structs.astuple(msgspec.convert(parts, key_struct))
            if not isinstance(parts, msgspec.Raw):
                return (msgspec.convert(parts, single),)
            key = bytes(parts)
        if key.lstrip().startswith(b"{"):
            has_schema = b'"payload"' in key and b'"schema"' in key
            members = msgspec.structs.astuple(wrapped.decode(key))[0] if has_schema else in_object.decode(key)
            return msgspec.structs.astuple(members)
        if bare is None:
            raise RecordRefused("not a JSON object")
        if text and not key.startswith(b'"'):
            return (msgspec.convert(key.decode(), single),)
        return (bare.decode(key),)

    def checked(key: bytes) -> tuple[Any, ...]:
        try:
            values = tuple(map(_read_time, read(key), fields))
        except RecordRefused as refused:
            raise RecordRefused(f"in the record's key: {refused.message}", stage=refused.stage) from None
        except UNDECODABLE as error:
            raise RecordRefused(f"in the record's key: {reason_of(error)}") from None
        except ValueError as error:
            raise RecordRefused(f"in the record's key: {error}", stage=RefusalStage.TIMESTAMP) from None
        if any(isinstance(value, str) and "\0" in value for value in values):
            raise RecordRefused("NUL character in the record's key", stage=RefusalStage.VALUE)
        for value in values:
            if isinstance(value, Decimal) and (why := not_numeric(value, len(key))):
                raise RecordRefused(f"in the record's key: {why}", stage=RefusalStage.VALUE)
        return values

    return checked


def _read_time(value: Any, item: Field) -> Any:
    """The day of a date in another form. Raises ValueError."""
    return value if item.time_form is None else item.time_form.read(value).date()
