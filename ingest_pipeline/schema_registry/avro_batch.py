"""Many Avro records of a schema, read by a single call.

fastavro needs half a microsecond for a call, and as much again for a time. The records therefore become the elements of
an Avro array, and times are read as numbers. Random bytes behind every record show that the record ends with its value:
a damaged record cannot take bytes of the next record.
"""

import io
import json
import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import fastavro
from fastavro.schema import SchemaParseException, UnknownType

from ..core.timestamps import EPOCH
from .registry import WriterSchema

_read: Any = fastavro.schemaless_reader
_END, _END_NAME = os.urandom(8), "ingest_end_of_record"
_TIMES = {"timestamp-millis": 1000, "timestamp-micros": 1}
"""Logical type → microseconds of its unit."""


_TIMES_OF_DAY = ("time-millis", "time-micros")
TEXT_OF = "ingest-text-of-"
"""In front of a logical type whose values are read as text."""


def loaded(text: str) -> Any:
    """A schema's JSON. Times of day are read as text, because an event has no type for them."""
    return json.loads(text, object_hook=_times_of_day_as_text)


def _times_of_day_as_text(schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("logicalType") in _TIMES_OF_DAY:
        schema["logicalType"] = TEXT_OF + schema["logicalType"]
    return schema


class AvroBatch:
    """Reads records of a writer's schema.

    Raises:
        SchemaParseException, UnknownType: the schema cannot be an array's element, for example because its record
            contains itself.
    """

    def __init__(self, writer: WriterSchema) -> None:
        named: dict[str, Any] = {}
        for reference in writer.references:
            fastavro.parse_schema(loaded(reference), named)
        schema = loaded(writer.text)
        self._times: list[tuple[str, int]] = []
        fields = [{**field, "type": self._without_time(field["name"], field["type"])} for field in schema["fields"]]
        fields.append({"name": _END_NAME, "type": {"type": "fixed", "name": _END_NAME, "size": len(_END)}})
        item = {**schema, "name": f"{schema['name']}_", "fields": fields}
        self._schema = fastavro.parse_schema({"type": "array", "items": item}, named)

    def _without_time(self, name: str, kind: Any) -> Any:
        """The type without the logical type of a time: `read` converts times."""
        if isinstance(kind, list):
            nullable = len(kind) == 2 and "null" in kind
            return [self._without_time(name, branch) for branch in kind] if nullable else kind
        logical = kind.get("logicalType", "") if isinstance(kind, dict) and kind.get("type") == "long" else ""
        if logical in _TIMES:
            self._times.append((name, _TIMES[logical]))
            return "long"
        return kind

    def read(self, payloads: Sequence[bytes]) -> list[dict[str, Any]]:
        """The records. Raises whatever the bytes lead fastavro to, and ValueError if a record ends elsewhere."""
        text = io.BytesIO(b"".join((_count(len(payloads)), _END.join(payloads), _END, b"\0")))
        records: list[dict[str, Any]] = _read(text, self._schema, None)
        if {record.pop(_END_NAME) for record in records} != {_END} or text.read(1):
            raise ValueError("a record does not end where its value ends")
        for name, microseconds in self._times:
            for record in records:
                if (number := record[name]) is not None:
                    record[name] = EPOCH + timedelta(0, 0, number * microseconds)
        return records


def batch_of(writer: WriterSchema) -> AvroBatch | None:
    """None if the schema's records have to be read alone."""
    try:
        return AvroBatch(writer)
    except (SchemaParseException, UnknownType):
        return None


def _count(number: int) -> bytes:
    """A count below 64, or below 8,192, as a variable-length zigzag number."""
    return bytes([number << 1 & 0x7F | 0x80, number >> 6])
