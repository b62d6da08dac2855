"""How the bytes of a record become an event of a given type. One codec for each kind of format."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec

from . import json_hints
from .many import merged, try_map, without_doubtful
from .timestamps import may_have_nanoseconds

Read = Callable[[bytes], Mapping[str, Any]]
"""Bytes → field names and values. Raises RecordRefused for the record's fault, and EnvironmentFault."""
ReadMany = Callable[[Sequence[bytes | None]], tuple[list[Mapping[str, Any]], list[int]]]
"""Values → (mappings in order, indices of values without a mapping, for Read to try)."""
DecodeAll = Callable[[Sequence[bytes | None]], tuple[list[Any], list[int]]]
"""Values → (events in order, indices of values without an event)."""


class Codec(Protocol):
    """Reads a format.

    Attributes:
        is_json: the bytes are JSON: jsonb columns can store the original text.
        nul: a byte in every value with U+0000 in a string.
        frames: Python frames between the decoder's call and msgspec.
    """

    is_json: bool
    nul: int
    frames: int

    def decoder(self, event_type: type) -> Callable[[bytes], Any]:
        """A function from bytes to an event. Raises msgspec's errors, RecordRefused and EnvironmentFault."""
        ...

    def decoder_of_many(self, event_type: type) -> DecodeAll:
        """The same for many values. Raises only MemoryError."""
        ...

    def without_doubtful(self, values: Sequence[bytes | None]) -> Sequence[bytes | None]:
        """The values, with None where the fast decode may be wrong."""
        ...

    def explained(self, reason: str, value: bytes) -> str:
        """The reason of a refusal with what helps the reader, such as the id of the value's schema."""
        ...


class JsonCodec:
    is_json, nul, frames = True, 0x5C, 0

    def decoder(self, event_type: type) -> Callable[[bytes], Any]:
        return msgspec.json.Decoder(event_type).decode

    def decoder_of_many(self, event_type: type) -> DecodeAll:
        return partial(try_map, self.decoder(event_type))

    def without_doubtful(self, values: Sequence[bytes | None]) -> Sequence[bytes | None]:
        return without_doubtful(values)

    def explained(self, reason: str, value: bytes) -> str:
        return json_hints.explained(reason, value)


class ObjectCodec:
    """Any format that a reader turns into a mapping of Python values, such as Avro.

    Args:
        origin: what the reason of a refusal adds about a value.
        strict: False lets text stand for numbers and booleans.
    """

    is_json, nul, frames = False, 0, 1

    def __init__(
        self,
        read: Read,
        origin: Callable[[bytes], str] = lambda value: "",
        strict: bool = True,
        read_many: ReadMany | None = None,
    ) -> None:
        self._read, self._strict, self._origin = read, strict, origin
        self._read_many = read_many or partial(try_map, read)

    def decoder(self, event_type: type) -> Callable[[bytes], Any]:
        read, convert, strict = self._read, msgspec.convert, self._strict
        return lambda value: convert(read(value), event_type, strict=strict)

    def decoder_of_many(self, event_type: type) -> DecodeAll:
        read_many, convert, strict = self._read_many, msgspec.convert, self._strict

        def decode_many(values: Sequence[bytes | None]) -> tuple[list[Any], list[int]]:
            mappings, odd = read_many(values)
            try:
                return convert(mappings, list[event_type], strict=strict), odd  # type: ignore[valid-type]
            except MemoryError:
                raise
            except Exception:  # of one event, whose check may raise any exception
                events, refused = try_map(lambda mapping: convert(mapping, event_type, strict=strict), mappings)
                return events, merged(odd, refused)

        return decode_many

    def without_doubtful(self, values: Sequence[bytes | None]) -> Sequence[bytes | None]:
        return without_doubtful(values, may_have_nanoseconds)

    def explained(self, reason: str, value: bytes) -> str:
        return reason + self._origin(value)
