"""Which of a stream's next records would be refused. Reads only: no position and no group offset moves."""

from collections.abc import Mapping
from contextlib import closing

from ..core.batch import SLICE_SECONDS
from ..core.errors import KafkaUnavailable, SettingsError
from ..core.ports import Clock, Source
from ..core.record import Chunk, DeadLetter, Message, NextOffset, Position
from ..core.rows import decode_batch
from .stream_context import StreamContext

_ANSWER_SECONDS = 15.0


def peek(context: StreamContext, records: int) -> tuple[int, list[DeadLetter], list[int]]:
    """Decode up to `records` records of each partition, from the positions on: (how many there are, those that the
    decoder refuses, partitions whose leader did not answer). A refusal by the table shows only when the row is written.

    Raises:
        SettingsError: the stream has no position yet.
        KafkaUnavailable, DataLoss, NotPermitted: the records cannot be read.
    """
    stream, clients = context.stream, context.clients
    stored = context.ledger.positions()
    if not stored:
        raise SettingsError(f"stream {stream.name} has no position yet. Its first run makes one")
    ends = context.topic.end_offsets(list(stored))
    positions = {p: Position(p, row.incarnation, NextOffset(row.next_offset)) for p, row in stored.items()}
    stops = {p: min(row.next_offset + records, ends[p].next_offset) for p, row in stored.items() if p in ends}
    starts = {p: positions[p].resume_at for p in stops}
    with closing(clients.source([stream], context.ledger.ledger_id())) as source:
        read = read_between(source, stream.topic, starts, stops, clock=clients.clock)
    decoder, count, refused = clients.decoder(stream), 0, list[DeadLetter]()
    for messages in read.values():
        batch = decode_batch(
            messages,
            {},
            positions,
            decode=decoder.decode,
            decode_many=decoder.decode_many,
            rules=clients.record_rules(stream),
        )
        if batch is not None:
            count += batch.records
            refused += batch.dead_letters
    return count, refused, [p for p in stored if p not in ends]


def read_between(
    source: Source, topic: str, starts: Mapping[int, NextOffset], stops: Mapping[int, int], *, clock: Clock
) -> dict[int, list[Message]]:
    """Partition → its records from the start up to below the stop. Commits no offset.

    Raises:
        KafkaUnavailable, DataLoss, NotPermitted: the records cannot be read.
    """
    reached = {p: start.next_offset for p, start in starts.items()}
    left = {p for p, offset in reached.items() if offset < stops[p]}
    messages: dict[int, list[Message]] = {p: [] for p in left}
    deadline = clock.monotonic() + _ANSWER_SECONDS
    source.assign(topic, {p: starts[p] for p in left})
    while left:
        chunk = source.read(1000, SLICE_SECONDS).get(topic, Chunk())
        for message in chunk.messages:
            if (p := message.partition()) in left and message.offset() < stops[p]:
                messages[p].append(message)
            reached[p] = message.offset() + 1
        reached |= {p: end.next_offset for p, end in chunk.ends.items()}
        left = {p for p in left if reached[p] < stops[p]}
        if left and chunk.error is not None:
            raise chunk.error
        if left and clock.monotonic() > deadline:
            raise KafkaUnavailable(
                f"topic {topic}: Kafka gave no record of partitions {sorted(left)} for {_ANSWER_SECONDS:.0f} s. Try"
                " again later"
            )
    return messages
