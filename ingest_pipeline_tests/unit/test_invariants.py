"""Invariants 1 to 5 of the design, under any order of records, faults, kills and takeovers.

A run is killed while it decodes (nothing written), inside a write (before it, before COMMIT, after COMMIT) and before
it acknowledges; the next run starts where the ledger says. A second run may take over while the first one believes that
it still owns its partitions. After every step the whole ledger is compared with what was produced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ingest_pipeline.core.batch import BatchLimits
from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.drain import Drain, RunLimits
from ingest_pipeline.core.errors import EnvironmentFault, Superseded
from ingest_pipeline.core.record import Place
from ingest_pipeline.core.start import StartPolicy, StoredPosition, begin
from ingest_pipeline.testing import (
    Fault,
    MemoryBook,
    MemoryBroker,
    MemoryDatabase,
    MemoryLedger,
    MemorySource,
    MemoryTopic,
    SettableClock,
)
from ingest_pipeline_tests.samples import BAD, READING, STEADY, good

PARTITIONS = (0, 1)
COLDEST = -273.15
GOOD, BROKEN, REFUSED, TOMBSTONE, ABSENT = "good", "broken", "refused", "tombstone", "absent"


class Killed(BaseException):
    """The process is gone: nothing after this is executed, nothing is cleaned up but by the server."""


@dataclass
class Script:
    """What happens to one run. Counters count down at their point; 0 is now."""

    limits: BatchLimits
    max_batches: int
    retry_seconds: float
    faults: list[Fault | None]
    kill_in_decode: int
    kill_in_acknowledge: int
    overtaken_after: int
    overtaker_dies: bool
    appended_after: int


def scripts() -> st.SearchStrategy[Script]:
    seldom = st.one_of(st.just(-1), st.integers(0, 6))
    return st.builds(
        Script,
        st.builds(BatchLimits, st.integers(1, 5), st.integers(50, 600), st.sampled_from([0.01, 0.3, 2.0])),
        st.integers(0, 3),
        st.sampled_from([0.0, 30.0]),
        st.lists(st.sampled_from([None, *Fault]), max_size=4),
        seldom,
        seldom,
        seldom,
        st.booleans(),
        seldom,
    )


PLAIN = Script(BatchLimits(100, 1 << 20, 0.1), 0, 30.0, [], -1, -1, -1, False, -1)


@dataclass
class Countdown:
    """Calls `then` once, at the call that the number says."""

    left: int
    then: Callable[[], object]

    def __call__(self) -> None:
        self.left -= 1
        if self.left == -1:
            self.then()


def kill() -> None:
    raise Killed


class DyingSource(MemorySource):
    """A source whose process ends before an acknowledgement."""

    dies: Callable[[], None]

    def acknowledge(self, places: Mapping[int, Place]) -> None:
        self.dies()
        super().acknowledge(places)


@dataclass
class World:
    clock: SettableClock = field(default_factory=SettableClock)
    broker: MemoryBroker = field(default_factory=lambda: MemoryBroker({READING.topic: len(PARTITIONS)}))
    produced: dict[tuple[int, int], str] = field(default_factory=dict)
    seen: dict[int, StoredPosition] = field(default_factory=dict)
    runs: int = 0
    fenced: dict[int, StoredPosition] | None = None

    def __post_init__(self) -> None:
        self.database = MemoryDatabase(self.clock)
        self.database.check(READING.name, "above_zero_kelvin", lambda row: row[5] > COLDEST)
        self.book = MemoryBook(self.database, READING)
        policy = StartPolicy("earliest", None, "ingest-reading")
        begin(MemoryTopic(self.broker, READING.topic), self.book, policy, READING.name)

    def produce(self, partition: int, kind: str) -> None:
        end = self.broker.log(READING.topic, partition).end
        device = f"{partition}/{end}"
        if kind == ABSENT:
            self.broker.append_marker(READING.topic, partition)
        else:
            value = {GOOD: good(device), BROKEN: BAD, REFUSED: good(device, COLDEST), TOMBSTONE: None}[kind]
            self.broker.append(READING.topic, partition, value, timestamp_ms=1_700_000_000_000)
        self.produced[partition, end] = kind

    def run(self, script: Script | None = None) -> None:
        """One run from its start to its end, whichever that is."""
        script = script or PLAIN
        self.runs += 1
        ledger = MemoryLedger(self.database, READING, f"run-{self.runs}")
        assert ledger.own(PARTITIONS, exact=True) == {}
        source = DyingSource(self.broker, READING.topic, self.clock)
        source.dies = Countdown(script.kill_in_acknowledge, kill)
        dies = Countdown(script.kill_in_decode, kill)
        overtaken = Countdown(script.overtaken_after, lambda: self.overtake(ledger, script.overtaker_dies))
        appended = Countdown(script.appended_after, lambda: [self.produce(1, GOOD) for _ in range(3)])
        decode = JsonDecoder(READING).decode

        def decode_or_die(value: bytes) -> tuple[Any, ...]:
            dies()
            return decode(value)

        def observe(progress: object) -> None:
            self.check()
            appended()
            overtaken()

        self.database.script(*script.faults)
        limits = RunLimits(60.0, 0.0, script.max_batches, script.retry_seconds)
        drain = Drain(
            source, ledger, decode_or_die, script.limits, limits, self.clock, stop=lambda: None, observe=observe
        )
        try:
            drain.run()
        except (Killed, EnvironmentFault):
            pass
        except Superseded:
            assert script.overtaken_after >= 0
        if self.fenced is not None:
            assert self.database.table(READING.name).positions == self.fenced, "an overtaken run wrote"
        self.fenced = None
        self.database.clear_script()
        ledger.close()

    def overtake(self, ledger: MemoryLedger, dies: bool) -> None:
        """The locks are gone without the owner's noticing; another run takes them, and drains everything or dies."""
        self.database.free(ledger.session)
        self.produce(0, GOOD)
        self.run(replace(PLAIN, kill_in_decode=0) if dies else PLAIN)
        self.fenced = dict(self.database.table(READING.name).positions)

    def check(self) -> None:
        """Invariants 1 to 5 at this very moment."""
        table = self.database.table(READING.name)
        assert not table.rows.keys() & table.dead_letters.keys()
        for partition, at in table.positions.items():
            before = self.seen.get(partition, at)
            assert at.next_offset >= before.next_offset
            assert at.next_offset - at.first_offset == at.rows + at.dead_letters + at.skipped + at.absent + at.lost
            kinds = {o: kind for (p, o), kind in self.produced.items() if p == partition and o < at.next_offset}
            rows = {o: row for (_, p, o), row in table.rows.items() if p == partition}
            letters = {o: letter for (_, p, o), letter in table.dead_letters.items() if p == partition}
            assert set(rows) == {o for o, kind in kinds.items() if kind == GOOD}
            assert set(letters) == {o for o, kind in kinds.items() if kind in (BROKEN, REFUSED)}
            assert all(row[4] == f"{partition}/{o}" for o, row in rows.items())
            assert list(rows) == sorted(rows), "rows of a partition are stored in its log's order"
            found = (at.rows, at.dead_letters, at.skipped, at.absent, at.lost)
            counts = [sum(kind == wanted for kind in kinds.values()) for wanted in (TOMBSTONE, ABSENT)]
            assert found == (len(rows), len(letters), *counts, 0)
            self.seen[partition] = at
        told = self.broker.groups.get(("ingest", READING.topic), {})
        assert all(offset.next_offset <= table.positions[p].next_offset for p, offset in told.items())


class Invariants(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @rule(
        partition=st.sampled_from(PARTITIONS),
        kinds=st.lists(st.sampled_from([GOOD, GOOD, GOOD, BROKEN, REFUSED, TOMBSTONE, ABSENT]), min_size=1, max_size=8),
    )
    def produce(self, partition: int, kinds: list[str]) -> None:
        for kind in kinds:
            self.world.produce(partition, kind)

    @rule(script=scripts())
    def run(self, script: Script) -> None:
        self.world.run(script)

    @rule(seconds=st.sampled_from([0.1, 5.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        self.world.clock.advance(seconds)

    @rule(partition=st.sampled_from(PARTITIONS))
    def change_leader(self, partition: int) -> None:
        self.world.broker.change_leader(READING.topic, partition)

    @invariant()
    def holds(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        """Once the faults stop, everything produced is accounted for: conservation."""
        self.world.run()
        self.world.check()
        for partition, at in self.world.book.positions().items():
            assert at.next_offset == self.world.broker.log(READING.topic, partition).end


TestInvariants = Invariants.TestCase
TestInvariants.settings = settings(STEADY, max_examples=250, stateful_step_count=12)
