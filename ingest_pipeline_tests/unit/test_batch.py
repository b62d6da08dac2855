"""When a batch ends, and which records the reader carries to the next batch."""

from collections.abc import Callable, Sequence

from hypothesis import given
from hypothesis import strategies as st

from ingest_pipeline.core.batch import SLICE_SECONDS, BatchLimits, OpenBatch
from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.record import Chunk, Message, NextOffset, Position
from ingest_pipeline.core.rows import RecordRules, decode_batch
from ingest_pipeline.testing import MemoryBroker, MemorySource, SettableClock
from ingest_pipeline.testing.log import MemoryMessage
from ingest_pipeline_tests.samples import READING, STEADY, good, make_batch, message, messages, tombstone

Taken = tuple[list[Message], dict[int, NextOffset]]
Read = Callable[[int, float], Chunk]


class Scripted:
    """Reads that return given chunks of any size, as `consume` may, and then nothing."""

    def __init__(self, clock: SettableClock, *chunks: Chunk) -> None:
        self._clock, self._chunks, self.read_sizes = clock, list(chunks), list[int]()

    def __call__(self, max_records: int, timeout_seconds: float) -> Chunk:
        self.read_sizes.append(max_records)
        if self._chunks:
            return self._chunks.pop(0)
        self._clock.advance(timeout_seconds)
        return Chunk()


class Reading:
    """An open batch that is filled as the drain does."""

    def __init__(self, read: Read, limits: BatchLimits, clock: SettableClock) -> None:
        self._read, self.batch = read, OpenBatch(limits, clock)

    def read(self) -> Taken | None:
        """The batch, if it is due after one more read."""
        if not self.batch.due:
            room = self.batch.room
            chunk = self._read(room, self.batch.wait_seconds)
            self.batch.add(chunk, more=len(chunk.messages) >= room)
        return self.batch.take() if self.batch.due else None


def of_broker(broker: MemoryBroker, clock: SettableClock) -> Read:
    """Reads topic "reading" of an in-memory broker."""
    source = MemorySource(broker, clock)
    source.assign("reading", {0: NextOffset(0)})
    return lambda max_records, timeout_seconds: source.read(max_records, timeout_seconds).get("reading", Chunk())


def sized(offset: int, size: int) -> MemoryMessage:
    return MemoryMessage(0, offset, 0, b"x" * size)


def reader(clock: SettableClock, *chunks: Chunk, records: int = 1000, size: int = 1 << 20) -> Reading:
    return Reading(Scripted(clock, *chunks), BatchLimits(records, size, 1.0), clock)


def offsets(taken: Taken | None) -> list[int]:
    assert taken is not None
    return [message.offset() for message in taken[0]]


def test_a_batch_ends_at_its_count_and_the_rest_is_carried() -> None:
    reading = reader(SettableClock(), Chunk(messages(0, range(5))), records=2)
    assert [offsets(reading.read()) for _ in range(2)] == [[0, 1], [2, 3]]
    assert reading.read() is None  # one record alone waits for its time-out


def test_a_batch_ends_at_its_bytes() -> None:
    reading = reader(SettableClock(), Chunk([sized(offset, 400) for offset in range(5)]), size=1000)
    assert [offsets(reading.read()) for _ in range(2)] == [[0, 1], [2, 3]]


def test_large_keys_count_towards_the_bytes() -> None:
    keyed = [MemoryMessage(0, offset, 0, b"x" * 10, key=b"k" * 390) for offset in range(5)]
    reading = reader(SettableClock(), Chunk(keyed), size=1000)
    assert [offsets(reading.read()) for _ in range(2)] == [[0, 1], [2, 3]]


def test_a_record_above_the_byte_limit_makes_its_own_batch() -> None:
    reading = reader(SettableClock(), Chunk([sized(0, 10), sized(1, 5000), sized(2, 10)]), size=1000)
    assert [offsets(reading.read()) for _ in range(2)] == [[0], [1]]


def test_with_a_backlog_the_first_batch_ends_when_the_backlog_is_read() -> None:
    clock = SettableClock()
    script = [
        Chunk([], {0: NextOffset(5)}),  # the backlog's last offset is a transaction marker
        Chunk(messages(1, [0, 1])),
        Chunk([*messages(1, [2]), *messages(2, [7])]),
        Chunk(messages(1, [3]), {1: NextOffset(4)}),
        Chunk(),
    ]
    reading = Reading(Scripted(clock, *script), BatchLimits(1000, 1 << 20, 1.0), clock)
    reading.batch.expect_backlog({0: 6, 1: 3, 2: 8})
    assert reading.read() is not None  # the first end alone
    assert reading.read() is None
    assert offsets(reading.read()) == [0, 1, 2, 7]
    assert clock.monotonic() == 0
    assert [reading.read(), reading.read()] == [None, None]  # the next batch waits for more
    assert reading.batch.take() != ([], {})


def test_with_an_empty_backlog_the_first_record_is_a_batch() -> None:
    clock = SettableClock()
    reading = Reading(Scripted(clock, Chunk(messages(0, [4])), Chunk()), BatchLimits(1000, 1 << 20, 1.0), clock)
    reading.batch.expect_backlog({})
    assert offsets(reading.read()) == [4]


def test_the_timeout_of_a_batch_starts_with_its_first_record() -> None:
    clock = SettableClock()
    source = Scripted(clock, Chunk(), Chunk(messages(0, [0])), Chunk())
    reading = Reading(source, BatchLimits(1000, 1 << 20, 1.0), clock)
    clock.advance(50)  # idle time does not count
    assert reading.read() is None
    assert reading.read() is None
    opened_at = clock.monotonic()
    taken = None
    while taken is None:
        taken = reading.read()
    assert clock.monotonic() == opened_at + 1.0


def test_a_read_waits_for_one_record_and_at_most_a_slice() -> None:
    clock = SettableClock()
    source = Scripted(clock)
    Reading(source, BatchLimits(1000, 1 << 20, 60.0), clock).read()
    assert source.read_sizes == [1]
    assert clock.monotonic() == SLICE_SECONDS


def test_with_a_backlog_several_batches_share_a_commit() -> None:
    clock = SettableClock()
    broker = MemoryBroker({"reading": 1})
    for _ in range(47):
        broker.append("reading", 0, good())
    read = of_broker(broker, clock)
    reading = Reading(read, BatchLimits(10, 1 << 20, 1.0, batches_per_commit=3), clock)
    batches = []
    while clock.monotonic() < 5:
        taken = reading.read()
        if taken is not None and taken[0]:
            batches.append((len(taken[0]), clock.monotonic()))
    assert [size for size, _ in batches] == [30, 17]
    assert batches[0][1] == 0.0
    assert batches[1][1] < 1.0, "ten records made the batch due, and the other waiting records joined it"


def test_a_full_batch_does_not_wait_for_more_records() -> None:
    clock = SettableClock()
    source = Scripted(clock, Chunk(messages(0, [0])), Chunk(messages(0, range(1, 10))), Chunk())
    reading = Reading(source, BatchLimits(10, 1 << 20, 1.0, batches_per_commit=3), clock)
    assert reading.read() is None
    assert reading.read() is None  # full, but the read returned its maximum, so more records may wait
    assert len(offsets(reading.read())) == 10
    assert clock.monotonic() == 0.0
    assert source.read_sizes == [1, 9, 10]


def test_the_size_of_a_read_follows_the_size_of_records() -> None:
    clock = SettableClock()
    source = Scripted(clock, *(Chunk([sized(offset, 100_000)]) for offset in range(12)))
    reading = Reading(source, BatchLimits(1000, 1_000_000, 1.0), clock)
    while reading.read() is None:
        pass
    assert max(source.read_sizes) <= 100


def test_ends_stay_behind_carried_records() -> None:
    reading = reader(SettableClock(), Chunk(messages(0, range(3)), {0: NextOffset(9)}), records=2)
    first, second = reading.read(), reading.batch.take()
    assert first is not None and first[1] == {}
    assert (offsets(second), second[1]) == ([2], {0: NextOffset(9)})


def test_take_returns_records_below_every_limit() -> None:
    reading = reader(SettableClock(), Chunk(messages(0, [0, 1])))
    assert reading.read() is None
    assert offsets(reading.batch.take()) == [0, 1]
    assert reading.batch.take() == ([], {})


@STEADY
@given(
    st.lists(st.lists(st.integers(0, 900), max_size=8), max_size=12),
    st.integers(1, 10),
    st.integers(1, 2000),
    st.integers(1, 4),
)
def test_batches_hold_every_record_once_in_order_and_within_the_limits(
    sizes: list[list[int]], records: int, size: int, batches_per_commit: int
) -> None:
    clock, offset, chunks = SettableClock(), 0, []
    for chunk in sizes:
        chunks.append(Chunk([sized(offset + index, length) for index, length in enumerate(chunk)]))
        offset += len(chunk)
    reading = Reading(Scripted(clock, *chunks), BatchLimits(records, size, 1.0, batches_per_commit), clock)
    seen: list[int] = []
    for _ in range(offset + len(sizes) + 20):
        taken = reading.read()
        if taken is not None:
            assert len(taken[0]) <= records * batches_per_commit
            assert sum(len(message.value() or b"") for message in taken[0]) <= size or len(taken[0]) == 1
            seen += offsets(taken)
    assert seen == list(range(offset))


def positions(*next_offsets: int) -> dict[int, Position]:
    return {partition: Position(partition, 1, NextOffset(offset)) for partition, offset in enumerate(next_offsets)}


def test_a_batch_holds_rows_dead_letters_tombstones_and_advances() -> None:
    records: Sequence[Message] = [message(0, 4), message(0, 6, b"{"), tombstone(0, 7), message(1, 2, epoch=5)]
    batch = make_batch(positions(4, 0), list(records))
    assert [(row[:3], row[4]) for row in batch.rows] == [((1, 0, 4), "0/4"), ((1, 1, 2), "1/2")]
    assert [letter.offset for letter in batch.dead_letters] == [6]
    assert batch.advances[0].expected == 4
    assert (batch.advances[0].resume_at, batch.advances[0].skipped) == (NextOffset(8, 0), 1)
    assert batch.advances[1].resume_at == NextOffset(3, 5)
    assert batch.records == 4


def test_only_an_end_beyond_the_last_record_advances_the_position() -> None:
    batch = make_batch(positions(0, 5), messages(0, [0, 1]), {0: NextOffset(1, 0), 1: NextOffset(9, 3)})
    assert batch.advances[0].resume_at == NextOffset(2, 0)
    assert (batch.advances[1].expected, batch.advances[1].resume_at) == (5, NextOffset(9, 3))


def test_no_position_advances_at_the_end() -> None:
    assert (
        decode_batch([], {0: NextOffset(5)}, positions(5), decode=JsonDecoder(READING).decode, rules=RecordRules())
        is None
    )
