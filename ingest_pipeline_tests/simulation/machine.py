"""What can happen, as rules. Any order of them has to leave the invariants of checks.py whole."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ingest_pipeline.settings import Settings
from ingest_pipeline.testing import Fault
from ingest_pipeline_tests.simulation import people
from ingest_pipeline_tests.simulation.jobs import Job
from ingest_pipeline_tests.simulation.model import BROKEN, GOOD, REFUSED, TOMBSTONE
from ingest_pipeline_tests.simulation.parts import REFUSALS, Break
from ingest_pipeline_tests.simulation.world import World, changed_settings

KINDS = st.lists(st.sampled_from([GOOD, GOOD, GOOD, BROKEN, REFUSED, TOMBSTONE]), min_size=1, max_size=8)
REGROWN = st.one_of(st.just([]), KINDS)
# No st.integers: Hypothesis mixes numbers that stand in the code into those, so an edit anywhere would change examples.
PARTITION = st.sampled_from(range(3))
JOB = st.sampled_from(range(4))
SHARE = st.sampled_from([0.0, 0.3, 0.6, 1.0])
POINTS = ["begin", "own", "read", "decode", "write", "written", "acknowledge", "heartbeat", "recover", "sleep", "store"]
DEATHS = st.sampled_from([*POINTS, "accept", *(fault.value for fault in Fault)])
BREAKS = st.lists(st.sampled_from([None, *Fault, *REFUSALS]), min_size=1, max_size=4)
TOLD: Counter[str] = Counter()
"""How often each rule was applied and each thing happened, over all examples of this process."""


def settings_of(**own: Any) -> Settings:
    """Settings of the stream and its job. The smallest batches are smaller than an operator may set."""
    return changed_settings(Settings(), **{"run_max_seconds": 20, "dead_letter_max_ratio": 1.0, **own})


OWN = st.builds(
    settings_of,
    parallelism=st.sampled_from([1, 2]),
    batch_size=st.sampled_from(range(1, 7)),
    batch_bytes=st.sampled_from([60, 150, 1 << 20]),  # less than a record's; less than two records'
    batch_timeout_seconds=st.sampled_from([0.01, 0.3, 2.0]),
    run_idle_seconds=st.sampled_from([0, 1, 5, 60]),
    run_max_seconds=st.sampled_from([20, 20, 120]),
    run_max_batches=st.sampled_from([0, 0, 2]),
    retry_seconds=st.sampled_from([0, 30]),
    on_data_loss=st.sampled_from(["stop", "stop", "continue"]),
    tombstones=st.sampled_from(["skip", "skip", "dead-letter"]),
    dead_letter_limit=st.sampled_from(["on", "off"]),
    dead_letter_max_consecutive=st.sampled_from([1, 3]),
    records_per_commit=st.sampled_from([1, 20]),
)


def step(**strategies: Any) -> Callable[[Callable[..., None]], Any]:
    """A rule that is counted."""

    def counted(function: Callable[..., None]) -> Any:
        @wraps(function)
        def apply(self: Simulation, **arguments: Any) -> None:
            TOLD["steps"] += 1
            TOLD[f"rule {function.__name__}"] += 1
            function(self, **arguments)

        return rule(**strategies)(apply)

    return counted


class Simulation(RuleBasedStateMachine):
    """Attributes: observe: called at the end of each example."""

    world: World
    observe: ClassVar[Callable[[], None]] = staticmethod(lambda: None)

    @initialize(own=OWN, partitions=st.sampled_from([1, 2, 3]))
    def begin(self, own: Settings, partitions: int) -> None:
        self.world = World(own, partitions)

    # --- Kafka ------------------------------------------------------------------------------------------------------

    @step(partition=PARTITION, kinds=KINDS)
    def produce(self, partition: int, kinds: list[str]) -> None:
        self.world.kafka.produce(partition, kinds)

    @step(partition=PARTITION)
    def begin_transaction(self, partition: int) -> None:
        self.world.kafka.begin_transaction(partition)

    @step(partition=PARTITION, commit=st.booleans())
    def end_transaction(self, partition: int, commit: bool) -> None:
        self.world.kafka.end_transaction(partition, commit)

    @step(how=st.sampled_from(["compact", "change_leader", "add_partition"]), partition=PARTITION)
    def change(self, how: str, partition: int) -> None:
        """What is no loss."""
        getattr(self.world.kafka, how)(partition)

    @step(how=st.sampled_from(["retention", "truncate"]), partition=PARTITION, share=SHARE, regrown=REGROWN)
    def lose(self, how: str, partition: int, share: float, regrown: list[str]) -> None:
        """Read or not, from the log's beginning or from its end."""
        getattr(self.world.kafka, how)(partition, share)
        self.world.kafka.produce(partition, regrown)

    @step(partitions=st.sampled_from([1, 2, 3]), regrown=REGROWN, rounds=st.sampled_from([0, 0, 1, 3]))
    def recreate(self, partitions: int, regrown: list[str], rounds: int = 0) -> None:
        """`rounds`: with as much as it held and more, so that who reads it meets no error and goes on for a while."""
        ends = dict(self.world.model.ends)
        partitions = len(ends) if rounds else partitions
        self.world.kafka.recreate(partitions)
        for partition in range(partitions):
            before = [GOOD] * ends[partition] if rounds else []
            self.world.kafka.produce(partition, before + regrown * (partition + 1))
        for _ in range(rounds):
            self.go_all(20)
            self.world.kafka.produce(0, [GOOD, GOOD])
            self.world.tick(20.0)

    @step(away=st.sampled_from(["nobody", "nobody", "Kafka", "PostgreSQL"]))
    def outage(self, away: str) -> None:
        self.world.broker.set_unavailable(away == "Kafka")
        self.world.database().reachable = away != "PostgreSQL"

    @step(partition=PARTITION, away=st.booleans())
    def leader(self, partition: int, away: bool) -> None:
        """The broker that leads one partition goes away, or comes back."""
        self.world.kafka.leader_away(partition, away)

    # --- Dagster and its processes ----------------------------------------------------------------------------------

    @step(seconds=st.sampled_from([5.0, 5.0, 8.0, 30.0, 300.0]))
    def tick(self, seconds: float) -> None:
        self.world.tick(seconds)

    @step(ticks=st.sampled_from([1, 2, 3]), points=st.sampled_from([5, 30, 100]))
    def work(self, ticks: int, points: int) -> None:
        for _ in range(ticks):
            self.world.tick()
            self.go_all(points)

    @step(partition=PARTITION, kinds=KINDS, points=st.sampled_from([5, 15, 40]))
    def produce_and_work(self, partition: int, kinds: list[str], points: int) -> None:
        self.world.kafka.produce(partition, kinds)
        self.world.tick()
        self.go_all(points)

    @precondition(lambda self: self.world.processes.alive())
    @step(which=JOB, points=st.sampled_from([1, 3, 10, 40, 150]))
    def go(self, which: int, points: int) -> None:
        self.world.processes.go(self.job(which), points)

    @step(which=JOB, at=DEATHS, lingers=st.booleans(), partition=PARTITION, kinds=KINDS)
    def kill(self, which: int, at: str, lingers: bool, partition: int, kinds: list[str]) -> None:
        """A process dies, at that point if it gets there."""
        self.world.kafka.produce(partition, kinds)
        self.world.tick()
        if self.world.processes.alive():
            self.world.processes.kill(self.job(which), at, lingers)

    @step(
        which=JOB,
        at=st.sampled_from(POINTS),
        ticks=st.sampled_from(range(7)),
        points=st.sampled_from([3, 5, 40]),
        partition=PARTITION,
        kinds=KINDS,
    )
    def freeze(self, which: int, at: str, ticks: int, points: int, partition: int, kinds: list[str]) -> None:
        """A process is frozen; the server gives its locks away, others go on, and it wakes up."""
        self.world.kafka.produce(partition, kinds)
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

    @precondition(lambda self: self.world.database().reachable and self.world.must_stand_still())
    @step(wanted=st.sampled_from([None, None, None, "earliest", "latest"]), only=st.sampled_from([None, None, 0, 1]))
    def accept_loss(self, wanted: str | None, only: int | None) -> None:
        self.world.processes.go(people.accept_loss(self.world, wanted, only), 4)

    @precondition(lambda self: self.world.checks.rows)
    @step(
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
    ) -> None:
        """Somebody deletes rows from the event table, and has them read again."""
        if delete_every:
            people.delete_rows(self.world, delete_every)
        job = people.replay(self.world, partition, sorted(shares), held)
        if dies:
            self.world.processes.kill(job, "store", False)
        else:
            self.world.processes.go(job, points)

    @precondition(lambda self: self.world.database().reachable and "open" in self.world.checks.letters.values())
    @step(mended=st.booleans())
    def redrive(self, mended: bool) -> None:
        people.redrive(self.world, mended)

    @precondition(lambda self: self.world.database().reachable)
    @step(how=st.sampled_from(["allow_letters", "discard", "pause", "resume", "resume"]))
    def steer(self, how: str) -> None:
        getattr(people, how)(self.world)

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
        self.world.set_strict(strict)

    # --- the end ----------------------------------------------------------------------------------------------------

    @invariant()
    def holds(self) -> None:
        self.world.checks.unchanged()

    def go_all(self, points: int, frozen: Job | None = None) -> None:
        for job in list(self.world.processes.alive()):
            if job is not frozen:
                self.world.processes.go(job, points)

    def job(self, which: int) -> Any:
        alive = self.world.processes.alive()
        return alive[which % len(alive)]

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
