"""`ingest replay`: read a range from Kafka again and store the missing rows."""

from __future__ import annotations

from datetime import datetime

import click

from ..core.stream import Stream
from .main import Instant, StreamName, context_of
from .progress import progress


@click.command()
@click.argument("stream", type=StreamName())
@click.option("--partition", type=click.IntRange(min=0), help="Needed with offsets. With times the default is all.")
@click.option("--from-offset", type=click.IntRange(min=0), help="The first offset to replay.")
@click.option("--to-offset", type=click.IntRange(min=0), help="The offset behind the last one to replay.")
@click.option("--from-time", type=Instant(), help="Replay records from this Kafka timestamp on. UTC without a zone.")
@click.option("--to-time", type=Instant(), help="Replay records before this Kafka timestamp. UTC without a zone.")
def replay(
    stream: Stream,
    partition: int | None,
    from_offset: int | None,
    to_offset: int | None,
    from_time: datetime | None,
    to_time: datetime | None,
) -> None:
    """Read a range from Kafka again and store the missing rows, while ingestion continues.

    Existing rows, positions and counters do not change. Only offsets ingested before are replayed.
    Records with a dead letter are left to `ingest dead-letters redrive`.

    Example: ingest replay price --partition 0 --from-offset 1000 --to-offset 2000
    """
    from ..operations.replays import ReplayRequest, ranges, run_replay

    request = ReplayRequest(partition, from_offset, to_offset, from_time=from_time, to_time=to_time)
    context = context_of(stream)
    chosen = ranges(request, context)
    for offsets in chosen:
        click.echo(f"partition {offsets.partition}: offsets {offsets.start} to {offsets.stop - 1}", err=True)
    total, clock = sum(offsets.stop - offsets.start for offsets in chosen), context.clients.clock
    with progress(f"replaying {stream.name}", total, clock.monotonic) as show:
        done = run_replay(chosen, context, observe=lambda done: show(done.offsets))
    click.echo(
        f"{done.stored:,} stored, {done.present:,} present, {done.absent:,} absent, {done.dead:,} dead,"
        f" {done.skipped:,} skipped, {done.refused:,} refused"
    )
