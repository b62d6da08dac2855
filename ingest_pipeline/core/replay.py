"""Replay: read a range of one partition again, beside the live drain, and store only missing rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .backoff import Backoff
from .batch import BatchLimits, OpenBatch
from .errors import DataLoss, EnvironmentFault, IngestError
from .ledger import Replayed
from .ledger_ports import ReplayStore
from .ports import Clock, Source
from .record import Batch, Chunk, Message, NextOffset, Position
from .rows import Decode, RecordRules, decode_batch


@dataclass(frozen=True, slots=True)
class Range:
    """Offsets of one partition under one incarnation, from `start` up to but not including `stop`.

    Attributes:
        leader_epoch: of a position at or behind `stop`. No record of the range has a later leader epoch.
    """

    partition: int
    incarnation: int
    start: int
    stop: int
    leader_epoch: int | None = None

    def __str__(self) -> str:
        return f"partition {self.partition}: offsets {self.start} to {self.stop - 1}"

    def __len__(self) -> int:
        return self.stop - self.start


def replay(
    source: Source,
    topic: str,
    store: ReplayStore,
    *,
    decode: Decode,
    rules: RecordRules,
    offsets: Range,
    limits: BatchLimits,
    clock: Clock,
    retry_seconds: float,
    stop: Callable[[], str | None] = lambda: None,
    verify: Callable[[], None] = lambda: None,
    observe: Callable[[Replayed], None] = lambda replayed: None,
) -> Replayed:
    """Read the range and store missing rows. Positions, counters and the group's offsets stay as they are.

    Args:
        verify: called between reading and storing. Raises when the records may belong to another topic.
        observe: called after each batch with the sum so far.

    Raises:
        DataLoss: the log no longer holds the range, or holds other records there.
        EnvironmentFault (after retry_seconds), StopStream: rows stored before the error stay. A second replay counts
            these rows as present.
    """
    total, next_offset = Replayed(), offsets.start
    source.assign(topic, {offsets.partition: NextOffset(offsets.start)})
    open_batch = OpenBatch(limits, clock)
    failure: IngestError | None = None
    while next_offset < offsets.stop and stop() is None:
        if failure is None and not open_batch.due:
            failure = _read(source, topic, open_batch)
            continue
        if failure is not None and not open_batch.is_open:
            raise failure
        records, ends = open_batch.take()
        end = ends.get(offsets.partition)
        _check_end(end, offsets)
        messages = [message for message in records if message.offset() < offsets.stop]
        after = min(_reached(records, end, next_offset), offsets.stop)
        if after == next_offset:
            continue
        _check_epochs(messages, offsets)
        verify()
        backoff = Backoff(clock, retry_seconds, stop)
        position = Position(offsets.partition, offsets.incarnation, NextOffset(next_offset))
        batch = decode_batch(
            messages, {offsets.partition: NextOffset(after)}, {offsets.partition: position}, decode=decode, rules=rules
        )
        assert batch is not None, "the next offset has advanced"
        skipped = batch.advances[offsets.partition].skipped
        absent = after - next_offset - len(messages)
        total += Replayed(skipped=skipped, absent=absent) + (_stored(store, batch, backoff) if messages else Replayed())
        next_offset = after
        observe(total)
    return total


def _read(source: Source, topic: str, open_batch: OpenBatch) -> IngestError | None:
    """Add the records of a read. Returns the error behind them."""
    room = open_batch.room
    chunk = source.read(room, open_batch.wait_seconds).get(topic, Chunk())
    open_batch.add(chunk, more=len(chunk.messages) >= room)
    return chunk.error


def _stored(store: ReplayStore, batch: Batch, backoff: Backoff) -> Replayed:
    """Retry until the backoff ends. Rows that an earlier try committed count as present."""
    while True:
        try:
            return store.store(batch)
        except EnvironmentFault as fault:
            backoff.wait(fault)


def _check_end(end: NextOffset | None, offsets: Range) -> None:
    """Raise DataLoss if the log ends inside the range. The rest of the range would never arrive."""
    if end is not None and end.next_offset < offsets.stop:
        raise DataLoss(
            f"partition {offsets.partition}: the log ends at {end.next_offset} now, before offset {offsets.stop - 1} of"
            " the range: it was cut. What was stored before stays",
            partition=offsets.partition,
            offset=end.next_offset,
        )


def _check_epochs(messages: Sequence[Message], offsets: Range) -> None:
    """Raise DataLoss for a record with a later leader epoch. The log was truncated and has grown again."""
    if offsets.leader_epoch is None:
        return
    for message in messages:
        if (message.leader_epoch() or 0) > offsets.leader_epoch:
            raise DataLoss(
                f"partition {offsets.partition}: the record at offset {message.offset()} is another one than was"
                " ingested: the log was cut and regrew. Nothing of it was stored",
                partition=offsets.partition,
                offset=message.offset(),
            )


def _reached(messages: Sequence[Message], end: NextOffset | None, before: int) -> int:
    last = messages[-1].offset() + 1 if messages else before
    return last if end is None else max(last, end.next_offset)
