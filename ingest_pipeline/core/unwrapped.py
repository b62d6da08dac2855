"""Values that hold an event inside something else."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .errors import RecordRefused


class Decoder(Protocol):
    """Bytes → the last items of an EventRow. See RecordDecoder and ManyDecoder."""

    def decode(self, value: bytes) -> tuple[Any, ...]: ...
    def decode_many(self, values: Sequence[bytes | None]) -> tuple[list[tuple[Any, ...]], list[int]]: ...


class UnwrappedDecoder:
    """Decodes a part of each value with another decoder. `unwrap` returns the part, or raises RecordRefused."""

    def __init__(self, decoder: Decoder, unwrap: Callable[[bytes], bytes]) -> None:
        self._decoder, self._unwrap = decoder, unwrap

    def decode(self, value: bytes) -> tuple[Any, ...]:
        return self._decoder.decode(self._unwrap(value))

    def decode_many(self, values: Sequence[bytes | None]) -> tuple[list[tuple[Any, ...]], list[int]]:
        parts: list[bytes | None] = []
        for value in values:
            try:
                parts.append(None if value is None else self._unwrap(value))
            except RecordRefused:  # `decode` raises the error again
                parts.append(None)
        return self._decoder.decode_many(parts)
