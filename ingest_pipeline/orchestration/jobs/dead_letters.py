"""Redrive, discard, allow and acknowledge dead letters from the UI. The CLI makes the same calls."""

from dataclasses import asdict
from enum import Enum
from typing import Any

import dagster as dg
from pydantic import Field

from ...core.errors import RefusalStage
from ...core.ledger import LetterFilter
from ...operations.problems import what_follows
from ...operations.stream_context import StreamContext
from .operation import OperationConfig, Outcome, optional_time

_ANY = "any"
Stage: Any = Enum("Stage", [(name, name) for name in (_ANY, *(stage.value for stage in RefusalStage))])  # type: ignore[misc]
"""Members by name: a member is called value."""


class LetterConfig(OperationConfig):
    """Selects open dead letters. An empty field selects all."""

    stage: Stage = Field(default=Stage[_ANY], description="What refused them.")
    sqlstate: str = Field(default="", description="For example 23514.")
    reason: str = Field(default="", description="A part of the reason's text.")
    since: str = Field(default="", description="Refused at or after this ISO 8601 time.")
    until: str = Field(default="", description="Refused before this ISO 8601 time.")
    ids: list[int] = Field(default=[], description="Ids of letters. Empty for all.")


class AllowConfig(OperationConfig):
    """How many letters may pass."""

    count: int = Field(ge=0, description="How many letters. 0 ends an earlier permission.")


def _filter(config: LetterConfig) -> LetterFilter:
    return LetterFilter(
        stage=None if config.stage.name == _ANY else config.stage.name,
        sqlstate=config.sqlstate or None,
        reason=config.reason or None,
        since=optional_time(config.since),
        until=optional_time(config.until),
        ids=config.ids or None,
    )


def redrive_dead_letters(
    stream_context: StreamContext, config: LetterConfig, _context: dg.OpExecutionContext
) -> Outcome:
    """Decode open dead letters with today's code and store the rows under their own coordinates."""
    clients, stream, selected = stream_context.clients, stream_context.stream, _filter(config)
    letters, rules = clients.dead_letters(stream), clients.record_rules(stream)
    done = letters.redrive(selected, clients.decoder(stream).decode, rules, dry_run=config.dry_run)
    counts = asdict(done)
    lines = [", ".join(f"{count:,} {what}" for what, count in counts.items())]
    if done.truncated:
        lines.append(letters.how_to_fetch(selected))
    return Outcome(lines, counts)


def discard_dead_letters(
    stream_context: StreamContext, config: LetterConfig, _context: dg.OpExecutionContext
) -> Outcome:
    """Close open dead letters without a row. The ledger keeps discarded letters until the purge."""
    letters, selected = stream_context.clients.dead_letters(stream_context.stream), _filter(config)
    if config.dry_run:
        reasons = letters.count_by_reason(selected)
        lines = [f"{row.letters:,} open letters would be discarded, {row.stage}: {row.reason}" for row in reasons]
        return Outcome(lines or ["no open letter is selected"], {"letters": sum(row.letters for row in reasons)})
    discarded = letters.discard(selected)
    return Outcome([f"{discarded:,} letters are discarded"], {"letters": discarded})


def allow_dead_letters(stream_context: StreamContext, config: AllowConfig, _context: dg.OpExecutionContext) -> Outcome:
    """Let the next dead letters of a stream pass without counting towards the limit."""
    ledger, letters = stream_context.ledger, f"the next {config.count:,} dead letters of {stream_context.stream.name}"
    if config.dry_run:
        left = ledger.state().letters_allowed
        earlier = f"{left:,} are left of an earlier permission, which would end"
        return Outcome([f"{letters} would not count towards the limit", earlier], {"left": left})
    ledger.allow_letters(config.count)
    return Outcome([f"{letters} do not count: {what_follows(stream_context.stream, ledger.state())}"])


def acknowledge_dead_letters(
    stream_context: StreamContext, config: OperationConfig, _context: dg.OpExecutionContext
) -> Outcome:
    """Note that somebody has seen the open dead letters of a stream. The letters stay open."""
    ledger = stream_context.ledger
    if not config.dry_run:
        ledger.acknowledge_letters()
    letters = sum(row.letters for row in ledger.open_letters())
    did = (
        f"{letters:,} open letters would be"
        if config.dry_run
        else f"the open dead letters of {stream_context.stream.name} are"
    )
    return Outcome([f"{did} acknowledged"], {"open": letters})
