"""A topic's newest records, and the fields of an event that reads them. No consumer group notices."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import msgspec

from ..core.errors import KafkaUnavailable, SettingsError
from ..core.inference import Inferred, decode_object, infer
from ..core.inferred_text import AVRO, JSON_SCHEMA
from ..core.json_hints import explained
from ..core.reasons import UNDECODABLE
from ..core.record import NextOffset
from ..core.start import unanswered_words
from ..core.stream import Stream
from .clients import Clients
from .peek import read_between


class _Unknown(msgspec.Struct):
    """The event of a topic whose fields are not known yet."""


@dataclass(frozen=True, slots=True)
class Sample:
    """How a topic's records look.

    Attributes:
        record_format: AVRO or JSON_SCHEMA for records with schema ids, "" for JSON.
        unreadable: records other than a JSON object.
        schema: of Avro records, as "schema id 3 of readings-value".
        unanswered: partitions whose leader did not answer.
    """

    inferred: Inferred
    record_format: str = ""
    records: int = 0
    unreadable: int = 0
    schema: str = ""
    unanswered: list[int] = field(default_factory=list)


def unknown_stream(topic: str) -> Stream:
    """A stream to read a topic with."""
    return Stream("stream_from_topic", _Unknown, topic=topic)


def sample_of(clients: Clients, stream: Stream, records: int) -> Sample:
    """Look at up to `records` of the newest records.

    Raises:
        SettingsError: the topic has no record with a value, or the records are of a format without fields of its own.
        KafkaUnavailable, TopicMissing, SchemaRegistryUnavailable: a server does not answer.
    """
    values, unanswered = newest_values(clients, stream, records)
    if not values and unanswered:
        raise KafkaUnavailable(
            f"topic {stream.topic} has no record with a value where a leader answers; {unanswered_words(unanswered)}"
        )
    if not values:
        raise SettingsError(f"topic {stream.topic} has no record with a value yet")
    with_ids = [value for value in values if value.startswith(b"\0")]
    by_registry = len(with_ids) * 2 > len(values)
    sample = _by_registry(clients, stream, with_ids) if by_registry else _of_objects(stream, values)
    return replace(sample, unanswered=unanswered)


def newest_values(clients: Clients, stream: Stream, records: int) -> tuple[list[bytes], list[int]]:
    """(the values of the newest records, without tombstones, partitions whose leader did not answer)."""
    topic = clients.topic(stream)
    partitions = range(topic.identity().partitions)
    ends, starts = topic.end_offsets(partitions), topic.start_offsets(partitions)
    share = -(-records // len(partitions))
    stops = {p: end.next_offset for p, end in ends.items() if p in starts}
    begins = {p: NextOffset(max(starts[p].next_offset, stop - share)) for p, stop in stops.items()}
    with closing(clients.source([stream], "")) as source:
        messages = read_between(source, stream.topic, begins, stops, clock=clients.clock)
    values = [value for p in sorted(messages) for message in messages[p] if (value := message.value()) is not None]
    return values, [p for p in partitions if p not in stops]


def _by_registry(clients: Clients, stream: Stream, values: Sequence[bytes]) -> Sample:
    from ..schema_registry.avro_fields import fields_of_schema
    from ..schema_registry.registry import payload_of, prefix_of, schema_id_of

    writer = clients.schema_registry().writer_schema(schema_id_of(max(map(prefix_of, values))), f"{stream.topic}-value")
    if writer.kind == "AVRO":
        return Sample(fields_of_schema(writer), AVRO, len(values), schema=str(writer))
    if writer.kind == "JSON":
        return _of_objects(stream, [payload_of(value) for value in values], JSON_SCHEMA)
    raise SettingsError(
        f"topic {stream.topic}: {writer} is Protobuf, whose fields come from its generated class: declare a Struct with"
        " the names of the .proto file and format=Protobuf(reading_pb2.Reading)"
    )


def _of_objects(stream: Stream, values: Sequence[bytes], record_format: str = "") -> Sample:
    objects, first_reason = [], ""
    for value in values:
        try:
            objects.append(decode_object(value))
        except UNDECODABLE as error:
            first_reason = first_reason or explained(str(error), value)
    if not objects:
        raise SettingsError(f"topic {stream.topic}: no record of {len(values):,} is a JSON object. {first_reason}")
    return Sample(infer(objects), record_format, len(values), len(values) - len(objects))
