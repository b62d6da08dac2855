"""Replay as job and CLI ask for it: which offsets are meant, and the run over them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

from ..core.batch import SLICE_SECONDS, BatchLimits
from ..core.clock import SystemClock
from ..core.decode import JsonDecoder
from ..core.errors import DataLoss, KafkaUnavailable, SettingsError
from ..core.ledger import Replayed
from ..core.ports import Topic
from ..core.record import StoredPosition
from ..core.replay import Range, replay
from ..core.start import check_identity, unanswered_words
from ..core.stream import Stream
from ..core.timestamps import kafka_time
from .clients import Clients
from .limits import record_rules


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """What to replay: offsets of one partition, or times of one or all.

    Attributes:
        partition: None for all; offsets need one.
        from_offset, to_offset: the second one is exclusive.
        from_time, to_time: by the records' Kafka timestamps; the second one is exclusive.
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
            raise SettingsError("offsets are those of one partition: name it")
        try:
            for time in (self.from_time, self.to_time):
                if time is not None:
                    kafka_time(time)
        except ValueError as error:
            raise SettingsError(f"a replay's time is {error}") from None


def ranges(wanted: ReplayRequest, stream: Stream, clients: Clients) -> list[Range]:
    """The offsets meant, below what is ingested now.

    Raises:
        SettingsError: no such partition, or nothing of the range has been ingested yet.
        DataLoss: Kafka does not hold the beginning any more; says what it still has.
    """
    ledger, topic = clients.ledger(stream), clients.topic(stream)
    known = ledger.positions()
    check_identity(topic.identity(), known, topic.name, stream.name)
    if wanted.partition is not None and wanted.partition not in known:
        raise SettingsError(f"stream {stream.name} has no position for partition {wanted.partition}")
    partitions = sorted(known) if wanted.partition is None else [wanted.partition]
    bounds = _bounds(wanted, topic, partitions)
    lows, highs = topic.start_offsets(partitions), topic.end_offsets(partitions)
    _check_answered(stream, set(partitions) - (bounds.keys() & lows.keys() & highs.keys()))
    found = []
    for partition in partitions:
        at = known[partition]
        start, stop = bounds[partition]
        stop = min(stop, at.next_offset)
        if start < stop:
            low = lows[partition].next_offset
            if wanted.from_time is not None and start == low > at.first_offset:
                start = low - 1  # what stood before may be of that time, too
            _check(stream, at, start, low, highs[partition].next_offset)
            _check_stable(stream, partition, stop, topic, highs[partition].next_offset)
            found.append(Range(partition, at.incarnation, start, stop, at.leader_epoch))
    if not found:
        raise SettingsError(f"stream {stream.name}: nothing of that range has been ingested: the drain comes to it")
    return found


def run_replay(
    wanted: list[Range],
    stream: Stream,
    clients: Clients,
    *,
    stop: Callable[[], str | None] = lambda: None,
    observe: Callable[[Replayed], None] = lambda replayed: None,
) -> Replayed:
    """Replay the ranges one after the other; `observe` gets the sum so far."""
    from ..postgres.replay import MissingRows

    settings = clients.settings.for_stream(stream.name)
    store = MissingRows(clients.database(), stream)
    decode = JsonDecoder(stream, settings.naive_timestamps).decode
    limits = BatchLimits(settings.batch_size, settings.batch_bytes, SLICE_SECONDS)
    rules, clock, total = record_rules(settings, stream), SystemClock(), Replayed()
    with closing(clients.source(stream, clients.ledger(stream).ledger_id())) as source:
        for each in wanted:
            before = total

            def observe_sum(done: Replayed, before: Replayed = before) -> None:
                observe(before + done)

            def verify(each: Range = each) -> None:
                _check_incarnation(each, stream, clients)

            total = before + replay(
                source,
                store,
                decode,
                rules,
                each,
                limits,
                clock,
                retry_seconds=settings.retry_seconds,
                stop=stop,
                verify=verify,
                observe=observe_sum,
            )
    return total


def _check_incarnation(wanted: Range, stream: Stream, clients: Clients) -> None:
    """Is it still the topic that the range belongs to? Raises TopicChanged, DataLoss."""
    known, topic = clients.ledger(stream).positions(), clients.topic(stream)
    check_identity(topic.identity(), known, topic.name, stream.name)
    at = known.get(wanted.partition)
    if at is None or at.incarnation != wanted.incarnation:
        raise DataLoss(
            f"stream {stream.name}, partition {wanted.partition} began anew meanwhile: the rest of the range was not"
            " replayed",
            stream=stream.name,
            partition=wanted.partition,
        )


def _bounds(wanted: ReplayRequest, topic: Topic, partitions: list[int]) -> dict[int, tuple[int, int]]:
    if wanted.from_offset is not None and wanted.to_offset is not None:
        return {partition: (wanted.from_offset, wanted.to_offset) for partition in partitions}
    assert wanted.from_time is not None and wanted.to_time is not None
    first, last = (
        topic.offsets_at(partitions, int(time.timestamp() * 1000)) for time in (wanted.from_time, wanted.to_time)
    )
    return {p: (first[p].next_offset, last[p].next_offset) for p in first.keys() & last.keys()}


def _check_answered(stream: Stream, silent: Collection[int]) -> None:
    if silent:
        raise KafkaUnavailable(f"stream {stream.name}: {unanswered_words(silent)}; replay it later", stream=stream.name)


def _check_stable(stream: Stream, partition: int, stop: int, topic: Topic, end: int) -> None:
    """A position beyond the end was stored by a read_uncommitted reader: not all of it can be read again now."""
    high = topic.high_watermarks([partition]).get(partition) if stop > end else None
    if high is not None and stop <= high.next_offset:
        raise KafkaUnavailable(
            f"stream {stream.name}, partition {partition}: an open transaction holds back the offsets from {end} on."
            f" Replay up to offset {end}, or later",
            stream=stream.name,
            partition=partition,
            offset=end,
        )


def _check(stream: Stream, at: StoredPosition, start: int, low: int, high: int) -> None:
    if start < low:
        raise DataLoss(
            f"stream {stream.name}, partition {at.partition}: Kafka holds offsets {low} to {high - 1}; {start} is gone."
            f" Replay from offset {low}",
            stream=stream.name,
            partition=at.partition,
            offset=start,
        )
