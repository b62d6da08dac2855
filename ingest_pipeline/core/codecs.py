"""How the bytes of a record become an event of a given type. One codec for each kind of format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from . import json_hints
from .many import without_doubtful
from .timestamps import may_have_nanoseconds

Read = Callable[[bytes], Mapping[str, Any]]
"""Bytes → field names and values. Raises RecordRefused for the record's fault, and EnvironmentFault."""


class Codec(Protocol):
    """Reads one format.

    Attributes:
        is_json: the bytes are JSON, so that jsonb columns can store the original text.
        nul: a byte that a value with U+0000 in a string contains.
        frames: Python frames between the decoder's call and msgspec.
    """

    is_json: bool
    nul: int
    frames: int

    def decoder(self, event_type: type) -> Callable[[bytes], Any]:
        """A function from bytes to an event. Raises msgspec's errors, RecordRefused and EnvironmentFault."""
        ...

    def without_doubtful(self, values: Sequence[bytes | None]) -> Sequence[bytes | None]:
        """The values, with None instead of values that the fast decode may get wrong."""
        ...

    def explained(self, reason: str, value: bytes) -> str:
        """The reason of a refusal with what helps the reader, such as the id of the value's schema."""
        ...


class JsonCodec:
    """JSON text."""

    is_json, nul, frames = True, 0x5C, 0

    def decoder(self, event_type: type) -> Callable[[bytes], Any]:
        return msgspec.json.Decoder(event_type).decode

    def without_doubtful(self, values: Sequence[bytes | None]) -> Sequence[bytes | None]:
        return without_doubtful(values)

    def explained(self, reason: str, value: bytes) -> str:
        return json_hints.explained(reason, value)


class ObjectCodec:
    """Any format that a reader turns into a mapping of Python values, such as Avro.

    Args:
        read: makes the mapping.
        origin: what the reason of a refusal adds about a value.
        strict: False lets text stand for numbers and booleans.
    """

    is_json, nul, frames = False, 0, 1

    def __init__(self, read: Read, origin: Callable[[bytes], str] = lambda value: "", strict: bool = True) -> None:
        self._read, self._strict, self._origin = read, strict, origin

    def decoder(self, event_type: type) -> Callable[[bytes], Any]:
        read, convert, strict = self._read, msgspec.convert, self._strict
        return lambda value: convert(read(value), event_type, strict=strict)

    def without_doubtful(self, values: Sequence[bytes | None]) -> Sequence[bytes | None]:
        return without_doubtful(values, may_have_nanoseconds)

    def explained(self, reason: str, value: bytes) -> str:
        return reason + self._origin(value)
