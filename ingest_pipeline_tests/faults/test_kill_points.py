"""A run killed at any step, and a second run after it, leave the same result as one undisturbed run."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ingest_pipeline.streams import STREAMS
from ingest_pipeline_tests.faults import kill_points
from ingest_pipeline_tests.faults.kill_points_world import BATCH, BATCHES, NAME, SHARED_JOB, Case, World, world_of
from ingest_pipeline_tests.servers.broker import RealKafka
from ingest_pipeline_tests.servers.choose import RealPostgres

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def cases() -> Iterator[Case]:
    points = list(kill_points.POINTS)
    durable = points.index("commit_sent")
    for place, point in enumerate(points):
        if "group" in point:  # after an answer about the group: any number of batches may be through
            yield Case(point, 1, 1, or_more=True)
        else:
            yield from (Case(point, nth, nth if place >= durable else nth - 1) for nth in (1, 3))


@pytest.fixture(scope="module")
def world(
    kafka_server: RealKafka, postgres_server: RealPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """One stream with a job of its own."""
    with world_of(STREAMS[:1], kafka_server, postgres_server, tmp_path_factory) as world:
        yield world


@pytest.fixture(scope="module")
def shared_world(
    kafka_server: RealKafka, postgres_server: RealPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Two streams of one job."""
    streams = [replace(stream, job=SHARED_JOB) for stream in STREAMS]
    with world_of(streams, kafka_server, postgres_server, tmp_path_factory) as world:
        yield world


def parametrized(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda case: f"{case.point}-{case.nth}")


@parametrized(list(cases()))
def test_a_kill_leaves_the_same_rows_as_no_kill(world: World, case: Case, tmp_path: Path) -> None:
    die_and_go_on(world, case, tmp_path)


@parametrized([case for case in cases() if case.nth > 1 or case.or_more])
def test_a_kill_of_a_shared_run_leaves_every_stream_the_same(shared_world: World, case: Case, tmp_path: Path) -> None:
    die_and_go_on(shared_world, case, tmp_path)


def die_and_go_on(world: World, case: Case, tmp_path: Path) -> None:
    """A run dies, another run drains the rest. The result is that of an undisturbed run."""
    refusing = case.point != "mid_copy"  # there the server would end the COPY by itself
    with world.place(refusing) as place:
        words = place.die(case, tmp_path / "marker")
        check_last_words(case, words)
        accounted = place.accounted()
        assert all(moved == stored for moved, stored in accounted.values()), accounted
        behind = sum(moved for moved, _ in accounted.values())
        total = BATCH * BATCHES * len(world.streams)
        assert behind == BATCH * case.batches or (
            case.or_more and behind in range(BATCH * case.batches, total + 1, BATCH)
        )
        group = place.group_offsets()
        assert all(offset <= accounted[partition][0] for partition, offset in group.items()), group
        if case.nth == 1:
            assert bool(group) == (case.point == "after_group_commit")
        place.drain()
        assert place.contents() == world.unharmed(refusing)


def check_last_words(case: Case, words: dict[str, int]) -> None:
    """The run died in the chosen batch at the chosen step."""
    if "group" in case.point:
        assert words["written"] >= case.nth
        return
    reading = case.point in ("consumed", "decoded")
    assert words["begun"] == case.nth - reading
    assert words["written"] == case.nth - (case.point != "committed")
    if case.point == "mid_copy":
        assert len(NAME) < words["read"] < BATCH * len(NAME)


def test_the_unharmed_run_has_everything(world: World) -> None:
    """The reference result is not empty."""

    def count(refusing: bool, what: str) -> int:
        return len(world.unharmed(refusing)[what])

    kinds = [number % 17 for number in range(BATCH * BATCHES)]
    broken, skipped, cold = kinds.count(9), kinds.count(13), kinds.count(5)
    assert count(False, "temperature") == BATCH * BATCHES - broken - skipped
    assert count(False, "dead letters") == broken
    assert count(True, "temperature") == BATCH * BATCHES - broken - skipped - cold
    assert count(True, "dead letters") == broken + cold
    assert count(True, "positions") == 2
