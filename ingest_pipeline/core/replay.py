"""Reading a range of one partition again, beside the live drain: what is missing is stored, nothing else is touched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .backoff import Backoff
from .batch import BatchLimits, BatchReader
from .errors import DataLoss, EnvironmentFault
from .ledger import Replayed
from .ports import Clock, ReplayStore, Source
from .record import Batch, Message, NextOffset, Position
from .rows import Decode, RecordRules, decode_batch


@dataclass(frozen=True, slots=True)
class Range:
    """Offsets `start` up to, but not including, `stop` of one partition, and the incarnation they belong to.

    Attributes:
        leader_epoch: of a position at or behind `stop`: no record before it was written under a later one.
    """

    partition: int
    incarnation: int
    start: int
    stop: int
    leader_epoch: int | None = None


def replay(
    source: Source,
    store: ReplayStore,
    decode: Decode,
    rules: RecordRules,
    wanted: Range,
    limits: BatchLimits,
    clock: Clock,
    *,
    retry_seconds: float,
    stop: Callable[[], str | None] = lambda: None,
    verify: Callable[[], None] = lambda: None,
    observe: Callable[[Replayed], None] = lambda replayed: None,
) -> Replayed:
    """Read the range and store what is missing. Never moves a position or a counter.

    Args:
        limits: how much is in hand at a time.
        retry_seconds: how long it bears an EnvironmentFault.
        source: assigned here; its group's commits are not touched.
        stop: a reason to end early.
        verify: called between reading and storing; raises when what was read may be another topic's.
        observe: called after each batch with the sum so far.

    Raises:
        DataLoss: the log does not hold the range any more, or holds other records there.
        EnvironmentFault (after retry_seconds), StopStream: what was stored before stays; a second replay finds it
            present.
    """
    total, next_offset = Replayed(), wanted.start
    source.assign({wanted.partition: NextOffset(wanted.start)})
    reader = BatchReader(source, limits, clock)
    while next_offset < wanted.stop and stop() is None:
        if (taken := reader.read()) is None:
            continue
        read, ends = taken
        end = ends.get(wanted.partition)
        _check_end(end, wanted)
        messages = [message for message in read if message.offset() < wanted.stop]
        reached = _reached(read, end, next_offset)
        behind = min(reached, wanted.stop)
        if behind == next_offset:
            continue
        _check_epochs(messages, wanted)
        verify()
        backoff = Backoff(clock, retry_seconds, stop)
        at = Position(wanted.partition, wanted.incarnation, NextOffset(next_offset))
        batch = decode_batch(messages, {wanted.partition: NextOffset(behind)}, {wanted.partition: at}, decode, rules)
        assert batch is not None, "the place has moved"
        skipped = batch.advances[wanted.partition].skipped
        absent = behind - next_offset - len(messages)
        total += Replayed(skipped=skipped, absent=absent) + (_stored(store, batch, backoff) if messages else Replayed())
        next_offset = behind
        observe(total)
    return total


def _stored(store: ReplayStore, batch: Batch, backoff: Backoff) -> Replayed:
    """Tried again as often as the backoff allows: what a first try may have committed is present then."""
    while True:
        try:
            return store.store(batch)
        except EnvironmentFault as fault:
            backoff.wait(fault)


def _check_end(end: NextOffset | None, wanted: Range) -> None:
    """A range was ingested, so the log reached its end once; else its rest would be waited for. Raises DataLoss."""
    if end is not None and end.next_offset < wanted.stop:
        raise DataLoss(
            f"partition {wanted.partition}: the log ends at {end.next_offset} now, before offset {wanted.stop - 1} of"
            " the range: it was cut. What was stored before stays",
            partition=wanted.partition,
            offset=end.next_offset,
        )


def _check_epochs(messages: Sequence[Message], wanted: Range) -> None:
    """A log that was cut and regrew shows its new records by their leader epoch. Raises DataLoss."""
    if wanted.leader_epoch is None:
        return
    for message in messages:
        if (message.leader_epoch() or 0) > wanted.leader_epoch:
            raise DataLoss(
                f"partition {wanted.partition}: the record at offset {message.offset()} is another one than was"
                " ingested: the log was cut and regrew. Nothing of it was stored",
                partition=wanted.partition,
                offset=message.offset(),
            )


def _reached(messages: Sequence[Message], end: NextOffset | None, before: int) -> int:
    last = messages[-1].offset() + 1 if messages else before
    return last if end is None else max(last, end.next_offset)
