"""What can happen, as rules. Any order of them has to leave the invariants of checks.py whole."""

import sys
from collections.abc import Callable
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition

from ingest_pipeline.settings import Settings
from ingest_pipeline_tests.simulation import people
from ingest_pipeline_tests.simulation.database import Break
from ingest_pipeline_tests.simulation.drawn import (
    BREAKS,
    DEATHS,
    JOB,
    KINDS,
    ONLY,
    OWN,
    PARTITION,
    POINTS,
    SHARE,
    STREAM,
)
from ingest_pipeline_tests.simulation.kafka_rules import KafkaRules
from ingest_pipeline_tests.simulation.model import BROKEN, GOOD
from ingest_pipeline_tests.simulation.rules import TOLD, step
from ingest_pipeline_tests.simulation.streams import OTHER_JOB, SHARED_JOB
from ingest_pipeline_tests.simulation.world import World


class Simulation(KafkaRules):
    """Attributes: observe: called at the end of each example."""

    observe: ClassVar[Callable[[], None]] = staticmethod(lambda: None)

    @initialize(own=OWN, partitions=st.sampled_from([1, 2, 3]), streams=st.sampled_from([1, 1, 2, 4]))
    def begin(self, own: Settings, partitions: int, streams: int = 1) -> None:
        self.world = World(own, partitions, streams)
        TOLD[f"examples with {streams} streams"] += 1

    # --- Dagster and its processes ----------------------------------------------------------------------------------

    @step(seconds=st.sampled_from([5.0, 5.0, 8.0, 30.0, 300.0]))
    def tick(self, seconds: float) -> None:
        self.world.tick(seconds)

    @step(ticks=st.sampled_from([1, 2, 3]), points=st.sampled_from([5, 30, 100]))
    def work(self, ticks: int, points: int) -> None:
        for _ in range(ticks):
            self.world.tick()
            self.go_all(points)

    @step(stream=STREAM, partition=PARTITION, kinds=KINDS, points=st.sampled_from([5, 15, 40]))
    def produce_and_work(self, partition: int, kinds: list[str], points: int, stream: int = 0) -> None:
        self.produce_to_all(stream, partition, kinds)
        self.world.tick()
        self.go_all(points)

    @precondition(lambda self: self.world.processes.alive())
    @step(which=JOB, points=st.sampled_from([1, 3, 10, 40, 150]))
    def go(self, which: int, points: int) -> None:
        self.world.processes.go(self.job(which), points)

    @step(which=JOB, at=DEATHS, lingers=st.booleans(), stream=STREAM, partition=PARTITION, kinds=KINDS)
    def kill(self, which: int, at: str, lingers: bool, partition: int, kinds: list[str], stream: int = 0) -> None:
        """A process dies, at that point if it gets there."""
        self.produce_to_all(stream, partition, kinds)
        self.world.tick()
        if self.world.processes.alive():
            self.world.processes.kill(self.job(which), at, lingers)

    @step(
        which=JOB,
        at=st.sampled_from(POINTS),
        ticks=st.sampled_from(range(7)),
        points=st.sampled_from([3, 5, 40]),
        stream=STREAM,
        partition=PARTITION,
        kinds=KINDS,
    )
    def freeze(
        self, which: int, at: str, ticks: int, points: int, partition: int, kinds: list[str], stream: int = 0
    ) -> None:
        """A process is frozen. The server gives its locks away, others go on, and the process wakes up."""
        self.produce_to_all(stream, partition, kinds)
        self.world.tick()
        if not self.world.processes.alive():
            return
        frozen = self.job(which)
        if self.world.processes.freeze(frozen, at):
            for _ in range(ticks):
                self.world.tick(10.0)
                self.go_all(points, frozen)
            self.world.processes.go(frozen, 40)

    @precondition(lambda self: self.world.database().writing)
    @step(which=JOB)
    def cut_session(self, which: int) -> None:
        self.world.processes.cut_session(self.job(which))

    @precondition(lambda self: self.world.busy())
    @step(which=JOB, reason=st.sampled_from(["terminated", "signal"]))
    def stop(self, which: int, reason: str) -> None:
        self.world.processes.stop(which, reason)

    @step(breaks=BREAKS)
    def break_writes(self, breaks: list[Break]) -> None:
        """Where the connection breaks off, or what PostgreSQL says on one that lives."""
        self.world.database().breaks.extend(breaks)

    @step(seconds=st.sampled_from([0.0, 0.0, 40.0, 185.0]))
    def slow_starts(self, seconds: float) -> None:
        """From now on a launched run has no process for so long: a container, a busy machine."""
        self.world.start_seconds = seconds

    # --- people -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.database().reachable and self.lost_streams())
    @step(stream=STREAM, start=st.sampled_from([None, None, None, "earliest", "latest"]), only=ONLY)
    def accept_loss(self, start: str | None = None, only: int | None = None, stream: int = 0) -> None:
        lost = self.lost_streams() or [self.stream()]
        self.world.processes.go(people.accept_loss(self.world, lost[stream % len(lost)], start, only), 4)

    @precondition(lambda self: self.streams_with_rows())
    @step(
        stream=STREAM,
        partition=PARTITION,
        shares=st.tuples(SHARE, SHARE),
        held=st.booleans(),
        delete_every=st.sampled_from(range(3)),
        points=st.sampled_from([1, 3, 200]),
        dies=st.sampled_from([False, False, True]),
    )
    def replay(
        self,
        partition: int,
        shares: tuple[float, float],
        held: bool,
        delete_every: int,
        points: int,
        dies: bool = False,
        stream: int = 0,
    ) -> None:
        """Somebody deletes rows from the event table, and replays them."""
        streams = self.streams_with_rows()
        state = streams[stream % len(streams)]
        if delete_every:
            people.delete_rows(state, delete_every)
        job = people.replay(self.world, state, partition, sorted(shares), held=held)
        if dies:
            self.world.processes.kill(job, "store", False)
        else:
            self.world.processes.go(job, points)

    @precondition(lambda self: self.world.database().reachable)
    @step(stream=STREAM, mended=st.booleans())
    def redrive(self, mended: bool, stream: int = 0) -> None:
        state = self.stream(stream)
        if "open" in state.checks.letters.values():
            people.redrive(self.world, state, mended)

    @precondition(lambda self: self.world.database().reachable)
    @step(how=st.sampled_from(["allow_letters", "discard", "pause", "resume", "resume"]), stream=STREAM)
    def steer(self, how: str, stream: int = 0) -> None:
        getattr(people, how)(self.world, self.stream(stream))

    @step(stream=STREAM, locked=st.booleans())
    def lock_table(self, locked: bool, stream: int = 0) -> None:
        """Another session locks the stream's table, or releases it."""
        self.stream(stream).table.locked = locked

    @precondition(lambda self: len(self.world.streams) > 1)
    @step(stream=STREAM, job=st.sampled_from([SHARED_JOB, OTHER_JOB]))
    def move(self, stream: int, job: str) -> None:
        """The stream is declared with another job, while the runs of its job go on."""
        self.stream(stream).move_to(job)
        self.world.count["streams moved"] += 1

    @precondition(lambda self: len(self.world.streams) > 1 and self.world.database().reachable)
    @step(
        stream=STREAM,
        how=st.sampled_from(["lock_table", "pause", "refuse", "lose"]),
        partition=PARTITION,
        ticks=st.sampled_from([1, 2, 4]),
        points=st.sampled_from([10, 40]),
    )
    def trouble(self, stream: int, how: str, partition: int, ticks: int, points: int) -> None:
        """One stream cannot go on, while all get records."""
        state = self.stream(stream)
        if how == "lock_table":
            state.table.locked = True
        elif how == "pause":
            people.pause(self.world, state)
        elif how == "lose":
            state.kafka.truncate(partition, 0.6)
        for _ in range(ticks):
            state.kafka.produce(partition, [BROKEN] * 4 if how == "refuse" else [GOOD])
            self.produce_to_others(state)
            self.world.tick()
            self.go_all(points)

    @step(
        parallelism=st.sampled_from([1, 2]),
        batch_size=st.sampled_from(range(1, 7)),
        mended=st.booleans(),
        strict=st.booleans(),
    )
    def deploy(self, parallelism: int, batch_size: int, mended: bool, strict: bool) -> None:
        """New settings, a newer decoder, another constraint."""
        self.world.deploy(parallelism=parallelism, batch_size=batch_size)
        self.world.mended = mended
        for stream in self.world.streams.values():
            stream.set_strict(strict)

    # --- the end ----------------------------------------------------------------------------------------------------

    @invariant()
    def holds(self) -> None:
        for stream in self.world.streams.values():
            stream.checks.unchanged()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            if sys.exc_info()[0] is None:
                people.catch_up(self.world)
        finally:
            self.world.close()
            TOLD["examples"] += 1
            TOLD.update(self.world.count)
            type(self).observe()
