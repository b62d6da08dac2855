"""What people do to a stream, in the way of the CLI."""

from collections.abc import Callable, Collection, Sequence

from ingest_pipeline.core.decode import JsonDecoder
from ingest_pipeline.core.errors import IngestError
from ingest_pipeline.core.ledger import LetterFilter
from ingest_pipeline.core.start import survey
from ingest_pipeline.operations import losses, replays
from ingest_pipeline.testing import MemoryDeadLetters
from ingest_pipeline_tests.samples import READING
from ingest_pipeline_tests.simulation.checks import LETTER, ROW
from ingest_pipeline_tests.simulation.jobs import Job
from ingest_pipeline_tests.simulation.model import GOOD, mended
from ingest_pipeline_tests.simulation.streams import SimStream
from ingest_pipeline_tests.simulation.world import World


def accept_loss(world: World, stream: SimStream, start: str | None = None, only: int | None = None) -> Job:
    """`ingest accept-loss`, begun. The command waits for runs to release the partitions."""

    def work() -> None:
        topic = stream.topic
        seen = survey(topic, stream.ledger)
        found = seen.losses
        for loss in found:
            position = stream.table.positions[loss.partition]
            assert stream.checks.real_loss(position), f"none is lost: {loss.description}"
        found = [loss for loss in found if only in (None, loss.partition)]
        if found:
            accepted = losses.acceptances(topic, found, start)
            losses.accept(world.context(stream), accepted, seen.identity, by="operator")

    job = _command(world, "accept-loss", work)
    job.waives = start == "latest"
    return job


def replay(world: World, stream: SimStream, partition: int, shares: Sequence[float], held: bool = False) -> Job:
    """`ingest replay` of a part of what was ingested, begun. `held`: only of what Kafka still has."""
    positions, model = stream.table.positions, stream.model
    passed = [position for position in positions.values() if position.rows] or list(positions.values())
    position = passed[partition % len(passed)]
    partition = position.partition
    low = max(position.first_offset, model.starts.get(partition, 0)) if held else 0
    start, stop = (low + round((position.next_offset - low) * share) for share in shares)

    def work() -> None:
        context = world.context(stream)
        (found,) = replays.ranges(replays.ReplayRequest(partition, start, stop + 1), context)
        done = replays.run_replay([found], context)
        assert done.total == found.stop - found.start
        if model.event != job.since[stream.stream.topic]:
            return
        for offset, version in model.alive(partition, found.start, found.stop):
            key = (found.incarnation, partition, offset)
            lettered = stream.checks.letters.get(key, "redriven") != "redriven"
            assert lettered or key in stream.table.rows or not model.becomes_row(version, job.mended), key
        world.count["replays without a change beside them"] += 1

    job = _command(world, "replay", work)
    return job


def redrive(world: World, stream: SimStream, decoder_mended: bool) -> None:
    """`ingest dead-letters redrive`, with today's or tomorrow's decoder."""
    checks, table = stream.checks, stream.table
    decode = JsonDecoder(READING).decode
    counters = dict(table.positions)
    open_before = [key for key, status in checks.letters.items() if status == "open"]
    letters = MemoryDeadLetters(world.database(), stream.stream)
    letters.redrive(LetterFilter(), lambda v: decode(mended(v) if decoder_mended else v))
    for key in open_before:
        version = checks.of[key]
        becomes = stream.model.becomes_row(version, decoder_mended)
        assert becomes == (table.settled.get(key) == "redriven"), key
        if becomes:
            checks.letters[key] = "redriven"
            checks.rows[key] = version.device
            world.count["letters redriven"] += 1
    assert table.positions == counters
    checks.unchanged()


def discard(world: World, stream: SimStream) -> None:
    """`ingest dead-letters discard` of the decoder's refusals."""
    letters, refused = MemoryDeadLetters(world.database(), stream.stream), LetterFilter(reason="Expected")
    stream.checks.letters.update(dict.fromkeys(letters.open(refused), "discarded"))
    world.count["letters discarded"] += letters.discard(refused)


def delete_rows(stream: SimStream, every: int) -> None:
    """Somebody deletes rows from the event table."""
    for key in list(stream.checks.rows)[::every]:
        if stream.checks.outcome.get(key) in (ROW, LETTER):
            del stream.checks.rows[key], stream.table.rows[key]


def pause(world: World, stream: SimStream) -> None:
    """`ingest pause`."""
    stream.ledger.pause("maintenance", "operator")


def resume(world: World, stream: SimStream) -> None:
    """`ingest resume`."""
    stream.ledger.resume()


def allow_letters(world: World, stream: SimStream, count: int = 5) -> None:
    """`ingest dead-letters allow`."""
    stream.ledger.allow_letters(count)
    stream.checks.allowance = count


def catch_up(world: World) -> None:
    """Faults stop, and an operator does what the messages say: everything is accounted for in bounded time.

    At first the operator neglects the streams in trouble, and all other streams catch up.
    """
    streams = list(world.streams.values())
    world.broker.set_unavailable(False)
    world.database().reachable = True
    world.database().breaks.clear()
    world.start_seconds = 0.0
    for stream in streams:
        for partition in stream.model.ends:
            stream.kafka.leader_away(partition, False)
        stream.kafka.end_transactions()
    neglected = [stream for stream in streams if stream.in_trouble]
    if 0 < len(neglected) < len(streams):
        world.count["others caught up"] += 1
        _settle(world, [stream for stream in streams if stream not in neglected], to_the_end=False)
    for stream in streams:
        stream.table.locked = False
        stream.ledger.resume()
    _settle(world, streams)
    for stream in streams:  # a log cut and regrown to the very same end is found with its next record
        for partition in stream.model.ends:
            stream.kafka.produce(partition, [GOOD])
    _settle(world, streams)
    for stream in streams:
        stream.checks.unchanged()
        for partition, position in stream.table.positions.items():
            assert position.next_offset == stream.model.ends[partition]
            for offset, version in stream.model.alive(partition, 0, position.next_offset):
                assert version.settled, f"{stream.name} partition {partition} offset {offset}: {version} is in no table"


def _settle(world: World, streams: Collection[SimStream], to_the_end: bool = True) -> None:
    """Ticks, runs and acceptances until the streams have caught up, and to the end of all processes."""
    # a run may end after two batches of one record
    for _ in range(60 + sum(sum(stream.model.ends.values()) for stream in streams)):
        for stream in streams:
            if stream.letter_limit is not None:
                allow_letters(world, stream, 100_000)
        world.tick(60.0)
        for stream in streams:
            if stream.must_stand_still() or stream.ledger.losses():
                accept_loss(world, stream)
        for job in list(world.processes.alive()):
            world.processes.go(job, 2_000)
        busy = to_the_end and (world.busy() or world.processes.alive())
        if not busy and not any(stream.lag() or stream.must_stand_still() for stream in streams):
            return
    lags = {stream.name: (stream.lag(), stream.must_stand_still()) for stream in streams}
    raise AssertionError(f"not caught up: {lags}")


def _command(world: World, name: str, work: Callable[[], None]) -> Job:
    def run() -> None:
        try:
            work()
            world.count[f"{name}: done"] += 1
        except IngestError as error:
            world.count[f"{name}: {type(error).__name__}"] += 1

    return world.processes.start(name, run, world.mended)
