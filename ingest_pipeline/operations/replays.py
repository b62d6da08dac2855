"""A replay for job and CLI: the offsets to replay, and the run over the ranges."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from ..core.batch import SLICE_SECONDS, BatchLimits
from ..core.errors import DataLoss, KafkaUnavailable, SettingsError
from ..core.ledger import Replayed
from ..core.ports import Topic
from ..core.replay import Range, replay
from ..core.start import check_identity, unanswered_words
from ..core.stream import Stream
from ..core.timestamps import kafka_time
from .stream_context import StreamContext


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """A range to replay: offsets of a partition, or times of a partition or of all.

    Attributes:
        partition: None: all. Offsets need a partition.
        from_offset, to_offset: `to_offset` is exclusive.
        from_time, to_time: by the records' Kafka timestamps. `to_time` is exclusive.
    """

    partition: int | None = None
    from_offset: int | None = None
    to_offset: int | None = None
    from_time: datetime | None = None
    to_time: datetime | None = None

    def __post_init__(self) -> None:
        by_offset = self.from_offset is not None and self.to_offset is not None
        by_time = self.from_time is not None and self.to_time is not None
        others = (self.from_time, self.to_time) if by_offset else (self.from_offset, self.to_offset)
        if by_offset == by_time or any(other is not None for other in others):
            raise SettingsError("a replay needs a first and a last offset, or a first and a last time")
        if by_offset and self.partition is None:
            raise SettingsError("offsets belong to one partition: name the partition")
        try:
            for time in (self.from_time, self.to_time):
                if time is not None:
                    kafka_time(time)
        except ValueError as error:
            raise SettingsError(f"a replay's time is {error}") from None
        bounds: tuple[Any, Any] = (self.from_offset, self.to_offset) if by_offset else (self.from_time, self.to_time)
        if bounds[0] >= bounds[1]:
            raise SettingsError(f"the range is empty or reversed: it begins at {bounds[0]} and ends before {bounds[1]}")


def ranges(request: ReplayRequest, context: StreamContext) -> list[Range]:
    """The offsets to replay, up to the positions.

    Raises:
        SettingsError: the table has no Kafka coordinates, the stream deletes rows, the partition does not exist, or
            nothing of the range has been ingested yet.
        DataLoss: Kafka no longer holds the beginning. The message names the remaining offsets.
    """
    if not context.stream.coordinates:
        raise SettingsError(
            f"stream {context.stream.name} has coordinates=False: a replay tells the stored records from the missing"
            " ones by the Kafka coordinates, which the table does not have. `ingest dead-letters redrive` works"
        )
    stream, topic, positions = context.stream, context.topic, context.ledger.positions()
    if stream.deletes:
        raise SettingsError(
            f"stream {stream.name} deletes rows, and a replay could bring a deleted row back: to fill the table again,"
            " declare a stream of another name and table, which reads the topic from the start"
        )
    check_identity(topic.identity(), positions, topic.name, stream.name)
    if request.partition is not None and request.partition not in positions:
        raise SettingsError(f"stream {stream.name} has no position for partition {request.partition}")
    partitions = sorted(positions) if request.partition is None else [request.partition]
    bounds = _bounds(request, topic, partitions)
    lows, highs = topic.start_offsets(partitions), topic.end_offsets(partitions)
    if silent := set(partitions) - (bounds.keys() & lows.keys() & highs.keys()):
        words = f"{unanswered_words(silent)}. Replay the range later"
        raise KafkaUnavailable(f"stream {stream.name}: {words}", stream=stream.name)
    chosen = []
    for partition in partitions:
        position = positions[partition]
        start, stop = bounds[partition]
        stop = min(stop, position.next_offset)
        if start < stop:
            low, high = lows[partition].next_offset, highs[partition].next_offset
            if request.from_time is not None and start == low > position.first_offset:
                start = low - 1  # a deleted record may be of that time, too
            _check_held(stream, partition, start, low=low, high=high)
            _check_stable(stream, partition, stop, topic, end=high)
            chosen.append(Range(partition, position.incarnation, start, stop, leader_epoch=position.leader_epoch))
    if not chosen:
        raise SettingsError(
            f"stream {stream.name}: nothing of that range has been ingested yet. The stream's runs will read it"
        )
    return chosen


def run_replay(
    chosen: list[Range],
    context: StreamContext,
    *,
    stop: Callable[[], str | None] = lambda: None,
    observe: Callable[[Replayed], None] = lambda replayed: None,
) -> Replayed:
    """Replay the ranges in order. `observe` receives the sum so far."""
    stream, clients, settings, total = context.stream, context.clients, context.settings, Replayed()

    def observe_sum(done: Replayed) -> None:
        observe(total + done)

    store, decode = clients.missing_rows(stream), clients.decoder(stream).decode
    with closing(clients.source([stream], context.ledger.ledger_id())) as source:
        for offsets in chosen:
            total += replay(
                source,
                stream.topic,
                store,
                decode=decode,
                rules=clients.record_rules(stream),
                offsets=offsets,
                limits=BatchLimits(settings.batch_size, settings.batch_bytes, SLICE_SECONDS),
                clock=clients.clock,
                retry_seconds=context.job_settings.retry_seconds,
                stop=stop,
                verify=partial(_check_incarnation, offsets, context),
                observe=observe_sum,
            )
    return total


def _check_incarnation(offsets: Range, context: StreamContext) -> None:
    """Raises TopicChanged or DataLoss when the range belongs to an earlier topic."""
    stream, topic, positions = context.stream, context.topic, context.ledger.positions()
    check_identity(topic.identity(), positions, topic.name, stream.name)
    position = positions.get(offsets.partition)
    if position is None or position.incarnation != offsets.incarnation:
        raise DataLoss(
            f"stream {stream.name}, partition {offsets.partition} began again meanwhile. The rest of the range was not"
            " replayed",
            stream=stream.name,
            partition=offsets.partition,
        )


def _bounds(request: ReplayRequest, topic: Topic, partitions: list[int]) -> dict[int, tuple[int, int]]:
    if request.from_offset is not None and request.to_offset is not None:
        return {partition: (request.from_offset, request.to_offset) for partition in partitions}
    assert request.from_time is not None and request.to_time is not None
    first, last = (
        topic.offsets_at(partitions, int(time.timestamp() * 1000)) for time in (request.from_time, request.to_time)
    )
    return {p: (first[p].next_offset, last[p].next_offset) for p in first.keys() & last.keys()}


def _check_stable(stream: Stream, partition: int, stop: int, topic: Topic, *, end: int) -> None:
    """Raises KafkaUnavailable while an open transaction holds back the range's last records, which a read_uncommitted
    reader has stored."""
    high = topic.high_watermarks([partition]).get(partition) if stop > end else None
    if high is not None and stop <= high.next_offset:
        raise KafkaUnavailable(
            f"stream {stream.name}, partition {partition}: an open transaction holds back the offsets from {end} on."
            f" Replay up to offset {end}, or later",
            stream=stream.name,
            partition=partition,
            offset=end,
        )


def _check_held(stream: Stream, partition: int, start: int, *, low: int, high: int) -> None:
    if start < low:
        raise DataLoss(
            f"stream {stream.name}, partition {partition}: Kafka holds offsets {low} to {high - 1}, and offset {start}"
            f" is gone. Replay from offset {low}",
            stream=stream.name,
            partition=partition,
            offset=start,
        )
