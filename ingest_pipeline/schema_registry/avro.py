"""Avro records → mappings, read with the schema of the record's writer."""

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import fastavro
import fastavro.read
from fastavro.schema import SchemaParseException, UnknownType

from ..core.errors import RecordRefused
from ..core.many import try_map
from ..core.nesting import Nested, Shape
from ..core.stream import Stream
from ..core.time_forms import Epoch
from .avro_batch import TEXT_OF, AvroBatch, batch_of, loaded
from .avro_fields import branches_of
from .registry import ID_BYTES, SchemaId, SchemaRegistry, WriterSchema, prefix_of, schema_id_of

_read_record: Any = fastavro.schemaless_reader
_ASK_AGAIN_SECONDS = 10.0
_TOGETHER = 64
"""Values read by a single call. A bad value lets all values be read again, one by one."""
Schema = Mapping[str, Any]
_read_nanoseconds = Epoch("ns").read


def _nanoseconds(value: int, _writer: Any = None, _reader: Any = None) -> datetime:
    return _read_nanoseconds(value)


def _local_nanoseconds(value: int, _writer: Any = None, _reader: Any = None) -> datetime:
    return _nanoseconds(value).replace(tzinfo=None)


def _text_of(kind: str) -> Callable[..., str]:
    read = fastavro.read.LOGICAL_READERS[kind]
    return lambda value, writer=None, reader=None: read(value, writer, reader).isoformat()


for storage, logical in (("int", "time-millis"), ("long", "time-micros")):
    fastavro.read.LOGICAL_READERS[f"{storage}-{TEXT_OF}{logical}"] = _text_of(f"{storage}-{logical}")
# fastavro has no readers of its own for these two.
fastavro.read.LOGICAL_READERS.setdefault("long-timestamp-nanos", _nanoseconds)
fastavro.read.LOGICAL_READERS.setdefault("long-local-timestamp-nanos", _local_nanoseconds)


@dataclass(frozen=True, slots=True)
class _Refused:
    """A schema whose records cannot become rows, until the registry is asked again."""

    reason: str
    until: float


class AvroReader:
    """Reads values of any schema.

    Args:
        registry: gives the schema of an id once. Schemas of an id never change.
        subject: the likely subject of the schemas, named in reasons.
    """

    def __init__(self, registry: SchemaRegistry, subject: str) -> None:
        self._registry, self._subject = registry, subject
        self._parsed: dict[bytes, Any] = {}  # by the bytes in front of a record
        self._writers: dict[bytes, WriterSchema] = {}
        self._refused: dict[SchemaId, _Refused] = {}

    def read(self, value: bytes) -> Any:
        """A record's fields, or a single value. Raises RecordRefused, NotPermitted and SchemaRegistryUnavailable."""
        prefix = value[:ID_BYTES]
        schema = self._parsed.get(prefix)
        if schema is None:  # a new schema or a GUID
            prefix = prefix_of(value)
            schema = self._parsed.get(prefix) or self._load(prefix)
        text = io.BytesIO(value)
        text.seek(len(prefix))
        try:
            record = _read_record(text, schema, None)
        except MemoryError:
            raise
        except Exception as error:  # fastavro raises whatever the bytes lead it to
            is_time = isinstance(error, OverflowError | ValueError) and not isinstance(error, UnicodeError)
            words = "a time is outside the years 1 to 9999, or " if is_time else ""
            raise self._refused_by_schema(f"{words}the bytes do not follow", prefix) from None
        if text.read(1):
            raise self._refused_by_schema("bytes are left behind a record of", prefix)
        return record

    def _refused_by_schema(self, words: str, prefix: bytes) -> RecordRefused:
        return RecordRefused(f"{words} {self._writers[prefix]}")

    def origin(self, value: bytes) -> str:
        """Names the schema of the record in a reason."""
        writer = self._writers.get(prefix_of(value))
        return "" if writer is None else f" ({writer})"

    def _load(self, prefix: bytes) -> Any:
        schema_id = schema_id_of(prefix)
        refused = self._refused.get(schema_id)
        if refused is None or time.monotonic() >= refused.until:
            try:
                writer = self._registry.writer_schema(schema_id, self._subject)
                schema = self._parsed[prefix] = self._checked(writer)
                self._writers[prefix] = writer
                self._refused.pop(schema_id, None)
                return schema
            except RecordRefused as error:
                refused = _Refused(error.message, time.monotonic() + _ASK_AGAIN_SECONDS)
                self._refused[schema_id] = refused
        raise RecordRefused(refused.reason)

    def _checked(self, writer: WriterSchema) -> Any:
        """The parsed schema. Raises RecordRefused for a schema that cannot be used."""
        return self._parse(writer, {})

    def _parse(self, writer: WriterSchema, named: dict[str, Any]) -> Any:
        if writer.kind != "AVRO":
            raise RecordRefused(f"{writer} is {writer.kind}, and the stream's format is Avro")
        try:
            for reference in writer.references:
                fastavro.parse_schema(loaded(reference), named)
            return fastavro.parse_schema(loaded(writer.text), named)
        except (SchemaParseException, UnknownType, ValueError) as error:
            raise RecordRefused(f"{writer} cannot be parsed ({type(error).__name__})") from None


class AvroEventReader(AvroReader):
    """Reads a stream's records, which must give its event."""

    def __init__(self, registry: SchemaRegistry, stream: Stream) -> None:
        super().__init__(registry, f"{stream.topic}-value")
        self._shape, self._envelope = stream.shape, stream.envelope
        self._batches: dict[bytes, AvroBatch | None] = {}

    def read_many(self, values: Sequence[bytes | None]) -> tuple[list[Mapping[str, Any]], list[int]]:
        """(records in order, indices of values without a record: `read` explains them)."""
        records: list[Mapping[str, Any]] = []
        odd: list[int] = []
        for start in range(0, len(values), _TOGETHER):
            chunk = values[start : start + _TOGETHER]
            read = self._read_together([value for value in chunk if value is not None])
            if read is None:
                read, refused = try_map(self.read, chunk)
            else:
                refused = [i for i, value in enumerate(chunk) if value is None]
            records += read
            odd += [start + i for i in refused]
        return records, odd

    def _read_together(self, values: Sequence[bytes]) -> list[dict[str, Any]] | None:
        """None for records of several schemas or a new schema, and if a record is refused."""
        if not values:
            return []
        try:
            prefix = prefix_of(values[0])
            batch = self._batches.get(prefix)
            if batch is None or not all(value.startswith(prefix) for value in values):
                return None
            return batch.read([value[len(prefix) :] for value in values])
        except MemoryError:
            raise
        except Exception:  # fastavro raises whatever the bytes lead it to
            return None

    def _load(self, prefix: bytes) -> Any:
        schema = super()._load(prefix)
        self._batches[prefix] = batch_of(self._writers[prefix])
        return schema

    def _checked(self, writer: WriterSchema) -> Any:
        """Raises RecordRefused for a schema without an event, too."""
        named: dict[str, Any] = {}
        schema = self._parse(writer, named)
        if not isinstance(schema, dict) or schema.get("type") != "record":
            raise RecordRefused(f"{writer} is not a record")
        for path in self._missing(schema, named):
            raise RecordRefused(f"{writer} has no field `{path}`")
        return schema

    def _missing(self, schema: Schema, named: Schema) -> Iterator[str]:
        if not self._envelope:
            return _missing(schema, self._shape, named)
        event = _record(_types(schema).get("after"), named)
        missing = iter(()) if event is None else _missing(event, self._shape, named)
        return (path for path in missing if not path.startswith("__"))  # a part of the envelope


def _types(schema: Schema) -> Schema:
    return {field["name"]: field["type"] for field in schema["fields"]}


def _missing(schema: Schema, shape: Shape, named: Schema) -> Iterator[str]:
    """Paths of the required fields missing in a writer's record."""
    types = _types(schema)
    for member in shape.members:
        if member.json_name not in types:
            if member.required:
                yield member.json_name
        elif isinstance(member, Nested) and (record := _record(types[member.json_name], named)) is not None:
            yield from (f"{member.json_name}.{path}" for path in _missing(record, member.shape, named))


def _record(kind: Any, named: Schema) -> Schema | None:
    """The record of a field's type, also within a union. None for another type."""
    branches = branches_of(kind, named)
    records = [branch for branch in branches if isinstance(branch, dict) and branch.get("type") == "record"]
    return records[0] if len(records) == 1 else None
