"""What people do to a stream, as the CLI does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.errors import IngestError
from ingest_pipeline.core.letter_filter import LetterFilter
from ingest_pipeline.core.start import survey
from ingest_pipeline.operations import losses, replays
from ingest_pipeline.testing import MemoryDeadLetters
from ingest_pipeline_tests.samples import READING
from ingest_pipeline_tests.simulation.checks import LETTER, ROW
from ingest_pipeline_tests.simulation.jobs import Job
from ingest_pipeline_tests.simulation.model import GOOD, mended
from ingest_pipeline_tests.simulation.world import World


def accept_loss(world: World, wanted: str | None = None, only: int | None = None) -> Job:
    """`ingest accept-loss`, begun: it waits for runs to let go."""

    def work() -> None:
        topic, ledger = world.topic(READING), world.ledger(READING)
        seen = survey(topic, ledger)
        found = seen.losses
        for loss in found:
            assert world.checks.real_loss(world.table.positions[loss.partition]), f"none is lost: {loss.said}"
        found = [loss for loss in found if only in (None, loss.partition)]
        if found:
            accepted = losses.acceptances(topic, found, wanted)
            losses.accept(world.process_context(), accepted, seen.identity, by="operator")

    job = _command(world, "accept-loss", work)
    job.waives = wanted == "latest"
    return job


def replay(world: World, partition: int, shares: Sequence[float], held: bool) -> Job:
    """`ingest replay` of a part of what was ingested, begun. `held`: of what Kafka still has of it."""
    passed = [at for at in world.table.positions.values() if at.rows] or list(world.table.positions.values())
    at = passed[partition % len(passed)]
    partition = at.partition
    low = max(at.first_offset, world.model.starts.get(partition, 0)) if held else 0
    start, stop = (low + round((at.next_offset - low) * share) for share in shares)

    def work() -> None:
        wanted = replays.ReplayRequest(partition, start, stop + 1)
        context = world.process_context()
        (found,) = replays.ranges(wanted, context)
        done = replays.run_replay([found], context)
        assert done.offsets == found.stop - found.start
        if world.model.event != job.since:
            return
        for offset, version in world.model.alive(partition, found.start, found.stop):
            at = (found.incarnation, partition, offset)
            lettered = world.checks.letters.get(at, "redriven") != "redriven"
            assert lettered or at in world.table.rows or not world.model.becomes_row(version, job.mended), at
        world.count["replays without a change beside them"] += 1

    job = _command(world, "replay", work)
    return job


def redrive(world: World, decoder_mended: bool) -> None:
    """`ingest dead-letters redrive`, with today's or tomorrow's decoder."""
    checks, table = world.checks, world.table
    decode = JsonDecoder(READING).decode
    counters = dict(table.positions)
    open_before = [at for at, status in checks.letters.items() if status == "open"]
    letters = MemoryDeadLetters(world.database(), READING)
    letters.redrive(LetterFilter(), lambda v: decode(mended(v) if decoder_mended else v))
    for at in open_before:
        version = checks.of[at]
        becomes = world.model.becomes_row(version, decoder_mended)
        assert becomes == (table.settled.get(at) == "redriven"), at
        if becomes:
            checks.letters[at] = "redriven"
            checks.rows[at] = version.device
            world.count["letters redriven"] += 1
    assert table.positions == counters
    checks.unchanged()


def discard(world: World) -> None:
    """`ingest dead-letters discard` of those that the decoder refused."""
    letters, refused = MemoryDeadLetters(world.database(), READING), LetterFilter(reason="Expected")
    world.checks.letters.update(dict.fromkeys(letters.open(refused), "discarded"))
    world.count["letters discarded"] += letters.discard(refused)


def delete_rows(world: World, every: int) -> None:
    """Somebody deletes rows from the event table."""
    for at in list(world.checks.rows)[::every]:
        if world.checks.outcome.get(at) in (ROW, LETTER):
            del world.checks.rows[at], world.table.rows[at]


def pause(world: World) -> None:
    """`ingest pause`."""
    world.ledger(READING).pause("maintenance", "operator")


def resume(world: World) -> None:
    """`ingest resume`."""
    world.ledger(READING).resume()


def allow_letters(world: World, count: int = 5) -> None:
    """`ingest dead-letters allow`."""
    world.ledger(READING).allow_letters(count)
    world.checks.allowance = count


def catch_up(world: World) -> None:
    """Faults stop and an operator does what the messages say: everything is accounted for in bounded time."""
    world.broker.set_unavailable(False)
    for partition in world.model.ends:
        world.kafka.leader_away(partition, False)
    world.database().reachable = True
    world.database().breaks.clear()
    world.start_seconds = 0.0
    world.ledger(READING).resume()
    world.kafka.end_transactions()
    _settle(world)
    for partition in world.model.ends:  # a log cut and regrown to the very same end is found with its next record
        world.kafka.produce(partition, [GOOD])
    _settle(world)
    world.checks.unchanged()
    for partition, at in world.table.positions.items():
        assert at.next_offset == world.model.ends[partition]
        for offset, version in world.model.alive(partition, 0, at.next_offset):
            assert version.settled, f"partition {partition} offset {offset}: {version} is in no table"


def _settle(world: World) -> None:
    """Ticks, runs and acceptances until nothing is left to do."""
    for _ in range(60 + sum(world.model.ends.values())):  # a run may end after two batches of one record
        if world.letter_limit is not None:
            allow_letters(world, 100_000)
        world.tick(60.0)
        if world.must_stand_still() or world.ledger(READING).losses():
            accept_loss(world)
        for job in list(world.processes.alive()):
            world.processes.go(job, 2_000)
        if world.lag() == 0 and not world.must_stand_still() and not world.busy() and not world.processes.alive():
            return
    raise AssertionError(f"not caught up: lag {world.lag()}, {world.must_stand_still()}")


def _command(world: World, name: str, work: Callable[[], None]) -> Job:
    def run() -> None:
        try:
            work()
            world.count[f"{name}: done"] += 1
        except IngestError as error:
            world.count[f"{name}: {type(error).__name__}"] += 1

    return world.processes.start(name, run, world.mended)
