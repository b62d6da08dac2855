"""Why a drain ends, and how a drain handles faults."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from ingest_pipeline.core.batch import BatchLimits
from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.drain import HANDOVER_SECONDS, Drain, EndReasons, RunLimits
from ingest_pipeline.core.end_reasons import EndReason
from ingest_pipeline.core.errors import DatabaseUnavailable, DataLoss, KafkaUnavailable, StopStream, TopicChanged
from ingest_pipeline.core.lane import Lane, Opening
from ingest_pipeline.core.ledger import HandoverRequest
from ingest_pipeline.core.progress import Progress
from ingest_pipeline.core.record import Chunk
from ingest_pipeline.core.rows import RecordRules
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

LIMITS = RunLimits(max_seconds=600, idle_seconds=5, max_batches=0, retry_seconds=60)
TENS = BatchLimits(10, 1 << 20, 1.0)
FAULTS = [fault for fault in Fault]


@dataclass
class Scene:
    """A stream on the fakes, with one partition by default, and the drain of run "mine"."""

    limits: RunLimits = LIMITS
    batch: BatchLimits = TENS
    clock: SettableClock = field(default_factory=SettableClock)
    stop: Callable[[], EndReason | None] = lambda: None
    partitions: int = 1
    verify: Callable[[], EndReason | None] = lambda: None
    observe: Callable[[Progress], None] = lambda progress: None
    rules: RecordRules = field(default_factory=RecordRules)

    def __post_init__(self) -> None:
        self.broker = MemoryBroker({"reading": self.partitions})
        self.database = MemoryDatabase(self.clock)
        self.ledger = MemoryLedger(self.database, READING)
        begin(
            MemoryTopic(self.broker, "reading"),
            self.ledger,
            policy=StartPolicy("earliest", None, "g"),
            stream="reading",
        )
        self.connect("mine")

    def connect(self, run_id: str) -> None:
        """Own all partitions for a run."""
        self.connection = MemoryWritingConnection(self.database, run_id)
        self.session = MemoryLedgerSession(self.connection, READING)
        self.session.own(range(self.partitions), exact=True)

    def produce(self, count: int, partition: int = 0) -> None:
        for _ in range(count):
            self.broker.append("reading", partition, good())

    def drain(self) -> Drain:
        self.lane = Lane(
            "reading",
            "reading",
            self.session,
            decode=JsonDecoder(READING).decode,
            batch_limits=self.batch,
            clock=self.clock,
            observe=lambda progress: self.observe(progress),
            rules=self.rules,
        )
        self.lane.opened(Opening([*range(self.partitions)], {0: self.broker.log("reading", 0).end}))
        return Drain(
            MemorySource(self.broker, self.clock),
            self.connection,
            [self.lane],
            limits=self.limits,
            clock=self.clock,
            stop=lambda: self.stop(),
            executor=InlineExecutor(),
            verify=lambda streams: self._end_reasons(),
        )

    def _end_reasons(self) -> EndReasons:
        try:
            return {"reading": self.verify()}
        except KafkaUnavailable:
            return {}
        except StopStream as error:
            return {"reading": error}

    @property
    def rows(self) -> int:
        return self.ledger.positions()[0].rows


def test_a_drain_ends_caught_up_after_the_idle_time() -> None:
    scene = Scene()
    scene.produce(25)
    drain = scene.drain()
    assert drain.run() == "caught-up"
    assert (scene.rows, scene.lane.progress.rows, scene.lane.progress.batches) == (25, 25, 3)
    assert 5.0 <= scene.clock.monotonic() < 8.0


def test_the_first_batch_ends_with_the_backlog() -> None:
    scene = Scene(batch=BatchLimits(1000, 1 << 20, 3.0))
    scene.produce(3)
    first: list[float] = []

    def observe(progress: Progress) -> None:
        if progress.batches and not first:
            first.append(scene.clock.monotonic())
            scene.produce(1)

    scene.observe = observe
    drain = scene.drain()
    assert drain.run() == "caught-up"
    assert first[0] < 1
    assert (scene.rows, scene.lane.progress.batches) == (4, 2)
    assert scene.clock.monotonic() >= 3


class TestOneLeaderIsAway:
    """The leader of partition 1 is away, partition 0 can be read."""

    def scene(self, **limits: Any) -> Scene:
        scene = Scene(partitions=2, limits=replace(LIMITS, idle_seconds=0, max_seconds=120, retry_seconds=1, **limits))
        scene.produce(5)
        scene.produce(7, partition=1)
        scene.broker.set_leader_away("reading", 1, True)
        return scene

    def rows(self, scene: Scene) -> list[int]:
        return [position.rows for position in scene.ledger.positions().values()]

    def test_the_other_partition_is_stored_and_the_run_ends_by_age(self) -> None:
        scene = self.scene()
        assert scene.drain().run() == "age"
        assert self.rows(scene) == [5, 0]

    def test_the_partition_is_stored_after_its_leader_returns(self) -> None:
        scene = self.scene()

        def observe(progress: Progress) -> None:
            if scene.clock.monotonic() > 60:
                scene.broker.set_leader_away("reading", 1, False)

        scene.observe = observe
        assert scene.drain().run() == "caught-up"
        assert self.rows(scene) == [5, 7]
        assert scene.clock.monotonic() < 90

    def test_a_run_by_hand_does_not_wait_for_the_leader(self) -> None:
        scene = self.scene(targets={"reading": {0: 5}})
        assert scene.drain().run() == "caught-up"
        assert self.rows(scene) == [5, 0]


def test_a_drain_that_has_not_seen_the_end_is_not_idle() -> None:
    scene = Scene(limits=replace(LIMITS, idle_seconds=0, max_seconds=30))
    scene.produce(1)
    scene.broker.set_unavailable(True)
    with pytest.raises(KafkaUnavailable):
        scene.drain().run()
    assert scene.rows == 0


def test_a_drain_past_its_age_waits_a_little_for_a_successor() -> None:
    scene = Scene(limits=replace(LIMITS, max_seconds=3, idle_seconds=60))
    scene.produce(4)
    assert scene.drain().run() == "age"
    assert 3 + HANDOVER_SECONDS <= scene.clock.monotonic() < 4 + HANDOVER_SECONDS


def test_a_drain_past_its_age_ends_when_a_successor_waits() -> None:
    scene = Scene(limits=replace(LIMITS, max_seconds=3, idle_seconds=60))
    scene.produce(4)
    waiting = scene.database.open("next")
    waiting.waits[HandoverRequest.AT_MAXIMUM_AGE] = {("reading", 0)}
    assert scene.drain().run() == "age"
    assert 3 <= scene.clock.monotonic() < 4


def test_a_drain_at_its_age_commits_the_open_batch() -> None:
    scene = Scene(limits=replace(LIMITS, max_seconds=3, idle_seconds=60), batch=BatchLimits(1000, 1 << 20, 60.0))
    scene.produce(4)
    scene.observe = lambda progress: scene.produce(1) if progress.rows == scene.broker.log("reading", 0).end else None
    assert scene.drain().run() == "age"
    assert scene.rows == 5


def test_a_drain_ends_after_exactly_max_batches() -> None:
    scene = Scene(limits=replace(LIMITS, max_batches=1))
    scene.produce(25)
    assert scene.drain().run() == "batches"
    assert scene.rows == 10


def test_a_run_by_hand_ends_at_the_ends_of_its_start() -> None:
    scene = Scene(limits=replace(LIMITS, targets={"reading": {0: 5}}), batch=BatchLimits(1, 1 << 20, 1.0))
    scene.produce(9)
    assert scene.drain().run() == "caught-up"
    assert scene.rows == 5


def test_a_run_by_hand_without_records_ends_at_once() -> None:
    scene = Scene(limits=replace(LIMITS, targets={"reading": {0: 0}}))
    assert scene.drain().run() == "caught-up"
    assert scene.clock.monotonic() == 0.0


@pytest.mark.parametrize("reason", ["terminated", "signal"])
def test_a_request_to_stop_commits_the_open_batch(reason: str) -> None:
    scene = Scene(batch=BatchLimits(1000, 1 << 20, 60.0))
    scene.produce(4)
    scene.stop = lambda: reason if scene.clock.monotonic() > 2 else None
    assert scene.drain().run() == reason
    assert scene.rows == 4


def test_a_pause_ends_a_drain_within_a_batch() -> None:
    scene = Scene()
    scene.produce(30)

    def pause(progress: Progress) -> None:
        if progress.batches == 1:
            scene.ledger.pause("index build", "somebody")

    scene.observe = pause
    assert scene.drain().run() == "paused"
    assert scene.rows == 20  # the write that saw the pause was the last


def test_a_pause_ends_an_idle_drain() -> None:
    scene = Scene(limits=replace(LIMITS, idle_seconds=100))
    scene.observe = lambda progress: scene.ledger.pause("why", "who") if scene.clock.monotonic() > 10 else None
    assert scene.drain().run() == "paused"
    assert scene.clock.monotonic() < 13


@pytest.mark.parametrize(
    ("announced", "ended"), [(HandoverRequest.NOW, "yielded"), (HandoverRequest.AT_MAXIMUM_AGE, "caught-up")]
)
def test_only_an_urgent_waiter_ends_a_drain_before_its_age(announced: HandoverRequest, ended: str) -> None:
    scene = Scene()
    other = MemoryLedgerSession(MemoryWritingConnection(scene.database, "other"), READING)
    other.announce(announced, [0])
    scene.produce(5)
    assert scene.drain().run() == ended
    assert scene.rows == 5


def test_a_reason_of_verify_ends_a_drain_and_an_error_fails_it() -> None:
    scene = Scene(limits=replace(LIMITS, idle_seconds=500), verify=lambda: "partitions-added")
    assert scene.drain().run() == "partitions-added"

    def changed() -> str | None:
        raise TopicChanged("another topic")

    scene = Scene(limits=replace(LIMITS, idle_seconds=500), verify=changed)
    with pytest.raises(TopicChanged):
        scene.drain().run()


def test_a_drain_verifies_before_reading_and_remembers_verified_offsets() -> None:
    """The topic may have been re-created while the run waited for ownership."""
    answers = iter([TopicChanged("another topic")])

    def changed() -> str | None:
        raise next(answers)

    scene = Scene(verify=changed)
    scene.produce(5)
    drain = scene.drain()
    with pytest.raises(TopicChanged):
        drain.run()
    assert (scene.rows, scene.lane.verified) == (0, {0: 0})

    def changes() -> str | None:
        if scene.rows == 5:
            scene.produce(5)
        if scene.rows == 10:
            raise TopicChanged("another topic")
        return None

    scene = Scene(verify=changes, limits=replace(LIMITS, idle_seconds=500))
    scene.produce(5)
    drain = scene.drain()
    with pytest.raises(TopicChanged):
        drain.run()
    assert scene.lane.verified == {0: 5}


def test_verify_is_called_again_after_a_missing_answer() -> None:
    answers = iter([KafkaUnavailable("away"), None, None, None])

    def verify() -> str | None:
        answer = next(answers, None)
        if answer is not None:
            raise answer
        return "partitions-added" if scene.clock.monotonic() > 80 else None

    scene = Scene(limits=replace(LIMITS, idle_seconds=500), verify=verify)
    assert scene.drain().run() == "partitions-added"


def test_a_lasting_fault_fails_the_run_after_the_retry_time_and_loses_nothing() -> None:
    scene = Scene()
    scene.produce(25)
    scene.database.script(*([FAULTS[0]] * 500))
    with pytest.raises(DatabaseUnavailable):
        scene.drain().run()
    assert 20 < scene.clock.monotonic() <= 61
    assert scene.rows == 0
    scene.database.clear_script()
    scene.connection.close()
    scene.connect("next")
    assert scene.drain().run() == "caught-up"
    assert scene.rows == 25


def test_a_request_to_stop_ends_the_retries() -> None:
    scene = Scene(limits=replace(LIMITS, retry_seconds=1e6))
    scene.produce(5)
    scene.database.script(*([FAULTS[0]] * 10_000))
    scene.stop = lambda: "signal" if scene.clock.monotonic() > 20 else None
    with pytest.raises(DatabaseUnavailable):
        scene.drain().run()
    assert scene.clock.monotonic() < 40


def test_transaction_markers_at_the_end_leave_no_lag() -> None:
    scene = Scene()
    scene.produce(2)
    scene.broker.append_marker("reading", 0)
    drain = scene.drain()
    drain.run()
    position = scene.ledger.positions()[0]
    assert (position.next_offset, position.rows, position.absent) == (3, 2, 1)
    assert (scene.lane.progress.absent, scene.lane.progress.batches) == (1, 1)


def test_records_read_before_a_loss_are_committed() -> None:
    """Retention deletes the rest of the log while the batch is open."""
    scene = Scene(batch=BatchLimits(1000, 1 << 20, 60.0))
    scene.produce(4)

    reads = 0

    def lose(progress: Progress) -> None:
        nonlocal reads
        reads += 1
        if reads == 2:  # the first read brings one record, the second the other three
            scene.produce(6)
            scene.broker.delete_records("reading", 0, 8)

    scene.observe = lose
    with pytest.raises(DataLoss) as raised:
        scene.drain().run()
    assert (raised.value.where["cause"], raised.value.where["low"]) == ("retention", 8)
    assert (scene.rows, scene.ledger.positions()[0].next_offset) == (4, 4)


def test_a_record_above_the_limit_is_not_decoded() -> None:
    scene = Scene(rules=RecordRules(max_record_bytes=len(good()), dead_letter_max_bytes=10))
    scene.broker.append("reading", 0, good())
    scene.broker.append("reading", 0, good("one byte more"))
    scene.drain().run()
    (letter,) = scene.database.table("reading").dead_letters.values()
    assert (letter.stage, letter.truncated, letter.value) == ("size", True, good("one byte more")[:10])
    assert letter.reason == f"larger than MAX_RECORD_BYTES, {len(good())} bytes"


@pytest.mark.parametrize(("tombstones", "counters"), [("skip", (1, 0, 1)), ("dead-letter", (1, 1, 0))])
def test_tombstones_are_skipped_or_become_dead_letters(tombstones: Any, counters: tuple[int, int, int]) -> None:
    scene = Scene(rules=RecordRules(tombstones=tombstones))
    scene.broker.append("reading", 0, None, key=b"gone")
    scene.produce(1)
    scene.drain().run()
    position = scene.ledger.positions()[0]
    assert (position.rows, position.dead_letters, position.skipped) == counters
    assert [letter.key for letter in scene.database.table("reading").dead_letters.values()] == [b"gone"] * counters[1]


def test_a_drain_reads_nothing_while_the_database_is_away() -> None:
    """Memory holds one batch during an outage of any length."""

    class Outage(SettableClock):
        """The database returns in second 30."""

        def advance(self, seconds: float) -> None:
            super().advance(seconds)
            if self.monotonic() >= 30:
                scene.database.reachable = True

    class Watched(MemorySource):
        def read(self, max_records: int, timeout_seconds: float) -> dict[str, Chunk]:
            reads.append(scene.clock.monotonic())
            return super().read(max_records, timeout_seconds)

    reads: list[float] = []
    scene = Scene(clock=Outage())
    scene.produce(100)
    drain = scene.drain()
    drain._source = Watched(scene.broker, scene.clock)

    def cut(progress: Progress) -> None:
        if progress.batches == 2 and scene.clock.monotonic() < 30:
            scene.database.reachable = False

    scene.observe = cut
    assert drain.run() == "caught-up"
    assert scene.rows == 100
    during = [read_at for read_at in reads if 0.5 < read_at < 30]
    assert during == [], "the database was away then"
    assert max(reads) >= 30
