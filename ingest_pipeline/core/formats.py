"""Formats of a record's value. A format says how bytes become the fields of an event."""

import hashlib
from dataclasses import dataclass
from typing import Any

from .errors import SettingsError


@dataclass(frozen=True, slots=True)
class Json:
    """A JSON object."""


@dataclass(frozen=True, slots=True)
class Avro:
    """Avro in a schema registry's wire format. The schema that a record was written with comes from the registry.

    Needs SCHEMA_REGISTRY_URL and the packages of `pip install "ingest-pipeline[avro]"`.
    """


@dataclass(frozen=True, slots=True, repr=False)
class Protobuf:
    """Protobuf in a schema registry's wire format. The registry is not asked.

    Attributes:
        message: the generated class. The event's fields have the names of the .proto file.
        key: the generated class of the records' keys, which deletions of a stream with a key need.
    """

    message: Any
    key: Any = None

    def __post_init__(self) -> None:
        for name, generated in self._classes.items():
            if not hasattr(generated, "DESCRIPTOR") or not hasattr(generated, "FromString"):
                raise SettingsError(f"Protobuf: {name} is not a generated message class, such as reading_pb2.Reading")

    @property
    def _classes(self) -> dict[str, Any]:
        return {"message": self.message} | ({} if self.key is None else {"key": self.key})

    def __repr__(self) -> str:
        """With a hash of the .proto file: a changed file changes the stream's definition."""
        descriptors = [generated.DESCRIPTOR for generated in self._classes.values()]
        digests = [hashlib.sha256(item.file.serialized_pb).hexdigest()[:12] for item in descriptors]
        names = (f"{item.full_name} {digest}" for item, digest in zip(descriptors, digests, strict=True))
        return f"Protobuf({', '.join(names)})"


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """A JSON object in a schema registry's wire format. The registry is not asked: the event type checks the object."""


@dataclass(frozen=True, slots=True)
class Csv:
    """A line of values in the order of the event's fields, quoted with `"` where needed. An empty value is null."""

    delimiter: str = ","

    def __post_init__(self) -> None:
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n\0':
            raise SettingsError(
                f"Csv: delimiter {self.delimiter!r} is not one character other than a quote or an end of line"
            )


Format = Json | Avro | Protobuf | JsonSchema | Csv
JSON = Json()
