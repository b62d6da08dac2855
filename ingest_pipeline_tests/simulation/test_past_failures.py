"""What the simulation has found, as the shortest sequence of rules that showed it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ingest_pipeline_tests.simulation.drawn import settings_of
from ingest_pipeline_tests.simulation.machine import Simulation
from ingest_pipeline_tests.simulation.model import BROKEN, GOOD, TOMBSTONE
from ingest_pipeline_tests.simulation.scene import simulation


@contextmanager
def drained(*kinds: str) -> Iterator[Simulation]:
    """One partition with records that have been drained."""
    with simulation() as state:
        state.stream().kafka.produce(0, kinds)
        state.work(ticks=2, points=100)
        yield state


def test_a_cut_log_may_have_regrown_before_anybody_looks() -> None:
    """Cut at 2 and grown to 4, below the position: what stands at 2 and 3 has never been read."""
    with drained(*[GOOD] * 5) as state:
        state.lose(how="truncate", partition=0, share=0.6, regrown=[GOOD] * 2)
        state.tick(seconds=5.0)
        state.accept_loss(start=None, only=None)


def test_a_cut_that_was_noted_may_be_followed_by_a_deeper_one() -> None:
    with drained(*[GOOD] * 5) as state:
        state.lose(how="truncate", partition=0, share=0.3, regrown=[])
        state.tick(seconds=5.0)
        state.lose(how="truncate", partition=0, share=0.6, regrown=[GOOD] * 8)
        state.accept_loss(start=None, only=None)


def test_a_log_cut_and_regrown_to_the_very_same_end_is_found_with_its_next_record() -> None:
    """Until then a tick sees lag 0: it compares offsets, not leader epochs."""
    with drained(*[GOOD] * 5) as state:
        state.lose(how="truncate", partition=0, share=0.6, regrown=[GOOD] * 3)
        state.produce_and_work(partition=0, kinds=[GOOD], points=100)
        state.tick(seconds=5.0)
        assert state.world.count["tick refused: DataLoss"] == 1
        state.accept_loss(start=None, only=None)


@pytest.mark.parametrize("begun", [1, 0])
@pytest.mark.parametrize(("kinds", "held", "regrown"), [([TOMBSTONE] * 3 + [GOOD], True, 8), ([GOOD] * 4, False, 0)])
def test_a_replay_of_a_log_that_was_cut_stores_nothing_and_ends(
    kinds: list[str], held: bool, regrown: int, begun: int
) -> None:
    """Other records stand at the offsets of three skipped tombstones, or none. `begun`: points before the cut."""
    with drained(*kinds) as state:
        if begun:
            state.replay(partition=0, shares=(0.0, 1.0), held=held, delete_every=0, points=begun)
        state.lose(how="truncate", partition=0, share=1.0, regrown=[GOOD] * regrown)
        if begun:
            state.go(which=0, points=200)
        else:
            state.replay(partition=0, shares=(0.0, 1.0), held=held, delete_every=0, points=200)
        assert state.world.count["replay: DataLoss"] == 1


@pytest.mark.parametrize("accepted", [False, True])
def test_a_replay_does_not_go_on_in_a_topic_created_again(accepted: bool) -> None:
    with drained(*[TOMBSTONE] * 3, GOOD) as state:
        state.replay(partition=0, shares=(0.0, 1.0), held=True, delete_every=0, points=1)
        state.recreate(partitions=1, regrown=[GOOD] * 8)
        if accepted:
            state.accept_loss(start=None, only=None)
        state.go(which=0, points=200)
        assert state.world.count["replay: DataLoss" if accepted else "replay: TopicChanged"] == 1


def test_a_topic_may_be_created_again_while_somebody_accepts() -> None:
    """What is accepted is the topic that was looked at; the next tick tells that it is another one again."""
    own = settings_of(batch_size=1, batch_timeout_seconds=0.01, run_idle_seconds=0, retry_seconds=0, parallelism=1)
    own = own.model_copy(update={"batch_bytes": 150, "records_per_commit": 1, "dead_letter_max_consecutive": 1})
    with simulation(own) as state:
        state.produce_and_work(partition=0, kinds=[GOOD], points=5)
        state.recreate(partitions=1, regrown=[])
        state.lose(how="retention", partition=0, share=0.0, regrown=[GOOD])
        state.lose(how="retention", partition=0, share=0.6, regrown=[])
        state.accept_loss(only=None, start=None)
        state.recreate(partitions=1, regrown=[])
        state.produce_and_work(partition=0, kinds=[GOOD], points=5)


def test_two_people_accept_the_same_loss_of_a_partition_that_is_gone() -> None:
    with simulation(partitions=2) as state:
        state.work(ticks=2, points=100)
        state.recreate(partitions=1, regrown=[])
        state.accept_loss(start=None, only=None)
        state.accept_loss(start=None, only=None)


def test_a_successor_is_launched_beside_a_living_run_whatever_failed_before_it() -> None:
    """Backing off is for a stream without a run: a frozen owner's successors fail one after the other here, each of
    them launched while the one before was still at work."""
    own = settings_of(batch_size=1, run_idle_seconds=0, retry_seconds=0, dead_letter_max_consecutive=1, parallelism=1)
    with simulation(own.model_copy(update={"records_per_commit": 1, "batch_timeout_seconds": 0.01})) as state:
        state.freeze(which=0, at="own", ticks=0, points=3, partition=0, kinds=[GOOD] * 9)
        state.produce(partition=0, kinds=[BROKEN])
        state.freeze(which=0, at="begin", ticks=0, points=3, partition=0, kinds=[BROKEN])
        state.freeze(which=0, at="own", ticks=6, points=3, partition=0, kinds=[GOOD])
        assert state.world.count["successors launched: age"] > 1


def test_a_log_truncated_below_its_restart_is_a_loss() -> None:
    """Though nothing of what was cut had been stored."""
    with drained(GOOD) as state:
        state.recreate(partitions=1, regrown=[GOOD])
        state.accept_loss(start="latest", only=None)
        state.lose(how="truncate", partition=0, share=0.6, regrown=[GOOD] * 2)
        state.work(ticks=2, points=100)
        assert state.world.count["tick refused: DataLoss"] == 1


def test_a_stream_begins_again_after_all_its_positions_were_closed() -> None:
    """Only partition 1 had a position. The re-created topic has no partition 1, and the group has the ledger's mark."""
    with simulation() as state:
        state.leader(away=True, partition=0)
        state.change(how="add_partition", partition=0)
        state.produce_and_work(kinds=[GOOD], partition=1, points=100)
        state.recreate(partitions=1, regrown=[], rounds=0)


def test_a_living_run_keeps_its_settings_after_a_deployment() -> None:
    with simulation(settings_of(batch_size=1, records_per_commit=1, run_idle_seconds=0)) as state:
        state.freeze(which=0, at="read", ticks=2, points=3, partition=0, kinds=[GOOD] * 3)
        state.deploy(parallelism=1, batch_size=2, mended=False, strict=False)
