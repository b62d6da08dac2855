"""The faults of a chaos run."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from dataclasses import dataclass

import dagster as dg

from ingest_pipeline.orchestration import tags
from ingest_pipeline_tests.faults.chaos_world import World
from ingest_pipeline_tests.faults.supervised import pid_of, send
from ingest_pipeline_tests.orchestration.bench import wait_for


@dataclass(frozen=True)
class Struck:
    """What a fault hit, in words, and what ends it once the fresh records have arrived in spite of it."""

    target: str
    heal: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Fault:
    """`share`: how often it comes in a deck of all."""

    kind: str
    share: int
    strike: Callable[[World, random.Random], Struck]


def kill_run(world: World, draw: random.Random) -> Struck:
    run = a_run(world, draw)
    send(pid_of(run), signal.SIGKILL)
    return Struck(named(run))


def a_run(world: World, draw: random.Random) -> dg.DagsterRun:
    return draw.choice(wait_for("a live run", world.dagster.live_runs))


def named(run: dg.DagsterRun) -> str:
    return f"{run.tags[tags.STREAM]} {run.tags[tags.SHARD]} run {run.run_id[:8]}"


FAULTS = [
    Fault("kill a run", 4, kill_run),
]


def deck(seed: int, count: int) -> list[Fault]:
    """So many faults in the order of this seed: all kinds by their shares, shuffled, again and again."""
    draw = random.Random(f"{seed}/deck")
    dealt: list[Fault] = []
    while len(dealt) < count:
        lot = [fault for fault in FAULTS for _ in range(fault.share)]
        draw.shuffle(lot)
        dealt += lot
    return dealt[:count]
