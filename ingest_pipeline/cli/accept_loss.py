"""`ingest accept-loss`: show the offsets lost in Kafka, and let the stream continue."""

from __future__ import annotations

import getpass
from datetime import datetime

import click

from ..core.stream import Stream
from ..core.timestamps import kafka_time, parse_instant
from .main import StreamName, context_of


class StartOffset(click.ParamType["str | int | datetime"]):
    """earliest, latest, an offset, or an ISO time."""

    name = "offset"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str | int | datetime:
        text = str(value)
        if text in ("earliest", "latest"):
            return text
        if text.isascii() and text.isdecimal():
            return int(text)
        try:
            return kafka_time(parse_instant(text))
        except ValueError as error:
            self.fail(f"{text!r} is neither earliest, latest, an offset nor a time: {error}", param, ctx)


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
    from ..core.start import survey, unanswered_words
    from ..operations import losses

    context = context_of(stream)
    ledger, topic = context.ledger, context.topic
    if dismiss:
        ledger.forget_losses(partition)
        which = "" if partition is None else f" of partition {partition}"
        click.echo(f"{stream.name}: the loss{which} is forgotten. The next tick of the sensor looks again")
        return
    topic_survey = survey(topic, ledger)
    found_losses = [loss for loss in topic_survey.losses if partition in (None, loss.partition)]
    if topic_survey.unanswered:
        click.echo(f"{stream.name}: {unanswered_words(topic_survey.unanswered)}")
    if not found_losses:
        rest = "" if not topic_survey.unanswered else " of the other partitions"
        click.echo(f"{stream.name}: Kafka holds everything that the positions{rest} expect: nothing to accept")
        return
    accepted = losses.acceptances(topic, found_losses, start)
    for acceptance in accepted:
        click.echo(acceptance.loss.description)
        click.echo(f"  → {losses.consequence(acceptance)}")
    if not yes:
        click.confirm("accept?", abort=True)
    losses.accept(context, accepted, topic_survey.identity, by=getpass.getuser())
    click.echo(f"accepted: the sensor of {stream.name} launches a run within seconds")
