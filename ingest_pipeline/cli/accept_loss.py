"""`ingest accept-loss`: show the offsets lost in Kafka, and let the stream continue."""

from __future__ import annotations

import getpass
from datetime import datetime

import click

from ..core.errors import SettingsError
from ..core.stream import Stream
from .main import StreamName, context_of


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

    context = context_of(stream)
    if dismiss:
        context.ledger.forget_losses(partition)
        which = "" if partition is None else f" of partition {partition}"
        click.echo(f"{stream.name}: the loss{which} is forgotten. The next tick of the sensor looks again")
        return
    topic_survey, accepted = losses.acceptable(context, partition, start)
    click.echo("\n".join(losses.loss_lines(context, topic_survey, accepted)))
    if not accepted:
        return
    if not yes:
        click.confirm("accept?", abort=True)
    losses.accept(context, accepted, topic_survey.identity, by=getpass.getuser())
    click.echo(f"accepted: the sensor of {stream.name} launches a run within seconds")
