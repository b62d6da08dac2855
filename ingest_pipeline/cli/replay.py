"""`ingest replay`: read a range from Kafka again and store what is missing."""

from __future__ import annotations

from datetime import datetime

import click

from ..core.stream import Stream
from .main import Instant, StreamName, open_clients
from .progress import progress


@click.command()
@click.argument("stream", type=StreamName())
@click.option("--partition", type=click.IntRange(min=0), help="Needed with offsets; with times all when not given.")
@click.option("--from-offset", type=click.IntRange(min=0), help="The first offset.")
@click.option("--to-offset", type=click.IntRange(min=0), help="The offset behind the last one.")
@click.option("--from-time", type=Instant(), help="By Kafka's timestamps; UTC where it names no zone.")
@click.option("--to-time", type=Instant(), help="Up to, but not including.")
def replay(
    stream: Stream,
    partition: int | None,
    from_offset: int | None,
    to_offset: int | None,
    from_time: datetime | None,
    to_time: datetime | None,
) -> None:
    """Read a range from Kafka again and store the rows that are missing, while the drain goes on.

    Rows that are there stay as they are, and neither position nor counters change. Only what was ingested before is
    replayed; records with a dead letter are left to `ingest dead-letters redrive`.

    Example: ingest replay price --partition 0 --from-offset 1000 --to-offset 2000
    """
    from ..operations.replays import ReplayRequest, ranges, run_replay

    wanted = ReplayRequest(partition, from_offset, to_offset, from_time, to_time)
    found = ranges(wanted, stream, open_clients())
    for each in found:
        click.echo(f"partition {each.partition}: offsets {each.start} to {each.stop - 1}", err=True)
    with progress(f"replaying {stream.name}", sum(each.stop - each.start for each in found)) as show:
        done = run_replay(found, stream, open_clients(), observe=lambda done: show(done.offsets))
    click.echo(
        f"{done.stored:,} stored, {done.present:,} present, {done.absent:,} absent, {done.dead:,} dead,"
        f" {done.skipped:,} skipped, {done.refused:,} refused"
    )
