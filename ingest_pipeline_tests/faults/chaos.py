"""Random faults on a running system, and a proof at the end: no record is lost or stored twice.

    python -m ingest_pipeline_tests.faults.chaos --faults 30 --seed 1

The seed chooses the faults, their order and their lengths. What a fault hits depends on the moment. The exit code is 0
only if everything held.
"""

import argparse
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from ingest_pipeline.cli.progress import progress
from ingest_pipeline_tests.faults import chaos_oracle as oracle
from ingest_pipeline_tests.faults import feed
from ingest_pipeline_tests.faults.chaos_brokers import CLUSTER_FAULTS
from ingest_pipeline_tests.faults.chaos_servers import FAULTS, deck
from ingest_pipeline_tests.faults.chaos_streams import STREAM_FAULTS, doomed_rows
from ingest_pipeline_tests.faults.chaos_world import World
from ingest_pipeline_tests.orchestration.bench import wait_for

PROMISED_SECONDS = 60.0
"""A record written after the beginning of a fault must become a row within this time, even while the fault lasts. On a
busy machine the limit is STARTS times the duration of a start, and never more than LONGEST_SECONDS.
"""
STARTS = 3
LONGEST_SECONDS = 180.0
PATIENCE_SECONDS = 150.0
"""Extra time that distinguishes a slow system from a stuck one."""
_END_SECONDS = 120.0
FAULTS_OF_ALL_WORLDS = FAULTS | CLUSTER_FAULTS | STREAM_FAULTS


class Chaos:
    """One chaos run. `wrong` has a line for everything that did not hold."""

    def __init__(self, world: World, seed: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.world, self._seed, self._clock = world, seed, clock
        self._promised = PATIENCE_SECONDS
        self.counted = ""
        self.wrong: list[str] = []
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)

    def run(self, kinds: list[str]) -> None:
        world = self.world
        with oracle.Watch(world) as watch:
            with world.producers:
                try:
                    self._all(kinds)
                except AssertionError as error:  # something is stuck: what there is shall be compared all the same
                    self.wrong.append(self._with_evidence(str(error)))
            self.wrong += self._at_the_end()
        self.wrong += [f"position went back: {line}" for line in watch.went_back[:5]]
        self.wrong += [f"taken for a loss: {line}" for line in sorted(watch.losses)]
        if not watch.looks:
            self.wrong.append("nobody watched the positions")

    def _all(self, kinds: list[str]) -> None:
        took = self._fresh_rows("the start")
        self._promised = min(max(PROMISED_SECONDS, STARTS * took), LONGEST_SECONDS)
        say(f"  0  {'start':<36} rows after {took:5.1f} s  from now on within {self._promised:.0f} s")
        with progress("faults", len(kinds), self._clock) as show:
            for number, kind in enumerate(kinds, 1):
                self._strike(number, kind)
                show(number)

    def _strike(self, number: int, kind: str) -> None:
        draw = random.Random(f"{self._seed}/{number}")
        self.world.producers.burst()
        time.sleep(draw.uniform(0.2, 1.2))  # the moment is the point
        began_at = time.monotonic()
        struck = FAULTS_OF_ALL_WORLDS[kind][1](self.world, draw)
        lasted = time.monotonic() - began_at
        after = f"fault {number}, {kind}, {struck.target}"
        try:
            taken = self._fresh_rows(after, besides=struck.stream)
        finally:
            struck.heal()
        if struck.stream:
            self._fresh_rows(f"the end of {after}")
        self.seconds[kind].append(taken)
        say(f"{number:3}  {kind:<36} rows after {taken:5.1f} s  {struck.target} ({lasted:.1f} s)")
        self.wrong += [f"after fault {number}: {line}" for line in self.world.torn()]
        self.world.producers.check()

    def _fresh_rows(self, after: str, besides: str = "") -> float:
        """Seconds from now until a new record of every partition is a row, except the partitions of one stream."""
        began_at = time.monotonic()
        missing = [record for record in self.world.producers.fresh() if record.stream != besides]
        late = False
        while missing := self.world.missing(missing):
            time.sleep(0.1)
            taken = time.monotonic() - began_at
            if taken > self._promised and not late:
                late = True
                problem = f"after {after}: no row in {self._promised:.0f} s for {[tuple(record) for record in missing]}"
                self.wrong.append(self._with_evidence(problem))
                say(self.wrong[-1])
            if taken > self._promised + PATIENCE_SECONDS:
                raise AssertionError(f"stuck after {after}: {[tuple(record) for record in missing]}")
        return time.monotonic() - began_at

    def _with_evidence(self, problem: str) -> str:
        """The current state of sensors, Dagster, its storage files and PostgreSQL's sessions."""
        return "\n     ".join([problem, *self.world.dagster.said(), *self.world.left_behind()])

    def _at_the_end(self) -> Iterator[str]:
        """Stop the producers, wait for lag 0 and the end of all runs, then compare every record."""
        world, issued = self.world, self.world.producers.issued
        log = oracle.read_log(world.kafka.bootstrap_servers)
        yield from self._in_vain("lag 0", lambda: self._lag(log) == 0, _END_SECONDS)
        yield from self._in_vain("the end of every run", lambda: not world.dagster.run_processes(), _END_SECONDS)
        if late := self._in_vain("the end of every session", lambda: not world.left_behind(), 10.0):
            yield from [*late, *world.left_behind()]
        yield from oracle.broker_faults(log, issued)
        yield from oracle.differences(world, log, issued)
        if world.doomed is not None and doomed_rows(world) != (world.doomed.sent, world.doomed.sent):
            yield f"doomed: {doomed_rows(world)} rows and different records, sent {world.doomed.sent}"
        letters = sum(feed.kind(number) == "dead letter" for number in log.records.values())
        self.counted = f"{len(log.records):,} records, {letters:,} dead letters among them, none lost, none twice"
        self.counted += f"; of {len(issued.aborted):,} aborted ones none seen; no loss noted; nothing left behind"

    def _in_vain(self, what: str, condition: Callable[[], bool], seconds: float) -> list[str]:
        try:
            wait_for(what, condition, seconds, every=0.5)
        except AssertionError as error:
            return [str(error)]
        return []

    def _lag(self, log: oracle.Log) -> int:
        statement = "select next_offset from ingest.position where stream = any(%s)"
        return sum(log.ends.values()) - sum(offset for (offset,) in self.world.sql(statement, list(feed.SHAPES)))


def say(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)


def table(seconds: defaultdict[str, list[float]]) -> Iterator[str]:
    yield f"{'fault':<36} {'count':>5} {'median':>8} {'longest':>8}"
    for kind, taken in sorted(seconds.items()):
        yield f"{kind:<36} {len(taken):>5} {statistics.median(taken):>6.1f} s {max(taken):>6.1f} s"


def main() -> int:
    parser = argparse.ArgumentParser(description="Faults at random, and the proof that nothing was lost or twice.")
    parser.add_argument("--faults", type=int, default=30, help="how many (default 30)")
    parser.add_argument("--seed", type=int, default=1, help="which (default 1)")
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1, help="how many brokers Kafka has (default 1)")
    parser.add_argument("--streams", type=int, default=2, help="how many streams --job has (default 2)")
    parser.add_argument("--job", default="", help="drains all streams (default a job for each of two streams)")
    parser.add_argument(
        "--only", choices=FAULTS_OF_ALL_WORLDS, action="append", help="a kind; may be given again (default all)"
    )
    chosen = parser.parse_args()
    faults = {**(FAULTS if chosen.brokers == 1 else CLUSTER_FAULTS), **(STREAM_FAULTS if chosen.job else {})}
    if chosen.streams != 2 and not chosen.job:
        parser.error("--streams needs --job")
    if unknown := set(chosen.only or ()) - faults.keys():
        parser.error(f"not with {chosen.brokers} brokers: {', '.join(sorted(unknown))}")
    if chosen.only:
        faults = {kind: faults[kind] for kind in faults if kind in chosen.only}
    for number in (signal.SIGINT, signal.SIGTERM):  # a background job has SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    began_at = time.monotonic()
    jobs = f"{chosen.streams} streams in one job" if chosen.job else "a job for each stream"
    plan = f"{chosen.faults} faults, seed {chosen.seed}, brokers {chosen.brokers}, {jobs}"
    say(f"chaos with {plan}; logs in {folder}")
    with World(folder, chosen.seed, brokers=chosen.brokers, streams=chosen.streams, job=chosen.job) as world:
        chaos = Chaos(world, chosen.seed)
        chaos.run(deck(chosen.seed, chosen.faults, faults))
        say("", *table(chaos.seconds), "", *chaos.wrong)
    taken = f"{plan}, {time.monotonic() - began_at:.0f} s"
    if chaos.wrong:
        say(f"BROKEN: {len(chaos.wrong)} things did not hold ({taken}); logs in {folder}")
        return 1
    shutil.rmtree(folder)
    say(f"HELD: {chaos.counted} ({taken})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
