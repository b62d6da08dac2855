"""Why a drain ends, and what it does about trouble."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from ingest_pipeline.core.batch import BatchLimits
from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.drain import HANDOVER_SECONDS, Drain, RunLimits
from ingest_pipeline.core.errors import DatabaseUnavailable, DataLoss, KafkaUnavailable, TopicChanged
from ingest_pipeline.core.progress import Progress
from ingest_pipeline.core.record import Chunk
from ingest_pipeline.core.rows import RecordRules
from ingest_pipeline.core.start import StartPolicy, begin
from ingest_pipeline.testing import (
    Fault,
    MemoryBroker,
    MemoryDatabase,
    MemoryLedger,
    MemoryLedgerSession,
    MemorySource,
    MemoryTopic,
    SettableClock,
)
from ingest_pipeline_tests.samples import READING, good

LIMITS = RunLimits(max_seconds=600, idle_seconds=5, max_batches=0, retry_seconds=60)
TENS = BatchLimits(10, 1 << 20, 1.0)
FAULTS = [fault for fault in Fault]


@dataclass
class Scene:
    """One stream, of one partition where nothing else is said, on the fakes, and the drain of run "mine"."""

    limits: RunLimits = LIMITS
    batch: BatchLimits = TENS
    clock: SettableClock = field(default_factory=SettableClock)
    stop: Callable[[], str | None] = lambda: None
    partitions: int = 1
    verify: Callable[[], str | None] = lambda: None
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
        self.session = MemoryLedgerSession(self.database, READING, "mine")
        self.session.own(range(self.partitions), exact=True)

    def produce(self, count: int, partition: int = 0) -> None:
        for _ in range(count):
            self.broker.append("reading", partition, good())

    def drain(self) -> Drain:
        return Drain(
            MemorySource(self.broker, "reading", self.clock),
            self.session,
            decode=JsonDecoder(READING).decode,
            batch_limits=self.batch,
            run_limits=self.limits,
            clock=self.clock,
            stop=lambda: self.stop(),
            verify=lambda: self.verify(),
            observe=lambda progress: self.observe(progress),
            rules=self.rules,
            waiting={0: self.broker.log("reading", 0).end},
        )

    @property
    def rows(self) -> int:
        return self.ledger.positions()[0].rows


def test_it_ends_caught_up_after_the_idle_time() -> None:
    scene = Scene()
    scene.produce(25)
    drain = scene.drain()
    assert drain.run() == "caught-up"
    assert (scene.rows, drain.progress.rows, drain.progress.batches) == (25, 25, 3)
    assert 5.0 <= scene.clock.monotonic() < 8.0


def test_its_first_batch_does_not_wait_for_more_than_there_is() -> None:
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
    assert (scene.rows, drain.progress.batches) == (4, 2)
    assert scene.clock.monotonic() >= 3


class TestOneLeaderIsAway:
    """Of two partitions; the other one flows."""

    def scene(self, **limits: Any) -> Scene:
        scene = Scene(partitions=2, limits=replace(LIMITS, idle_seconds=0, max_seconds=120, retry_seconds=1, **limits))
        scene.produce(5)
        scene.produce(7, partition=1)
        scene.broker.set_leader_away("reading", 1, True)
        return scene

    def rows(self, scene: Scene) -> list[int]:
        return [at.rows for at in scene.ledger.positions().values()]

    def test_the_other_partition_is_stored_and_the_run_is_not_taken_for_caught_up(self) -> None:
        scene = self.scene()
        assert scene.drain().run() == "age"
        assert self.rows(scene) == [5, 0]

    def test_what_it_held_is_stored_when_it_is_back(self) -> None:
        scene = self.scene()

        def observe(progress: Progress) -> None:
            if scene.clock.monotonic() > 60:
                scene.broker.set_leader_away("reading", 1, False)

        scene.observe = observe
        assert scene.drain().run() == "caught-up"
        assert self.rows(scene) == [5, 7]
        assert scene.clock.monotonic() < 90

    def test_by_hand_it_is_not_waited_for(self) -> None:
        scene = self.scene(targets={0: 5})
        assert scene.drain().run() == "caught-up"
        assert self.rows(scene) == [5, 0]


def test_it_is_not_idle_while_the_end_has_not_been_seen() -> None:
    scene = Scene(limits=replace(LIMITS, idle_seconds=0, max_seconds=30))
    scene.produce(1)
    scene.broker.set_unavailable(True)
    with pytest.raises(KafkaUnavailable):
        scene.drain().run()
    assert scene.rows == 0


def test_past_its_age_it_waits_a_little_for_a_successor() -> None:
    scene = Scene(limits=replace(LIMITS, max_seconds=3, idle_seconds=60))
    scene.produce(4)
    assert scene.drain().run() == "age"
    assert 3 + HANDOVER_SECONDS <= scene.clock.monotonic() < 4 + HANDOVER_SECONDS


def test_past_its_age_it_ends_as_soon_as_a_successor_waits() -> None:
    scene = Scene(limits=replace(LIMITS, max_seconds=3, idle_seconds=60))
    scene.produce(4)
    waiting = scene.database.open("next", "reading")
    waiting.waits["wait"] = frozenset([0])
    assert scene.drain().run() == "age"
    assert 3 <= scene.clock.monotonic() < 4


def test_it_ends_at_its_age_with_the_batch_in_hand_committed() -> None:
    scene = Scene(limits=replace(LIMITS, max_seconds=3, idle_seconds=60), batch=BatchLimits(1000, 1 << 20, 60.0))
    scene.produce(4)
    scene.observe = lambda progress: scene.produce(1) if progress.rows == scene.broker.log("reading", 0).end else None
    assert scene.drain().run() == "age"
    assert scene.rows == 5


def test_a_number_of_batches_is_kept_to_exactly() -> None:
    scene = Scene(limits=replace(LIMITS, max_batches=1))
    scene.produce(25)
    assert scene.drain().run() == "batches"
    assert scene.rows == 10


def test_by_hand_it_ends_at_the_ends_seen_at_its_start() -> None:
    scene = Scene(limits=replace(LIMITS, targets={0: 5}), batch=BatchLimits(1, 1 << 20, 1.0))
    scene.produce(9)
    assert scene.drain().run() == "caught-up"
    assert scene.rows == 5


def test_by_hand_with_nothing_to_do_it_ends_at_once() -> None:
    scene = Scene(limits=replace(LIMITS, targets={0: 0}))
    assert scene.drain().run() == "caught-up"
    assert scene.clock.monotonic() == 0.0


@pytest.mark.parametrize("reason", ["terminated", "signal"])
def test_a_request_to_stop_commits_the_batch_in_hand(reason: str) -> None:
    scene = Scene(batch=BatchLimits(1000, 1 << 20, 60.0))
    scene.produce(4)
    scene.stop = lambda: reason if scene.clock.monotonic() > 2 else None
    assert scene.drain().run() == reason
    assert scene.rows == 4


def test_a_pause_ends_it_within_a_batch() -> None:
    scene = Scene()
    scene.produce(30)

    def pause(progress: Progress) -> None:
        if progress.batches == 1:
            scene.ledger.pause("index build", "somebody")

    scene.observe = pause
    assert scene.drain().run() == "paused"
    assert scene.rows == 20  # the write that saw the pause was the last


def test_a_pause_ends_an_idle_run_too() -> None:
    scene = Scene(limits=replace(LIMITS, idle_seconds=100))
    scene.observe = lambda progress: scene.ledger.pause("why", "who") if scene.clock.monotonic() > 10 else None
    assert scene.drain().run() == "paused"
    assert scene.clock.monotonic() < 13


@pytest.mark.parametrize(("announced", "ended"), [("wait-now", "yielded"), ("wait", "caught-up")])
def test_only_an_urgent_waiter_ends_it_before_its_age(announced: str, ended: str) -> None:
    scene = Scene()
    other = MemoryLedgerSession(scene.database, READING, "other")
    other.connection.waits[announced] = frozenset({0})
    scene.produce(5)
    assert scene.drain().run() == ended
    assert scene.rows == 5


def test_what_verify_says_ends_it_and_what_it_raises_stops_it() -> None:
    scene = Scene(limits=replace(LIMITS, idle_seconds=500), verify=lambda: "partitions-added")
    assert scene.drain().run() == "partitions-added"

    def changed() -> str | None:
        raise TopicChanged("another topic")

    scene = Scene(limits=replace(LIMITS, idle_seconds=500), verify=changed)
    with pytest.raises(TopicChanged):
        scene.drain().run()


def test_it_asks_before_it_reads_and_remembers_what_was_stored_by_then() -> None:
    """It may have waited long for its turn, and the topic be another one by now."""
    answers = iter([TopicChanged("another topic")])

    def changed() -> str | None:
        raise next(answers)

    scene = Scene(verify=changed)
    scene.produce(5)
    drain = scene.drain()
    with pytest.raises(TopicChanged):
        drain.run()
    assert (scene.rows, drain.verified) == (0, {0: 0})

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
    assert drain.verified == {0: 5}


def test_a_question_without_an_answer_is_asked_again() -> None:
    answers = iter([KafkaUnavailable("away"), None, None, None])

    def verify() -> str | None:
        answer = next(answers, None)
        if answer is not None:
            raise answer
        return "partitions-added" if scene.clock.monotonic() > 80 else None

    scene = Scene(limits=replace(LIMITS, idle_seconds=500), verify=verify)
    assert scene.drain().run() == "partitions-added"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_passing_fault_costs_no_record(fault: Fault) -> None:
    scene = Scene()
    scene.produce(25)
    scene.database.script(None, fault)
    assert scene.drain().run() == "caught-up"
    assert (scene.rows, scene.ledger.positions()[0].dead_letters) == (25, 0)


def test_a_lasting_fault_fails_the_run_after_the_retry_time_and_loses_nothing() -> None:
    scene = Scene()
    scene.produce(25)
    scene.database.script(*([FAULTS[0]] * 500))
    with pytest.raises(DatabaseUnavailable):
        scene.drain().run()
    assert 20 < scene.clock.monotonic() <= 61
    assert scene.rows == 0
    scene.database.clear_script()
    again = MemoryLedgerSession(scene.database, READING, "next")
    again.own([0], exact=True, wait_seconds=60)
    scene.session = again
    assert scene.drain().run() == "caught-up"
    assert scene.rows == 25


def test_a_request_to_stop_ends_the_waiting_for_a_fault() -> None:
    scene = Scene(limits=replace(LIMITS, retry_seconds=1e6))
    scene.produce(5)
    scene.database.script(*([FAULTS[0]] * 10_000))
    scene.stop = lambda: "signal" if scene.clock.monotonic() > 20 else None
    with pytest.raises(DatabaseUnavailable):
        scene.drain().run()
    assert scene.clock.monotonic() < 40


def test_markers_at_the_tail_bring_lag_to_zero() -> None:
    scene = Scene()
    scene.produce(2)
    scene.broker.append_marker("reading", 0)
    drain = scene.drain()
    drain.run()
    at = scene.ledger.positions()[0]
    assert (at.next_offset, at.rows, at.absent) == (3, 2, 1)
    assert (drain.progress.absent, drain.progress.batches) == (1, 1)


def test_what_was_read_before_a_loss_is_committed() -> None:
    """Retention moves over the rest of the log while the batch is still open."""
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


def test_a_record_that_is_too_large_is_not_decoded() -> None:
    scene = Scene(rules=RecordRules(max_record_bytes=len(good()), dead_letter_max_bytes=10))
    scene.broker.append("reading", 0, good())
    scene.broker.append("reading", 0, good("one byte more"))
    scene.drain().run()
    (letter,) = scene.database.table("reading").dead_letters.values()
    assert (letter.stage, letter.truncated, letter.value) == ("size", True, good("one byte more")[:10])
    assert letter.reason == f"larger than MAX_RECORD_BYTES, {len(good())} bytes"


@pytest.mark.parametrize(("tombstones", "counters"), [("skip", (1, 0, 1)), ("dead-letter", (1, 1, 0))])
def test_tombstones_are_skipped_or_kept(tombstones: Any, counters: tuple[int, int, int]) -> None:
    scene = Scene(rules=RecordRules(tombstones=tombstones))
    scene.broker.append("reading", 0, None, key=b"gone")
    scene.produce(1)
    scene.drain().run()
    at = scene.ledger.positions()[0]
    assert (at.rows, at.dead_letters, at.skipped) == counters
    assert [letter.key for letter in scene.database.table("reading").dead_letters.values()] == [b"gone"] * counters[1]


def test_nothing_is_read_while_the_writer_is_stuck() -> None:
    """However long the database is away, memory holds one batch."""

    class Outage(SettableClock):
        """The database comes back in the thirtieth second."""

        def advance(self, seconds: float) -> None:
            super().advance(seconds)
            if self.monotonic() >= 30:
                scene.database.reachable = True

    class Watched(MemorySource):
        def read(self, max_records: int, timeout_seconds: float) -> Chunk:
            reads.append(scene.clock.monotonic())
            return super().read(max_records, timeout_seconds)

    reads: list[float] = []
    scene = Scene(clock=Outage())
    scene.produce(100)
    drain = scene.drain()
    drain._source = drain._reader._source = Watched(scene.broker, "reading", scene.clock)

    def cut(progress: Progress) -> None:
        if progress.batches == 2 and scene.clock.monotonic() < 30:
            scene.database.reachable = False

    scene.observe = cut
    assert drain.run() == "caught-up"
    assert scene.rows == 100
    during = [at for at in reads if 0.5 < at < 30]
    assert during == [], "the writer was stuck then"
    assert max(reads) >= 30
