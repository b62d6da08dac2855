"""The decoder of a stream's format, also for values that hold an event inside something else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from ..core.choices import NaiveTimestamps
from ..core.codecs import Codec, JsonCodec, ObjectCodec
from ..core.csv_lines import CsvReader
from ..core.decode import RecordDecoder
from ..core.envelopes import EnvelopeReader
from ..core.errors import RecordRefused, SettingsError
from ..core.formats import Avro, Csv, Json, JsonSchema, Protobuf
from ..core.many_events import ManyDecoder, json_elements, single
from ..core.record_keys import ReadKey
from ..core.routed import RoutedDecoder
from ..core.stream import Stream

if TYPE_CHECKING:
    from ..schema_registry.registry import SchemaRegistry


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


def decoder_of(stream: Stream, naive_timestamps: NaiveTimestamps, registry: Callable[[], SchemaRegistry]) -> Decoder:
    """A new decoder.

    Raises:
        SettingsError: the format needs a package or a setting that is missing.
    """
    decoder: Decoder
    if stream.route is not None:
        decoders = [_event_decoder(part, JsonCodec(), naive_timestamps) for part in stream.tables]
        decoder = RoutedDecoder(stream, stream.route, decoders)
    else:
        decoder = _event_decoder(stream, _codec(stream, registry), naive_timestamps)
    if isinstance(stream.format, JsonSchema):
        from ..schema_registry.registry import payload_of

        if not stream.envelope:
            return UnwrappedDecoder(decoder, payload_of)
        text = EnvelopeReader(stream).text
        return UnwrappedDecoder(decoder, lambda value: text(payload_of(value)))
    if stream.envelope and isinstance(stream.format, Json):
        return UnwrappedDecoder(decoder, EnvelopeReader(stream).text)
    return decoder


def key_reader(stream: Stream, registry: Callable[[], SchemaRegistry]) -> ReadKey | None:
    """Reads record keys in the stream's format. None: the format has none, or nothing reads keys."""
    if not stream.deletes:
        return None
    if isinstance(stream.format, JsonSchema):
        from ..schema_registry.registry import payload_of

        return lambda key: msgspec.Raw(payload_of(key))
    if isinstance(stream.format, Protobuf) and stream.format.key is not None:
        from ..schema_registry.protobuf import ProtobufReader

        return ProtobufReader(stream.format.key, stream.shape.members).read
    if isinstance(stream.format, Avro):
        with _packages(stream):
            from ..schema_registry.avro import AvroReader

            return AvroReader(registry(), f"{stream.topic}-key").read
    return None


@contextmanager
def _packages(stream: Stream) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"stream {stream.name}: format=Avro() needs a package that is not installed ({error.name}): pip install"
            ' "ingest-pipeline[avro]"'
        ) from None


def _event_decoder(stream: Stream, codec: Codec, naive_timestamps: NaiveTimestamps) -> RecordDecoder:
    if not stream.many:
        return RecordDecoder(stream, codec, naive_timestamps)
    return ManyDecoder(stream, codec, naive_timestamps, json_elements if codec.is_json else single)


def _codec(stream: Stream, registry: Callable[[], SchemaRegistry]) -> Codec:
    if isinstance(stream.format, Csv):
        return ObjectCodec(CsvReader(stream.fields, stream.format).read, strict=False)
    if isinstance(stream.format, Protobuf):
        from ..schema_registry.protobuf import ProtobufReader

        return ObjectCodec(ProtobufReader(stream.format.message, stream.shape.members).read)
    if isinstance(stream.format, Avro):
        with _packages(stream):
            from ..schema_registry.avro import AvroEventReader

            reader = AvroEventReader(registry(), stream)
        if not stream.envelope:
            return ObjectCodec(reader.read, reader.origin, read_many=reader.read_many)
        mapping = EnvelopeReader(stream).mapping
        return ObjectCodec(lambda value: mapping(reader.read(value)), reader.origin)
    return JsonCodec()
