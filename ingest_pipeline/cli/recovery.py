"""`ingest replay` and `ingest accept-loss`: store missing rows again, and go on after lost offsets."""

import getpass
from datetime import datetime

import click

from ..core.errors import SettingsError
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
        click.echo(offsets, err=True)
    total, clock = sum(map(len, chosen)), context.clients.clock
    with progress(f"replaying {stream.name}", total, clock.monotonic) as show:
        done = run_replay(chosen, context, observe=lambda done: show(done.total))
    click.echo(
        f"{done.stored:,} stored, {done.present:,} present, {done.absent:,} absent, {done.dead:,} dead,"
        f" {done.skipped:,} skipped, {done.refused:,} refused"
    )


class StartOffset(click.ParamType["str | int | datetime"]):
    """earliest, latest, an offset, or an ISO time."""

    name = "offset"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str | int | datetime:
        from ..operations.losses import parse_start

        try:
            return parse_start(str(value))
        except SettingsError as error:
            self.fail(error.message, param, ctx)


@click.command("accept-loss")
@click.argument("stream", type=StreamName())
@click.option("--partition", type=int, help="Only this partition. Default: all that lost offsets.")
@click.option("--from", "start", type=StartOffset(), help="earliest (default), latest, an offset or a time.")
@click.option("--dismiss", is_flag=True, help="Forget the loss, which was a mistake, and continue at the position.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def accept_loss(
    stream: Stream, partition: int | None, start: str | int | datetime | None, dismiss: bool, yes: bool
) -> None:
    """Show the offsets lost in Kafka, record a gap for each partition, and let the stream continue.

    A partition begins again under another kafka_incarnation when its offsets will be used again: the topic was
    re-created or cut, or --from lies before the position.

    Example: ingest accept-loss price --partition 2
    """
    from ..operations import losses
    from ..operations.problems import what_follows

    context = context_of(stream)
    if dismiss:
        click.echo(losses.dismiss(context, partition))
        return
    topic_survey, accepted = losses.acceptable(context, partition, start)
    click.echo("\n".join(losses.loss_lines(context, topic_survey, accepted)))
    if not accepted:
        return
    if not yes:
        click.confirm("accept?", abort=True)
    losses.accept(context, accepted, topic_survey.identity, by=getpass.getuser())
    click.echo(f"accepted: {what_follows(stream, context.ledger.state())}")
