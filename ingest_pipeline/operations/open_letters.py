"""A stream's open dead letters, in words."""

from __future__ import annotations

from .stream_context import StreamContext

TOP_REASONS = 3


def open_letters(context: StreamContext) -> tuple[int, str]:
    """The number of open dead letters, and a sentence with their reasons."""
    count = sum(row.letters for row in context.ledger.open_letters())
    return count, in_words(context, count)


def in_words(context: StreamContext, count: int) -> str:
    """The number of open letters, with the most frequent reasons of the newest letters."""
    from ..postgres.dead_letters import TOP_REASONS_OF, DeadLetters

    if not count:
        return "no open dead letters"
    reasons = DeadLetters(context.clients.database(), context.stream).top_reasons(TOP_REASONS)
    top = "; ".join(f"{row.letters:,}x {row.reason}" for row in reasons)
    newest = f" (of the newest {TOP_REASONS_OF:,})" if count > TOP_REASONS_OF else ""
    return f"{count:,} open dead letters: {top}{newest}"
