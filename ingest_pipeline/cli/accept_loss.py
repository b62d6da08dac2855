"""`ingest accept-loss`: look at what Kafka no longer holds, and let the stream go on."""

from __future__ import annotations

import getpass
from datetime import datetime

import click

from ..core.stream import Stream
from ..core.timestamps import kafka_time, parse_instant
from .main import StreamName, open_clients


class GoOnFrom(click.ParamType["str | int | datetime"]):
    """earliest, latest, an offset, or an ISO time."""

    name = "place"

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
@click.option("--partition", type=int, help="Only this one; else all that are affected.")
@click.option("--from", "wanted", type=GoOnFrom(), help="earliest, latest, an offset or a time; else what is left.")
@click.option("--dismiss", is_flag=True, help="It was a mistake: forget what was found and go on at the position.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def accept_loss(
    stream: Stream, partition: int | None, wanted: str | int | datetime | None, dismiss: bool, yes: bool
) -> None:
    """Show what Kafka no longer holds of a stream, record it as a gap, and let the stream go on.

    Where the topic was re-created or cut, or --from lies before the position, the partition begins anew under another
    kafka_incarnation, as its offsets will be used again.

    Example: ingest accept-loss price --partition 2
    """
    from ..core.start import survey, unanswered_words
    from ..operations import losses

    clients = open_clients()
    ledger, topic = clients.ledger(stream), clients.topic(stream)
    if dismiss:
        ledger.forget_losses(partition)
        which = "" if partition is None else f" of partition {partition}"
        click.echo(f"{stream.name}: what was found{which} is forgotten; the next tick looks again")
        return
    seen = survey(topic, ledger)
    found = [loss for loss in seen.losses if partition in (None, loss.partition)]
    if seen.unanswered:
        click.echo(f"{stream.name}: {unanswered_words(seen.unanswered)}")
    if not found:
        rest = "" if not seen.unanswered else " of the other partitions"
        click.echo(f"{stream.name}: Kafka holds everything that the positions{rest} expect; nothing to accept")
        return
    accepted = losses.acceptances(topic, found, wanted)
    for item in accepted:
        click.echo(item.loss.description)
        click.echo(f"  → {losses.consequence(item)}")
    if not yes:
        click.confirm("accept?", abort=True)
    losses.accept(clients, stream, accepted, seen.identity, getpass.getuser())
    click.echo(f"accepted; the sensor of {stream.name} goes on within seconds")
