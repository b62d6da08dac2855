"""Several streams in one drain: one stream's trouble leaves the others alone."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

import pytest

from ingest_pipeline import Stream
from ingest_pipeline.core.batch import BatchLimits
from ingest_pipeline.core.dead_letter_limit import LetterLimits
from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.drain import Drain, EndReasons, RunLimits
from ingest_pipeline.core.end_reasons import EndReason
from ingest_pipeline.core.errors import (
    DataLoss,
    DeadLetterLimit,
    IngestError,
    SchemaRegistryUnavailable,
    TableBusy,
    TopicChanged,
)
from ingest_pipeline.core.fair_share import FIRST_RECORDS
from ingest_pipeline.core.lane import Lane, Opening
from ingest_pipeline.core.ledger import Holder
from ingest_pipeline.core.progress import Progress
from ingest_pipeline.core.record import Batch, CommitResult
from ingest_pipeline.core.start import StartPolicy, begin
from ingest_pipeline.testing import (
    Fault,
    InlineExecutor,
    MemoryBroker,
    MemoryDatabase,
    MemoryLedger,
    MemoryLedgerSession,
    MemorySource,
    MemoryTopic,
    MemoryWritingConnection,
    SettableClock,
)
from ingest_pipeline_tests.samples import READING, good

NAMES = ("rain", "snow", "wind")
LIMITS = RunLimits(max_seconds=600, idle_seconds=30, max_batches=0, retry_seconds=60)


class Weather:
    """Streams rain, snow and wind on the fakes, drained by run "mine"."""

    def __init__(self, names: Sequence[str] = NAMES, limits: RunLimits = LIMITS, batch_bytes: int = 1 << 20) -> None:
        self.clock = SettableClock()
        self.streams = {name: Stream(name, READING.event, job="weather") for name in names}
        self.broker = MemoryBroker(dict.fromkeys(names, 1))
        self.database = MemoryDatabase(self.clock)
        self.ledgers = {name: MemoryLedger(self.database, stream) for name, stream in self.streams.items()}
        for name, ledger in self.ledgers.items():
            begin(MemoryTopic(self.broker, name), ledger, policy=StartPolicy("earliest", None, "g"), stream=name)
        self.connection = MemoryWritingConnection(self.database, "mine")
        self.failures: list[tuple[str, str]] = []
        self.end_reasons: Callable[[], EndReasons] = dict
        self.during: Callable[[], None] = lambda: None
        self.stop: Callable[[], EndReason | None] = lambda: None
        self.limits = limits
        self.decoders = {name: JsonDecoder(stream).decode for name, stream in self.streams.items()}
        self.without_registry: set[str] = set()
        self.batch = BatchLimits(10, batch_bytes, 1.0)
        self.lanes = {name: self.lane(name) for name in names}

    def decode(self, name: str, value: bytes) -> tuple[object, ...]:
        if name in self.without_registry:
            raise SchemaRegistryUnavailable("away")
        return self.decoders[name](value)

    def lane(self, name: str) -> Lane:
        stream = self.streams[name]
        session = MemoryLedgerSession(self.connection, stream, limits=LetterLimits(0.5, 5))

        def failed(error: IngestError) -> IngestError:
            self.failures.append((name, type(error).__name__))
            return error

        def reopen() -> Opening | None:
            return None if self.ledgers[name].state().paused else Opening([0])

        lane = Lane(
            name,
            name,
            session,
            decode=partial(self.decode, name),
            batch_limits=self.batch,
            clock=self.clock,
            observe=lambda progress: self.during(),
            reopen=reopen,
            failed=failed,
        )
        assert session.own([0], exact=True) == {}
        return lane

    def run(self) -> EndReason:
        self.drain = Drain(
            MemorySource(self.broker, self.clock),
            self.connection,
            list(self.lanes.values()),
            limits=self.limits,
            clock=self.clock,
            stop=lambda: self.stop(),
            executor=InlineExecutor(),
            verify=lambda streams: self.end_reasons(),
        )
        return self.drain.run()

    def produce(self, count: int, *names: str) -> None:
        for name in names or self.streams:
            for _ in range(count):
                self.broker.append(name, 0, good())

    @property
    def rows(self) -> dict[str, int]:
        return {name: ledger.positions()[0].rows for name, ledger in self.ledgers.items()}

    def until(self, seconds: float, *actions: tuple[float, Callable[[], None]]) -> None:
        """Stop the run at this time. Each action happens once, at its time."""
        left = sorted(actions, key=lambda action: action[0])

        def during() -> None:
            while left and self.clock.monotonic() >= left[0][0]:
                left.pop(0)[1]()

        self.during = during
        self.stop = lambda: EndReason.SIGNAL if self.clock.monotonic() >= seconds else None

    def each_second(self, seconds: float, *actions: tuple[float, Callable[[], None]], names: Sequence[str]) -> None:
        """The same, with a record of these streams each second."""
        self.until(seconds, *[(t, lambda: self.produce(1, *names)) for t in range(1, int(seconds))], *actions)


def test_every_stream_is_stored_and_counted_by_itself() -> None:
    weather = Weather()
    for count, name in zip((25, 3, 0), NAMES, strict=True):
        weather.produce(count, name)
    assert weather.run() == "caught-up"
    assert weather.rows == {"rain": 25, "snow": 3, "wind": 0}
    assert [lane.progress.rows for lane in weather.lanes.values()] == [25, 3, 0]
    assert weather.drain.set_aside.reasons == {}
    groups = {
        topic: {p: commit.next_offset for p, commit in offsets.items()}
        for (_, topic), offsets in weather.broker.groups.items()
    }
    assert groups == {"rain": {0: 25}, "snow": {0: 3}}


def test_a_batch_of_one_stream_does_not_wait_for_another_stream() -> None:
    weather = Weather()
    stored_at: dict[str, float] = {}

    def during() -> None:
        for name, rows in weather.rows.items():
            if rows and name not in stored_at:
                stored_at[name] = weather.clock.monotonic()
        if weather.clock.monotonic() < 2:
            weather.broker.append("rain", 0, good())  # a busy neighbour
            weather.clock.advance(0.01)

    weather.produce(1, "snow", "wind")
    weather.during = during
    weather.run()
    assert max(stored_at["snow"], stored_at["wind"]) <= 1.3


class TestTroubleOfOneStream:
    """rain is in trouble. snow and wind get a record each second."""

    def world(self) -> Weather:
        weather = Weather(limits=replace(LIMITS, idle_seconds=1e6))
        weather.each_second(90, names=NAMES)
        return weather

    def assert_others_went_on(self, weather: Weather) -> None:
        for name in ("snow", "wind"):
            assert weather.rows[name] >= 85
            assert weather.lanes[name].progress.latency.maximum_ms <= 1500

    def test_a_stream_waits_for_its_schema_registry_and_keeps_its_partitions(self) -> None:
        weather = self.world()
        weather.each_second(90, (60, weather.without_registry.clear), names=NAMES)
        weather.without_registry.add("rain")
        assert weather.run() == "signal"
        self.assert_others_went_on(weather)
        assert weather.rows["rain"] >= 85
        assert weather.ledgers["rain"].positions()[0].dead_letters == 0
        assert weather.failures == []

    def test_a_locked_table_is_tried_again_and_stored_when_it_is_free(self) -> None:
        weather = self.world()
        table = weather.database.table("rain")
        table.locked = True

        def unlock() -> None:
            table.locked = False

        weather.each_second(90, (60, unlock), names=NAMES)
        assert weather.run() == "signal"
        self.assert_others_went_on(weather)
        assert weather.rows["rain"] >= 85
        assert weather.failures == []

    def test_a_locked_table_is_not_asked_for_a_report(self) -> None:
        """The checks of a report would wait for the lock."""
        weather = self.world()
        table = weather.database.table("rain")
        table.locked = True
        observed: list[float] = []

        def observe(progress: Progress) -> None:
            observed.append(weather.clock.monotonic())

        weather.lanes["rain"].observe = observe
        weather.run()
        self.assert_others_went_on(weather)
        assert max(observed) <= 2, "until the first record meets the lock"

    def test_beyond_the_dead_letter_limit_the_stream_fails_and_is_tried_again(self) -> None:
        weather = self.world()
        for _ in range(20):
            weather.broker.append("rain", 0, b"{")
        allow = partial(weather.ledgers["rain"].allow_letters, 100)
        weather.each_second(90, (50, allow), (85, partial(weather.produce, 5, "rain")), names=["snow", "wind"])
        assert weather.run() == "signal"
        self.assert_others_went_on(weather)
        assert 3 <= len(weather.failures) <= 8
        assert set(weather.failures) == {("rain", "DeadLetterLimit")}
        assert weather.rows["rain"] == 5

    def test_lost_records_stop_the_stream_alone(self) -> None:
        weather = self.world()

        def lose() -> None:
            weather.produce(30, "rain")
            weather.broker.delete_records("rain", 0, weather.broker.log("rain", 0).end - 1)

        weather.broker.delete_records("rain", 0, 0)
        weather.each_second(90, (30, lose), names=["snow", "wind"])
        weather.run()
        self.assert_others_went_on(weather)
        reason = weather.drain.set_aside.reasons["rain"]
        assert isinstance(reason, DataLoss)
        assert weather.lanes["rain"].session.positions == {}, "the partitions are given back, for `accept-loss`"

    def test_a_paused_stream_is_given_back_and_goes_on_after_its_resumption(self) -> None:
        weather = self.world()
        ledger = weather.ledgers["rain"]
        owners: list[int] = []
        weather.each_second(
            90,
            (10, lambda: ledger.pause("index build", "somebody")),
            (20, lambda: owners.append(len(ledger.owners([0]).holders))),
            (30, ledger.resume),
            names=NAMES,
        )
        weather.run()
        self.assert_others_went_on(weather)
        assert owners == [0]
        assert weather.rows["rain"] >= 85
        assert weather.failures == []

    def test_a_position_locked_during_a_try_keeps_the_connection(self) -> None:
        weather = self.world()
        session, ledger = weather.lanes["rain"].session, weather.ledgers["rain"]
        own, tries = session.own, list[float]()

        def busy_twice(partitions: Collection[int], *, exact: bool) -> dict[int, Holder]:
            tries.append(weather.clock.monotonic())
            if len(tries) <= 2:
                raise TableBusy("owning stream rain: 55P03")
            return own(partitions, exact=exact)

        session.own = busy_twice  # type: ignore[method-assign]
        pause = partial(ledger.pause, "index build", "somebody")
        weather.each_second(90, (10, pause), (20, ledger.resume), names=NAMES)
        weather.run()
        self.assert_others_went_on(weather)
        assert weather.rows["rain"] >= 85
        assert (len(tries), weather.connection.generation) == (3, 0)

    def test_another_topic_under_the_name_drops_the_open_batch_of_the_stream(self) -> None:
        weather = self.world()
        weather.end_reasons = lambda: {"rain": TopicChanged("another topic")} if weather.clock.monotonic() > 20 else {}

        def reopen() -> Opening | None:
            raise TopicChanged("another topic")

        weather.lanes["rain"].reopen = reopen
        weather.run()
        self.assert_others_went_on(weather)
        assert weather.rows["rain"] < 25
        assert set(weather.failures) == {("rain", "TopicChanged")}

    def test_a_topic_is_verified_before_the_first_read_after_a_busy_table(self) -> None:
        weather = Weather(("rain", "snow"))
        weather.produce(1)
        table, began = weather.database.table("rain"), weather.clock.monotonic()
        table.locked = True

        def recreate() -> None:
            if table.locked and weather.clock.monotonic() >= began + 1.5:
                table.locked = False
                weather.broker.recreate_topic("rain")
                weather.produce(1, "rain")

        weather.during = recreate
        weather.end_reasons = lambda: {} if table.locked else {"rain": TopicChanged("another topic")}
        weather.stop = lambda: EndReason.SIGNAL if weather.failures else None
        weather.run()
        assert weather.rows == {"rain": 0, "snow": 1}
        assert ("rain", "TopicChanged") in weather.failures

    def test_an_added_partition_opens_the_stream_again(self) -> None:
        weather = self.world()
        opened: list[int] = []
        lane = weather.lanes["rain"]
        reopen = lane.reopen

        def count() -> Opening | None:
            opened.append(1)
            return reopen()

        lane.reopen = count
        weather.end_reasons = lambda: {"rain": EndReason.PARTITIONS_ADDED} if not opened else {}
        weather.run()
        self.assert_others_went_on(weather)
        assert (len(opened), weather.rows["rain"] >= 85) == (1, True)

    def test_a_run_that_took_the_partitions_costs_the_stream_alone(self) -> None:
        weather = self.world()
        thief = MemoryWritingConnection(weather.database, "thief")

        def steal() -> None:
            weather.database.backends[0].owned.discard(("rain", 0))
            assert MemoryLedgerSession(thief, weather.streams["rain"]).own([0], exact=True) == {}

        weather.each_second(90, (10, steal), (40, thief.close), names=NAMES)
        weather.run()
        self.assert_others_went_on(weather)
        assert weather.rows["rain"] >= 85
        assert weather.failures[:1] == [("rain", "Superseded")]


class TestSlowTable:
    """A write takes a time of its own. snow and wind get a record each second."""

    def world(self, seconds_of: Callable[[str, int], float], seconds: float = 60) -> Weather:
        """`seconds_of` (stream, rows): the time of a write. A write that needs more than 5 s is interrupted then."""
        weather = Weather(limits=replace(LIMITS, idle_seconds=1e6))
        weather.batch = BatchLimits(1000, 1 << 20, 1.0, 10)
        self.batches: dict[str, list[int]] = {name: [] for name in NAMES}
        for name in NAMES:
            weather.database.backends[0].owned.discard((name, 0))
            lane = weather.lanes[name] = weather.lane(name)
            lane.session.write = self.slowed(weather, lane, seconds_of)  # type: ignore[method-assign]
        weather.each_second(seconds, (3, partial(weather.produce, 20_000, "rain")), names=["snow", "wind"])
        return weather

    def slowed(
        self, weather: Weather, lane: Lane, seconds_of: Callable[[str, int], float]
    ) -> Callable[[Batch], CommitResult]:
        write = lane.session.write

        def write_slowly(batch: Batch) -> CommitResult:
            needed = seconds_of(lane.stream, len(batch.rows))
            weather.clock.advance(min(needed, 5.0))
            if needed > 5:
                raise TableBusy(f"writing stream {lane.stream}: 57014", sqlstate="57014")
            self.batches[lane.stream].append(len(batch.rows))
            return write(batch)

        return write_slowly

    def latencies(self, weather: Weather) -> list[float]:
        return [weather.lanes[name].progress.latency.maximum_ms / 1000 for name in ("snow", "wind")]

    def test_a_stream_with_slow_rows_gets_a_share_of_the_time(self) -> None:
        weather = self.world(lambda stream, rows: 0.01 * rows if stream == "rain" else 0.002)
        weather.run()
        assert self.batches["rain"][0] <= FIRST_RECORDS, "one second, before anything is known of the table"
        assert max(self.batches["rain"][1:]) <= 25
        assert max(self.latencies(weather)) <= 1 + 1 + 0.3
        assert weather.rows["rain"] >= 60 / 0.01 * 0.7, "the others leave the stream most of the time"
        assert weather.rows["snow"] >= 55

    def test_interrupted_batches_become_small(self) -> None:
        weather = self.world(lambda stream, rows: 0.1 * rows if stream == "rain" else 0.002)
        weather.run()
        assert max(self.batches["rain"]) <= 2
        assert weather.rows["rain"] >= 200
        assert max(self.latencies(weather)) <= 1 + 5 + 0.3

    def test_quick_batches_grow_to_their_limit(self) -> None:
        weather = self.world(lambda stream, rows: 0.000_005 * rows)
        weather.run()
        assert weather.rows["rain"] == 20_000
        assert self.batches["rain"][0] <= FIRST_RECORDS
        assert max(self.batches["rain"]) > 1000

    def test_commits_that_are_slow_for_every_stream_keep_large_batches(self) -> None:
        weather = self.world(lambda stream, rows: 0.4)
        weather.run()
        assert weather.rows["rain"] == 20_000
        assert max(self.batches["rain"]) > 1000


@pytest.mark.parametrize("fault", list(Fault))
def test_a_lost_connection_is_opened_again_for_all_streams(fault: Fault) -> None:
    weather = Weather()
    weather.produce(25)
    weather.database.script(None, None, fault, None, fault)
    assert weather.run() == "caught-up"
    assert weather.rows == dict.fromkeys(NAMES, 25)
    assert weather.failures == []


def test_a_run_whose_streams_all_failed_keeps_the_error_of_each() -> None:
    weather = Weather(("rain", "snow"))
    for _ in range(20):
        weather.broker.append("rain", 0, b"{")
    weather.broker.append("snow", 0, good())
    weather.broker.delete_records("snow", 0, 1)
    weather.run()
    reasons = weather.drain.set_aside.reasons
    assert {name: type(reason) for name, reason in reasons.items()} == {"rain": DeadLetterLimit, "snow": DataLoss}


def test_the_others_hold_their_locks_when_a_stream_is_taken_during_an_outage() -> None:
    weather = Weather(("rain", "snow"))
    weather.produce(1, "rain")

    def lose_connection() -> Fault:
        weather.database.end(weather.connection.backend)
        other = MemoryLedgerSession(MemoryWritingConnection(weather.database, "other"), weather.streams["rain"])
        assert other.own([0], exact=True) == {}
        return Fault.BEFORE_WRITE

    weather.database.next_fault = lose_connection  # type: ignore[method-assign]
    weather.stop = lambda: EndReason.SIGNAL if weather.failures else None
    weather.run()
    assert weather.failures == [("rain", "Superseded")]
    assert weather.database.holders("snow", [0])[0].run_id == "mine"


def test_a_run_whose_last_stream_is_taken_ends_as_superseded() -> None:
    weather = Weather(("rain", "snow"))
    weather.database.end(weather.connection.backend)
    for stream in weather.streams.values():
        other = MemoryLedgerSession(MemoryWritingConnection(weather.database, "other"), stream)
        assert other.own([0], exact=True) == {}
    assert weather.run() == EndReason.SUPERSEDED


def test_a_run_whose_tables_are_all_locked_still_reports() -> None:
    """Its checks turn red, although no stream is free to report them."""
    weather = Weather()
    weather.produce(4)
    for name in NAMES:
        weather.database.table(name).locked = True
    observed: list[float] = []
    weather.until(30)
    weather.during = lambda: observed.append(weather.clock.monotonic())
    assert weather.run() == "signal"
    assert max(observed) > 25


def test_a_locked_table_keeps_a_run_from_ending_idle() -> None:
    weather = Weather(limits=replace(LIMITS, idle_seconds=3))
    weather.produce(4)
    table = weather.database.table("rain")
    table.locked = True

    def unlock() -> None:
        if weather.clock.monotonic() > 20:
            table.locked = False

    weather.during = unlock
    assert weather.run() == "caught-up"
    assert weather.rows == dict.fromkeys(NAMES, 4)


def test_a_run_by_hand_ends_when_every_stream_has_reached_its_target() -> None:
    targets: Mapping[str, Mapping[int, int]] = {"rain": {0: 12}, "snow": {0: 3}, "wind": {0: 0}}
    weather = Weather(limits=replace(LIMITS, targets=targets))
    weather.produce(12, "rain")
    weather.produce(3, "snow")
    assert weather.run() == "caught-up"
    assert weather.rows == {"rain": 12, "snow": 3, "wind": 0}


@pytest.mark.parametrize(("streams", "most_bytes"), [(3, 6_000), (40, 6_500)])
def test_open_batches_of_all_streams_together_are_bounded(streams: int, most_bytes: int) -> None:
    """By two batches and a read, whose size is estimated."""
    names = [f"stream_{number}" for number in range(streams)]
    weather = Weather(names, batch_bytes=2_000)
    largest = 0

    def during() -> None:
        nonlocal largest
        largest = max(largest, sum(lane.batch.size_bytes for lane in weather.lanes.values()))

    weather.during = during
    weather.batch = BatchLimits(10_000, 2_000, 60.0)
    weather.lanes = {}
    for name in names:
        weather.database.backends[0].owned.discard((name, 0))
        weather.lanes[name] = weather.lane(name)
    weather.produce(60)
    assert weather.run() == "caught-up"
    assert weather.rows == dict.fromkeys(names, 60)
    assert largest <= most_bytes


def test_a_busy_table_of_a_single_stream_is_retried_in_place() -> None:
    weather = Weather(names=("rain",), limits=replace(LIMITS, retry_seconds=5))
    weather.produce(3)
    weather.database.table("rain").locked = True
    with pytest.raises(TableBusy):
        weather.run()


class TestSchemaRegistryOfOneStream:
    def weather(self, seconds_away: float) -> Weather:
        weather = Weather(("rain",))
        weather.produce(3)
        weather.without_registry.add("rain")
        weather.until(500, (seconds_away, weather.without_registry.clear))
        return weather

    def test_the_run_waits_and_stores_every_record(self) -> None:
        weather = self.weather(50)
        weather.stop = lambda: weather.during() or None
        assert weather.run() == "caught-up"
        assert weather.rows == {"rain": 3}

    def test_after_retry_seconds_the_run_fails_and_refuses_no_record(self) -> None:
        weather = self.weather(100)
        with pytest.raises(SchemaRegistryUnavailable):
            weather.run()
        assert 60 <= weather.clock.monotonic() < 75
        assert weather.ledgers["rain"].positions()[0].dead_letters == 0
