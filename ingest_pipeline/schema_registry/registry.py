"""Questions to a schema registry, through confluent-kafka's client."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from ..core.errors import NotPermitted, RecordRefused, SchemaRegistryUnavailable, SettingsError

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

ID_BYTES, _GUID_BYTES = 5, 17
"""Of the bytes in front of a record: 0 and an id, or 1 and a GUID."""
_ANSWER_SECONDS = 5
_REFUSED = (401, 403)
_UNKNOWN_SCHEMA = 40403
"""The registry's own code. A 404 without the code comes from a wrong address."""
T = TypeVar("T")
SchemaId = int | UUID


@dataclass(frozen=True, slots=True)
class WriterSchema:
    """The schema of a record's writer.

    Attributes:
        kind: "AVRO", "JSON" or "PROTOBUF".
        subject: "" without a subject, and for a GUID, because a registry does not tell the subjects of a GUID.
        references: schemas that the text refers to, every schema after its own references.
    """

    schema_id: SchemaId
    kind: str
    text: str
    subject: str
    references: tuple[str, ...]

    def __str__(self) -> str:
        subject = f" of {self.subject}" if self.subject else ""
        return f"schema id {self.schema_id}{subject}"


class SchemaRegistry:
    """A registry at one or more addresses.

    Args:
        properties: of confluent-kafka's SchemaRegistryClient, such as "url" and "basic.auth.user.info".
    """

    def __init__(self, properties: Mapping[str, str]) -> None:
        self._properties = properties
        self._opened: SchemaRegistryClient | None = None

    def writer_schema(self, schema_id: SchemaId, likely_subject: str) -> WriterSchema:
        """The schema with the id, of the likely subject if registered there.

        Raises:
            RecordRefused: the registry has no such schema. A redrive asks again.
            NotPermitted: the registry refuses the login.
            SchemaRegistryUnavailable: the registry does not answer, or answers with an error of its own.
        """
        if isinstance(schema_id, UUID):
            schema = self._ask(schema_id, lambda: self._client.get_schema_by_guid(str(schema_id)))
            subjects = list[str]()
        else:
            schema = self._ask(schema_id, lambda: self._client.get_schema(schema_id))
            versions = self._ask(schema_id, lambda: self._client.get_schema_versions(schema_id))
            subjects = sorted({str(version.subject) for version in versions})
        references = self._ask(schema_id, lambda: self._references(schema, set()))
        text = schema.schema_str or ""
        subject = likely_subject if likely_subject in subjects else next(iter(subjects), "")
        kind = schema.schema_type or "AVRO"
        return WriterSchema(schema_id, kind=kind, text=text, subject=subject, references=tuple(references))

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def check(self) -> int:
        """The number of subjects, to see the registry answer. Raises NotPermitted, SchemaRegistryUnavailable."""
        return len(self._ask(None, lambda: self._client.get_subjects()))

    def _references(self, schema: Schema, seen: set[tuple[str, int]]) -> list[str]:
        texts: list[str] = []
        for reference in schema.references or ():
            version = (str(reference.subject), int(reference.version or 0))
            if version in seen:
                continue
            seen.add(version)
            referred = self._client.get_version(*version).schema
            texts += [*self._references(referred, seen), referred.schema_str or ""]
        return texts

    def _ask(self, schema_id: SchemaId | None, question: Callable[[], T]) -> T:
        from confluent_kafka.schema_registry import SchemaRegistryError
        from confluent_kafka.schema_registry.common._httpx_compat import httpx

        try:
            return question()
        except SchemaRegistryError as error:
            status = error.http_status_code
            if error.error_code == _UNKNOWN_SCHEMA and schema_id is not None:
                raise RecordRefused(f"the schema registry does not know schema id {schema_id}") from None
            if status in _REFUSED:
                raise NotPermitted(
                    f"the schema registry refuses the login (HTTP {status}): check SCHEMA_REGISTRY_BASIC_AUTH"
                ) from None
            raise SchemaRegistryUnavailable(
                f"the schema registry answers with an error (HTTP {status}): check SCHEMA_REGISTRY_URL and its log"
            ) from None
        except (httpx.HTTPError, json.JSONDecodeError) as error:
            raise SchemaRegistryUnavailable(
                f"the schema registry does not answer ({type(error).__name__}): check that it runs and that"
                " SCHEMA_REGISTRY_URL names it"
            ) from None

    @property
    def _client(self) -> SchemaRegistryClient:
        from confluent_kafka.schema_registry import SchemaRegistryClient

        if self._opened is not None:
            return self._opened
        properties: dict[str, Any] = {"timeout": _ANSWER_SECONDS, "max.retries": 1, "retries.wait.ms": 100}
        try:
            self._opened = SchemaRegistryClient({**self._properties, **properties})
            return self._opened
        except (ValueError, TypeError, OSError) as error:
            raise SettingsError(f"SCHEMA_REGISTRY_…: {error}") from None


def prefix_of(value: bytes) -> bytes:
    """The bytes in front of a record, with its schema's id or GUID. Raises RecordRefused."""
    if value[:1] == b"\0" and len(value) >= ID_BYTES:
        return value[:ID_BYTES]
    if value[:1] == b"\1" and len(value) >= _GUID_BYTES:
        return value[:_GUID_BYTES]
    raise RecordRefused("no schema id: the value does not start with a zero byte and four bytes of id")


def schema_id_of(prefix: bytes) -> SchemaId:
    """The id or GUID in a record's prefix."""
    return UUID(bytes=prefix[1:]) if len(prefix) == _GUID_BYTES else int.from_bytes(prefix[1:], "big")


def payload_of(value: bytes) -> bytes:
    """The bytes behind the prefix. Raises RecordRefused for a value without a schema id."""
    return value[len(prefix_of(value)) :]
