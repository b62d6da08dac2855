"""`ingest dead-letters …`: look at refused records, and redrive or close their letters."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import RefusalStage
from ..core.ledger import LetterFilter
from ..core.stream import Stream
from ..core.timestamps import utc_text
from .json_output import json_option, print_json
from .main import Instant, StreamName, context_of, open_clients
from .progress import progress

if TYPE_CHECKING:
    from ..postgres.dead_letters import DeadLetters

_PREVIEW_BYTES = 2000


@click.group("dead-letters")
def dead_letters() -> None:
    """List, show, redrive, discard, purge, allow or acknowledge dead letters, the records refused by decoder or table.

    Example: ingest dead-letters list price
    """


def _filtered(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds STREAM and the options to select letters. The command takes (letters, selected, stream, …)."""

    @wraps(command)
    def run(stream: Stream, ids: tuple[int, ...], **options: Any) -> Any:
        selection = {name: options.pop(name) for name in ("stage", "sqlstate", "reason", "since", "until")}
        selected = LetterFilter(**selection, ids=list(ids) or None)
        return command(open_clients().dead_letters(stream), selected, stream, **options)

    for option in (
        click.option("--id", "ids", type=int, multiple=True, help="Only the letter with this id. May be repeated."),
        click.option("--until", type=Instant(), help="Only letters refused before this time. UTC without a zone."),
        click.option("--since", type=Instant(), help="Only letters refused at this time or later. UTC without a zone."),
        click.option("--reason", help="Only letters whose reason contains this text."),
        click.option("--sqlstate", help="Only letters with this SQLSTATE, for example 23514."),
        click.option(
            "--stage",
            type=click.Choice([stage.value for stage in RefusalStage]),
            help="Only letters that this stage refused.",
        ),
        click.argument("stream", type=StreamName()),
    ):
        run = option(run)
    return run


def _count(letters: DeadLetters, selected: LetterFilter) -> int:
    return sum(row.letters for row in letters.count_by_reason(selected))


def _confirmed(total: int, question: str, yes: bool) -> bool:
    """Whether any letter is selected and the user agrees."""
    return total > 0 and (yes or click.confirm(question))


@dead_letters.command("list")
@_filtered
@click.option("--limit", default=20, show_default=True, help="How many letters to list below the counts.")
@json_option
def list_letters(letters: DeadLetters, selected: LetterFilter, stream: Stream, *, limit: int, as_json: bool) -> None:
    """Count the open letters by reason, and list the oldest.

    Example: ingest dead-letters list price --stage decode
    """
    counts = letters.count_by_reason(selected)
    if as_json:
        reasons = [{"letters": row.letters, "stage": row.stage, "reason": row.reason} for row in counts]
        print_json({"reasons": reasons, "letters": [_entry(row) for row in letters.page(selected, limit=limit)]})
        return
    if not counts:
        click.echo(f"{stream.name} has no such open dead letter")
        return
    for row in counts:
        click.echo(f"{row.letters:>9,}  {row.stage:<9}  {row.reason}")
    click.echo()
    for row in letters.page(selected, limit=limit):
        where = f"partition {row.kafka_partition} offset {row.kafka_offset}"
        click.echo(f"id {row.id}  {where}  {utc_text(row.failed_at)}  tries {row.attempts}  {row.reason}")


def _entry(row: Any) -> dict[str, Any]:
    """A letter without its payload."""
    return {
        "id": row.id,
        "partition": row.kafka_partition,
        "offset": row.kafka_offset,
        "failed_at": row.failed_at,
        "attempts": row.attempts,
        "reason": row.reason,
    }


@dead_letters.command()
@click.argument("stream", type=StreamName())
@click.option("-n", "records", default=1000, show_default=True, type=click.IntRange(1, 100_000), help="Of a partition.")
@click.option("--limit", default=20, show_default=True, help="How many refused records to list.")
def peek(stream: Stream, records: int, limit: int) -> None:
    """Show which of the next records would be refused, and why. Nothing is stored, and no position moves.

    Example: ingest dead-letters peek price
    """
    from ..core.start import unanswered_words
    from ..operations.peek import peek as look

    count, refused, unanswered = look(context_of(stream), records)
    click.echo(f"{len(refused):,} of the next {count:,} records of {stream.name} would be refused")
    if unanswered:
        click.echo(f"Not read: {unanswered_words(unanswered)}")
    for letter in refused[:limit]:
        click.echo(f"partition {letter.partition} offset {letter.offset}  {letter.stage}  {letter.reason}")
    if len(refused) > limit:
        click.echo(f"… and {len(refused) - limit:,} more")


@dead_letters.command()
@click.argument("stream", type=StreamName())
@click.option("--count", type=click.IntRange(min=0), required=True, help="How many letters. 0 ends it.")
def allow(stream: Stream, count: int) -> None:
    """Let the next dead letters of a stream pass without counting against the limit.

    Example: ingest dead-letters allow price --count 5000
    """
    from ..operations.problems import what_follows

    ledger = context_of(stream).ledger
    ledger.allow_letters(count)
    click.echo(f"the next {count:,} dead letters of {stream.name} do not count: {what_follows(stream, ledger.state())}")


@dead_letters.command()
@click.argument("stream", type=StreamName())
def acknowledge(stream: Stream) -> None:
    """Note that you have seen the open dead letters of a stream. They stay open.

    The stream is healthy again once no record was refused for a day.

    Example: ingest dead-letters acknowledge price
    """
    context_of(stream).ledger.acknowledge_letters()
    click.echo(f"the open dead letters of {stream.name} are acknowledged. A newer one degrades the stream again")


@dead_letters.command()
@click.argument("stream", type=StreamName())
@click.argument("letter_id", type=int)
def show(stream: Stream, letter_id: int) -> None:
    """Print a letter with its key, headers and bytes, the payload included.

    Example: ingest dead-letters show price 17
    """
    row = open_clients().dead_letters(stream).show(letter_id, _PREVIEW_BYTES)
    if row is None:
        hint = f"Hint: `ingest dead-letters list {stream.name}` shows the ids of its open letters."
        raise click.ClickException(f"{stream.name} has no dead letter {letter_id}\n{hint}")
    shown = dict(row._mapping)
    for name, length in (("key", shown.pop("key_bytes")), ("value", shown.pop("kept_bytes"))):
        if length is not None:
            shown[name] = repr(shown[name]) + (f" … ({length:,} bytes)" if length > _PREVIEW_BYTES else "")
    for name, value in shown.items():
        click.echo(f"{name:<18} {value.hex() if isinstance(value, bytes) else value}")


@dead_letters.command()
@_filtered
@click.option("--dry-run", is_flag=True, help="Try every letter and change nothing.")
def redrive(letters: DeadLetters, selected: LetterFilter, stream: Stream, dry_run: bool) -> None:
    """Decode the stored bytes with the present code, and store the rows under the records' own Kafka coordinates.

    Example: ingest dead-letters redrive price --reason "Expected `float`"
    """
    context = context_of(stream)
    decode, rules = context.clients.decoder(stream).decode, context.clients.record_rules(stream)
    with progress(f"redriving {stream.name}", _count(letters, selected), context.clients.clock.monotonic) as show:
        done = letters.redrive(selected, decode, rules, dry_run=dry_run, observe=lambda done: show(done.total))
    would = "would be " if dry_run else ""
    click.echo(
        f"{done.stored:,} {would}stored, {done.present:,} were there already, {done.refused:,} refused again,"
        f" {done.truncated:,} cut short and not tried"
    )
    if done.superseded:
        click.echo(f"{done.superseded:,} {would}discarded: a newer record wrote or deleted the row of their key")
    if done.truncated:
        click.echo(letters.how_to_fetch(selected))


@dead_letters.command()
@_filtered
@click.option("--yes", is_flag=True, help="Do not ask.")
def discard(letters: DeadLetters, selected: LetterFilter, stream: Stream, yes: bool) -> None:
    """Close letters without a row. The ledger keeps discarded letters until the purge.

    Example: ingest dead-letters discard price --id 17 --yes
    """
    total = _count(letters, selected)
    if not _confirmed(total, f"discard {total:,} dead letters of {stream.name}?", yes):
        click.echo("nothing discarded")
        return
    with progress(f"discarding letters of {stream.name}", total) as show:
        discarded = letters.discard(selected, observe=show)
    click.echo(f"discarded {discarded:,}")


@dead_letters.command()
@click.argument("stream", type=StreamName())
@click.option("--days", type=click.IntRange(0), help="How long ago. Default: SETTLED_LETTER_RETENTION_DAYS.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(stream: Stream, days: int | None, yes: bool) -> None:
    """Delete letters redriven or discarded long ago. Open letters are never deleted.

    The job maintenance does the same every day.

    Example: ingest dead-letters purge price --days 7
    """
    from ..postgres.letter_retention import SettledLetters

    letters = SettledLetters(open_clients().database(), stream)
    days = open_clients().settings.settled_letter_retention_days if days is None else days
    total = letters.expired(days)
    if not _confirmed(total, f"delete {total:,} letters of {stream.name}, settled over {days} days ago?", yes):
        click.echo("nothing purged")
        return
    with progress(f"purging letters of {stream.name}", total) as show:
        purged = letters.purge(days, observe=show)
    click.echo(f"purged {purged:,}")
