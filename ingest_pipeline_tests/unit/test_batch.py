"""When a batch is cut, and what is carried to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from ingest_pipeline.core.batch import SLICE_SECONDS, BatchLimits, BatchReader
from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.record import Chunk, Message, NextOffset, Position
from ingest_pipeline.core.rows import RecordRules, decode_batch
from ingest_pipeline.testing import MemoryBroker, MemorySource, SettableClock
from ingest_pipeline.testing.log import MemoryMessage
from ingest_pipeline_tests.samples import READING, STEADY, good, make_batch, message, messages, tombstone

Taken = tuple[list[Message], dict[int, NextOffset], float]


class Scripted:
    """A source that hands out these chunks whatever is asked, as `consume` may, then nothing."""

    def __init__(self, clock: SettableClock, *chunks: Chunk) -> None:
        self._clock, self._chunks, self.asked = clock, list(chunks), list[int]()

    def assign(self, offsets: Mapping[int, NextOffset]) -> None: ...
    def acknowledge(self, offsets: Mapping[int, NextOffset]) -> None: ...
    def close(self) -> None: ...

    def read(self, max_records: int, timeout_seconds: float) -> Chunk:
        self.asked.append(max_records)
        if self._chunks:
            return self._chunks.pop(0)
        self._clock.advance(timeout_seconds)
        return Chunk()


def sized(offset: int, size: int) -> MemoryMessage:
    return MemoryMessage(0, offset, 0, b"x" * size)


def reader(clock: SettableClock, *chunks: Chunk, records: int = 1000, size: int = 1 << 20) -> BatchReader:
    return BatchReader(Scripted(clock, *chunks), BatchLimits(records, size, 1.0), clock)


def offsets(taken: Taken | None) -> list[int]:
    assert taken is not None
    return [found.offset() for found in taken[0]]


def test_a_batch_is_cut_at_its_count_and_the_rest_is_carried() -> None:
    found = reader(SettableClock(), Chunk(messages(0, range(5))), records=2)
    assert [offsets(found.read()) for _ in range(2)] == [[0, 1], [2, 3]]
    assert found.read() is None  # one record alone waits for its time-out


def test_a_batch_is_cut_at_its_bytes() -> None:
    found = reader(SettableClock(), Chunk([sized(offset, 400) for offset in range(5)]), size=1000)
    assert [offsets(found.read()) for _ in range(2)] == [[0, 1], [2, 3]]


def test_large_keys_count_too() -> None:
    keyed = [MemoryMessage(0, offset, 0, b"x" * 10, b"k" * 390) for offset in range(5)]
    found = reader(SettableClock(), Chunk(keyed), size=1000)
    assert [offsets(found.read()) for _ in range(2)] == [[0, 1], [2, 3]]


def test_a_record_larger_than_the_limit_is_a_batch_of_its_own() -> None:
    found = reader(SettableClock(), Chunk([sized(0, 10), sized(1, 5000), sized(2, 10)]), size=1000)
    assert [offsets(found.read()) for _ in range(2)] == [[0], [1]]


def test_in_a_hurry_one_batch_is_cut_once_all_that_waited_is_read() -> None:
    clock = SettableClock()
    script = [
        Chunk([], {0: NextOffset(5)}),  # where a transaction's marker was thought to be a record
        Chunk(messages(1, [0, 1])),
        Chunk([*messages(1, [2]), *messages(2, [7])]),
        Chunk(messages(1, [3]), {1: NextOffset(4)}),
        Chunk(),
    ]
    found = BatchReader(Scripted(clock, *script), BatchLimits(1000, 1 << 20, 1.0), clock)
    found.expect_backlog({0: 6, 1: 3, 2: 8})
    assert found.read() is not None  # the first end alone
    assert found.read() is None
    assert offsets(found.read()) == [0, 1, 2, 7]
    assert clock.monotonic() == 0
    assert [found.read(), found.read()] == [None, None]  # the next one waits for more
    assert found.take() is not None


def test_where_nothing_waited_the_first_record_is_a_batch() -> None:
    clock = SettableClock()
    found = BatchReader(Scripted(clock, Chunk(messages(0, [4])), Chunk()), BatchLimits(1000, 1 << 20, 1.0), clock)
    found.expect_backlog({})
    assert offsets(found.read()) == [4]


def test_a_batch_is_cut_at_its_time_counted_from_its_first_record() -> None:
    clock = SettableClock()
    source = Scripted(clock, Chunk(), Chunk(messages(0, [0])), Chunk())
    found = BatchReader(source, BatchLimits(1000, 1 << 20, 1.0), clock)
    clock.advance(50)  # idle time does not count
    assert found.read() is None
    assert found.read() is None
    opened_at = clock.monotonic()
    taken = None
    while taken is None:
        taken = found.read()
    assert clock.monotonic() == opened_at + 1.0


def test_the_first_record_ends_the_wait_and_no_wait_is_longer_than_a_slice() -> None:
    clock = SettableClock()
    source = Scripted(clock)
    BatchReader(source, BatchLimits(1000, 1 << 20, 60.0), clock).read()
    assert source.asked == [1]
    assert clock.monotonic() == SLICE_SECONDS


def test_while_records_wait_several_batches_go_together() -> None:
    clock = SettableClock()
    broker = MemoryBroker({"reading": 1})
    for _ in range(47):
        broker.append("reading", 0, good())
    source = MemorySource(broker, "reading", clock)
    source.assign({0: NextOffset(0)})
    found = BatchReader(source, BatchLimits(10, 1 << 20, 1.0, batches_per_commit=3), clock)
    batches = []
    while clock.monotonic() < 5:
        taken = found.read()
        if taken is not None and taken[0]:
            batches.append((len(taken[0]), clock.monotonic()))
    assert [size for size, _ in batches] == [30, 17]
    assert batches[0][1] == 0.0
    assert batches[1][1] < 1.0, "ten of them made the batch due, and what else was there went along"


def test_it_never_waits_for_more_than_a_batch() -> None:
    clock = SettableClock()
    source = Scripted(clock, Chunk(messages(0, [0])), Chunk(messages(0, range(1, 10))), Chunk())
    found = BatchReader(source, BatchLimits(10, 1 << 20, 1.0, batches_per_commit=3), clock)
    assert found.read() is None
    assert found.read() is None  # full, and as many came as were asked for: there may be more
    assert len(offsets(found.read())) == 10
    assert clock.monotonic() == 0.0
    assert source.asked == [1, 9, 10]


def test_what_is_asked_for_follows_the_size_of_records() -> None:
    clock = SettableClock()
    source = Scripted(clock, *(Chunk([sized(offset, 100_000)]) for offset in range(12)))
    found = BatchReader(source, BatchLimits(1000, 1_000_000, 1.0), clock)
    while found.read() is None:
        pass
    assert max(source.asked) <= 100


def test_ends_behind_carried_records_wait_for_them() -> None:
    found = reader(SettableClock(), Chunk(messages(0, range(3)), {0: NextOffset(9)}), records=2)
    first, second = found.read(), found.take()
    assert first is not None and first[1] == {}
    assert second is None  # carried records are not in hand
    assert found.read() is None
    last = found.take()
    assert last is not None and (offsets(last), last[1]) == ([2], {0: NextOffset(9)})


def test_taking_what_is_in_hand_needs_no_limit() -> None:
    found = reader(SettableClock(), Chunk(messages(0, [0, 1])))
    assert found.read() is None
    assert offsets(found.take()) == [0, 1]
    assert found.take() is None


@STEADY
@given(
    st.lists(st.lists(st.integers(0, 900), max_size=8), max_size=12),
    st.integers(1, 10),
    st.integers(1, 2000),
    st.integers(1, 4),
)
def test_every_record_comes_out_once_in_order_and_within_the_limits(
    sizes: list[list[int]], records: int, size: int, batches_per_commit: int
) -> None:
    clock, offset, chunks = SettableClock(), 0, []
    for chunk in sizes:
        chunks.append(Chunk([sized(offset + place, found) for place, found in enumerate(chunk)]))
        offset += len(chunk)
    found = BatchReader(Scripted(clock, *chunks), BatchLimits(records, size, 1.0, batches_per_commit), clock)
    seen: list[int] = []
    for _ in range(offset + len(sizes) + 20):
        taken = found.read()
        if taken is not None:
            assert len(taken[0]) <= records * batches_per_commit
            assert sum(len(one.value() or b"") for one in taken[0]) <= size or len(taken[0]) == 1
            seen += offsets(taken)
    assert seen == list(range(offset))


def positions(*places: int) -> dict[int, Position]:
    return {partition: Position(partition, 1, NextOffset(place)) for partition, place in enumerate(places)}


def test_rows_letters_tombstones_and_moves() -> None:
    records: Sequence[Message] = [message(0, 4), message(0, 6, b"{"), tombstone(0, 7), message(1, 2, epoch=5)]
    batch = make_batch(positions(4, 0), list(records))
    assert [(row[:3], row[4]) for row in batch.rows] == [((1, 0, 4), "0/4"), ((1, 1, 2), "1/2")]
    assert [letter.offset for letter in batch.dead_letters] == [6]
    assert batch.advances[0].expected == 4
    assert (batch.advances[0].resume_at, batch.advances[0].skipped) == (NextOffset(8, 0), 1)
    assert batch.advances[1].resume_at == NextOffset(3, 5)
    assert batch.records == 4


def test_an_end_beyond_the_last_record_moves_the_position_and_an_older_one_does_not() -> None:
    batch = make_batch(positions(0, 5), messages(0, [0, 1]), {0: NextOffset(1, 0), 1: NextOffset(9, 3)})
    assert batch.advances[0].resume_at == NextOffset(2, 0)
    assert (batch.advances[1].expected, batch.advances[1].resume_at) == (5, NextOffset(9, 3))


def test_nothing_moves_at_the_end() -> None:
    assert (
        decode_batch([], {0: NextOffset(5)}, positions(5), decode=JsonDecoder(READING).decode, rules=RecordRules())
        is None
    )


class Stamped(MemoryMessage):
    """A message with this timestamp, of this kind."""

    def __init__(self, offset: int, kind: int, timestamp_ms: int) -> None:
        super().__init__(0, offset, 0, good())
        self._stamp = kind, timestamp_ms

    def timestamp(self) -> tuple[int, int]:
        return self._stamp


def test_the_kafka_timestamp_is_null_where_it_is_no_time() -> None:
    stamps = [(0, 0), (1, 2**62), (2, 946_684_800_001), (1, -2), (1, -1)]
    records: list[Message] = [Stamped(offset, *stamp) for offset, stamp in enumerate(stamps)]
    found = [row[3] for row in make_batch(positions(0), records).rows]
    assert found == [None, None, 1000, (-2 - 946_684_800_000) * 1000, None]


def test_reading_from_the_in_memory_broker() -> None:
    broker, clock = MemoryBroker({"reading": 1}), SettableClock()
    for _ in range(3):
        broker.append("reading", 0, b"x")
    source = MemorySource(broker, "reading", clock)
    source.assign({0: NextOffset(0)})
    found = BatchReader(source, BatchLimits(2, 1000, 1.0), clock)
    seen = []
    for _ in range(10):
        taken = found.read()
        seen += offsets(taken) if taken else []
    assert seen == [0, 1, 2]
