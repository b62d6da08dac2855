"""Formats of a record's value. A format says how bytes become the fields of an event."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import SettingsError


@dataclass(frozen=True, slots=True)
class Json:
    """A JSON object."""


@dataclass(frozen=True, slots=True)
class Avro:
    """Avro in a schema registry's wire format. The schema that a record was written with comes from the registry.

    Needs SCHEMA_REGISTRY_URL and the packages of `pip install "ingest-pipeline[avro]"`.
    """


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """A JSON object in a schema registry's wire format. The registry is not asked: the event type checks the object."""


@dataclass(frozen=True, slots=True)
class Csv:
    """A line of values in the order of the event's fields, quoted with `"` where needed. An empty value is null.

    Attributes:
        delimiter: the sign between two values.
    """

    delimiter: str = ","

    def __post_init__(self) -> None:
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n\0':
            raise SettingsError(
                f"Csv: delimiter {self.delimiter!r} is not one character other than a quote or an end of line"
            )


Format = Json | Avro | JsonSchema | Csv
JSON = Json()
