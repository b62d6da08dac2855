"""`ingest dead-letters …`: look at refused records, try them again, or close them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from ..core.decode import JsonDecoder
from ..core.errors import STAGES
from ..core.stream import Stream
from .main import Instant, StreamName, open_clients
from .progress import progress

if TYPE_CHECKING:
    from ..postgres.dead_letters import DeadLetters
    from ..postgres.letter_filter import LetterFilter

_PREVIEW_BYTES = 2000


@click.group("dead-letters")
def dead_letters() -> None:
    """Records that could not become a row: list, show, redrive, discard, purge, allow.

    Example: ingest dead-letters list price
    """


def _filtered(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds STREAM and the options that narrow, and hands the command (letters, wanted, stream, …)."""

    @wraps(command)
    def run(
        stream: Stream,
        stage: str | None,
        sqlstate: str | None,
        reason: str | None,
        since: datetime | None,
        until: datetime | None,
        ids: tuple[int, ...],
        **rest: Any,
    ) -> Any:
        from ..postgres.dead_letters import DeadLetters
        from ..postgres.letter_filter import LetterFilter

        wanted = LetterFilter(stage, sqlstate, reason, since, until, ids or None)
        return command(DeadLetters(open_clients().database(), stream), wanted, stream, **rest)

    for option in (
        click.option("--id", "ids", type=int, multiple=True, help="Of a letter; may be repeated."),
        click.option("--until", type=Instant(), help="Refused before; UTC where it names no zone."),
        click.option("--since", type=Instant(), help="Refused at or after."),
        click.option("--reason", help="A part of the reason's text."),
        click.option("--sqlstate", help="For example 23514."),
        click.option("--stage", type=click.Choice(STAGES)),
        click.argument("stream", type=StreamName()),
    ):
        run = option(run)
    return run


@dead_letters.command("list")
@_filtered
@click.option("--limit", default=20, show_default=True, help="Letters listed below the counts.")
def list_letters(letters: DeadLetters, wanted: LetterFilter, stream: Stream, limit: int) -> None:
    """Open letters: counts by reason first, then the oldest.

    Example: ingest dead-letters list price --stage decode
    """
    counts = letters.count_by_reason(wanted)
    if not counts:
        click.echo(f"{stream.name} has no such open dead letter")
        return
    for row in counts:
        click.echo(f"{row.letters:>9,}  {row.stage:<9}  {row.reason}")
    click.echo()
    for row in letters.page(wanted, limit=limit):
        where = f"partition {row.kafka_partition} offset {row.kafka_offset}"
        at = row.failed_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        click.echo(f"id {row.id}  {where}  {at}  tries {row.attempts}  {row.reason}")


@dead_letters.command()
@click.argument("stream", type=StreamName())
@click.option("--count", type=click.IntRange(min=0), required=True, help="How many; 0 takes it back.")
def allow(stream: Stream, count: int) -> None:
    """Let the next dead letters pass uncounted by the limit, once; then it holds again.

    Example: ingest dead-letters allow price --count 5000
    """
    ledger = open_clients().ledger(stream)
    ledger.prepare()
    ledger.allow_letters(count)
    click.echo(f"the next {count:,} dead letters of {stream.name} do not count; its sensor tries again within seconds")


@dead_letters.command()
@click.argument("stream", type=StreamName())
@click.argument("letter_id", type=int)
def show(stream: Stream, letter_id: int) -> None:
    """One letter with its key, headers and bytes. This prints the payload.

    Example: ingest dead-letters show price 17
    """
    from ..postgres.dead_letters import DeadLetters

    row = DeadLetters(open_clients().database(), stream).show(letter_id, _PREVIEW_BYTES)
    if row is None:
        known = f"Hint: `ingest dead-letters list {stream.name}` counts those it has."
        raise click.ClickException(f"{stream.name} has no dead letter {letter_id}\n{known}")
    shown = dict(row._mapping)
    for name, length in (("key", shown.pop("key_bytes")), ("value", shown.pop("kept_bytes"))):
        if length is not None:
            shown[name] = repr(shown[name]) + (f" … ({length:,} bytes)" if length > _PREVIEW_BYTES else "")
    for name, value in shown.items():
        click.echo(f"{name:<18} {value.hex() if isinstance(value, bytes) else value}")


@dead_letters.command()
@_filtered
@click.option("--dry-run", is_flag=True, help="Try everything, change nothing.")
def redrive(letters: DeadLetters, wanted: LetterFilter, stream: Stream, dry_run: bool) -> None:
    """Decode the stored bytes with today's code and store the rows under their own coordinates.

    Example: ingest dead-letters redrive price --reason "Expected `float`"
    """
    from ..operations.limits import record_rules

    settings = open_clients().settings.for_stream(stream.name)
    total = sum(row.letters for row in letters.count_by_reason(wanted))
    decode, rules = JsonDecoder(stream, settings.naive_timestamps).decode, record_rules(settings, stream)
    with progress(f"redriving {stream.name}", total) as show:
        done = letters.redrive(wanted, decode, rules, dry_run=dry_run, observe=lambda done: show(done.tried))
    would = "would be " if dry_run else ""
    click.echo(
        f"{done.stored:,} {would}stored, {done.present:,} were there already, {done.refused:,} refused again,"
        f" {done.truncated:,} cut short and not tried"
    )
    if done.truncated:
        click.echo(letters.how_to_fetch(wanted))


@dead_letters.command()
@_filtered
@click.option("--yes", is_flag=True, help="Do not ask.")
def discard(letters: DeadLetters, wanted: LetterFilter, stream: Stream, yes: bool) -> None:
    """Close letters without a row. They stay in the ledger as discarded until they are purged.

    Example: ingest dead-letters discard price --id 17 --yes
    """
    total = sum(row.letters for row in letters.count_by_reason(wanted))
    if total and (yes or click.confirm(f"discard {total:,} dead letters of {stream.name}?")):
        with progress(f"discarding letters of {stream.name}", total) as show:
            discarded = letters.discard(wanted, observe=show)
        click.echo(f"discarded {discarded:,}")
    else:
        click.echo("nothing discarded")


@dead_letters.command()
@click.argument("stream", type=StreamName())
@click.option("--days", type=click.IntRange(0), help="Instead of SETTLED_LETTER_RETENTION_DAYS.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(stream: Stream, days: int | None, yes: bool) -> None:
    """Delete letters that were redriven or discarded long ago. Open ones are never deleted.

    The job maintenance does the same every day.

    Example: ingest dead-letters purge price --days 7
    """
    from ..postgres.letter_retention import SettledLetters

    settled = SettledLetters(open_clients().database(), stream)
    days = open_clients().settings.settled_letter_retention_days if days is None else days
    total = settled.expired(days)
    if total and (yes or click.confirm(f"delete {total:,} letters of {stream.name}, settled over {days} days ago?")):
        with progress(f"purging letters of {stream.name}", total) as show:
            purged = settled.purge(days, observe=show)
        click.echo(f"purged {purged:,}")
    else:
        click.echo("nothing purged")
