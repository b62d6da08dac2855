"""Runs lose contact in a real Dagster on real servers. The stream continues, and the old run writes nothing more.

A time-out of PostgreSQL takes half a minute, so all runs lose contact at the same time.
"""

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import dagster as dg
import pytest

from ingest_pipeline_tests.faults.ownership_world import LARGE, World
from ingest_pipeline_tests.orchestration.bench import wait_for
from ingest_pipeline_tests.servers.broker import RealKafka
from ingest_pipeline_tests.servers.choose import RealPostgres

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(420)]
MOST_TICKS = 45
"""Limit from the loss of contact to the request for a successor, in the sensor's ticks. An idle machine has one tick a
second, and a busy machine has fewer. The test does not limit the successor's start, which is slow on a busy machine.
"""
BETWEEN_SECONDS = 5.0
LOST = ("idle", "between", "copying", "cut")


@dataclass
class Story:
    """The result for each stream: the run, the time, the seconds until a successor was requested and until the stream
    moved, the sensor's ticks until the request, and how the run ended afterwards.
    """

    runs: dict[str, dg.DagsterRun] = field(default_factory=dict)
    lost_at: dict[str, float] = field(default_factory=dict)
    asked_after: dict[str, float] = field(default_factory=dict)
    ticks_until_asked: dict[str, int] = field(default_factory=dict)
    moved_after: dict[str, float] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)
    frozen_as: dict[str, tuple[str, str, str]] = field(default_factory=dict)

    def lost(self, name: str, run: dg.DagsterRun, seen: tuple[str, str, str]) -> None:
        self.runs[name], self.lost_at[name], self.frozen_as[name] = run, time.time(), seen


@pytest.fixture(scope="module")
def world(
    kafka_server: RealKafka, postgres_server: RealPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("ownership")
    with (
        postgres_server.new_database() as name,
        World(kafka_server, postgres_server.url_of(name), folder, f"-{uuid.uuid4().hex[:8]}") as world,
    ):
        yield world


@pytest.fixture(scope="module")
def story(world: World) -> Story:
    """Four runs lose contact, the fifth is reported as failed, and producers go on writing. Each old run comes back
    after Dagster shows it as failed.
    """
    told = Story()
    lose_touch(world, told)
    disowned = world.run("disowned")
    world.dagster.instance.report_run_failed(disowned, "reported by the test")
    told.runs["disowned"] = disowned
    for name in world.produced:
        world.produce(name)
    wait_for("rows of all", lambda: moved(world, told), 120, every=0.1)
    for name in LOST:
        wait_for(f"the report of {name}", lambda name=name: status(world, told.runs[name]) == "FAILURE", every=0.5)
    world.proxy.let_pass()
    for name in ("idle", "between", "copying"):
        world.thaw(told.runs[name])
    told.outcomes = {name: world.outcome(told.runs[name]) for name in LOST}
    return told


def lose_touch(world: World, told: Story) -> None:
    """One after the other, so that the next runs do not all start in the same second."""
    world.slow_network()
    world.produce("copying", LARGE, padding="x" * 1000)
    copying = world.freeze("copying", lambda state, wait, text: text.startswith("COPY") and wait == "ClientRead")
    told.lost("copying", copying, world.session(copying)[2:])
    time.sleep(BETWEEN_SECONDS)
    world.produce("between", 20)
    between = world.freeze("between", lambda state, wait, text: state == "idle in transaction")
    told.lost("between", between, world.session(between)[2:])
    time.sleep(BETWEEN_SECONDS)
    idle = world.freeze("idle", lambda state, wait, text: state == "idle")
    told.lost("idle", idle, world.session(idle)[2:])
    time.sleep(BETWEEN_SECONDS)
    cut = world.run("cut")
    world.proxy.let_pass()
    world.proxy.black_hole({world.session(cut)[1]})
    told.lost("cut", cut, world.session(cut)[2:])


def moved(world: World, told: Story) -> bool:
    """Whether every stream has all rows. Notes the time for each."""
    for name in LOST:
        if name not in told.moved_after and world.complete(name):
            told.moved_after[name] = time.time() - told.lost_at[name]
            record = world.dagster.instance.get_run_record_by_id(world.run(name).run_id)
            assert record is not None
            asked_at = record.create_timestamp.timestamp()
            told.asked_after[name] = asked_at - told.lost_at[name]
            told.ticks_until_asked[name] = world.dagster.ticks_between(name, told.lost_at[name], asked_at)
    return len(told.moved_after) == len(LOST) and world.complete("disowned")


@pytest.mark.parametrize("name", LOST)
def test_the_stream_moves_again_in_time(story: Story, name: str) -> None:
    ticks = story.ticks_until_asked[name]
    print(
        f"asked for after {ticks} ticks in {story.asked_after[name]:.1f} s, rows after {story.moved_after[name]:.1f} s"
    )
    assert 0 < ticks < MOST_TICKS


@pytest.mark.parametrize(
    ("name", "state", "statement"),
    [("idle", "idle", ""), ("between", "idle in transaction", ""), ("copying", "active", "COPY")],
)
def test_it_was_stopped_where_it_should(story: Story, name: str, state: str, statement: str) -> None:
    frozen_state, _, text = story.frozen_as[name]
    assert frozen_state == state
    assert text.startswith(statement)


@pytest.mark.parametrize("name", LOST)
def test_it_ends_when_it_is_back_and_owns_nothing(story: Story, world: World, name: str) -> None:
    """A run that was away during a write for longer than RETRY_SECONDS does not try to own its partitions again."""
    assert story.outcomes[name] in ("superseded", "failed:DatabaseUnavailable")
    owners = set(world.sql("select run_id from ingest.position where stream = %s", name))
    assert len(owners) == 1
    assert story.runs[name].run_id not in owners


@pytest.mark.parametrize("name", LOST)
def test_nothing_is_lost_or_twice(story: Story, world: World, name: str) -> None:
    assert world.complete(name)
    counted = world.sql('select sum("rows")::int, sum(next_offset)::int from ingest.position where stream = %s', name)
    assert counted == [(world.produced[name],) * 2]


def test_a_run_reported_failed_that_lives_on_stays_the_only_writer(story: Story, world: World) -> None:
    run = story.runs["disowned"]
    assert status(world, run) == "FAILURE"
    assert set(world.sql("select run_id from ingest.position where stream = 'disowned'")) == {run.run_id}
    launched = world.dagster.instance.get_runs(dg.RunsFilter(job_name="drain_disowned"))
    assert [launch.run_id for launch in launched] == [run.run_id]
    world.produce("disowned")
    wait_for("its rows", lambda: world.complete("disowned"), every=0.1)


def status(world: World, run: dg.DagsterRun) -> str:
    record = world.dagster.instance.get_run_by_id(run.run_id)
    assert record is not None
    return record.status.value
