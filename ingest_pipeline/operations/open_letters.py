"""The dead letters of a stream that wait for somebody, in words."""

from __future__ import annotations

from ..core.stream import Stream
from .clients import Clients

TOP_REASONS = 3


def open_letters(stream: Stream, clients: Clients) -> tuple[int, str]:
    """How many dead letters wait, and a sentence for them."""
    count = sum(row.letters for row in clients.ledger(stream).open_letters())
    return count, in_words(stream, clients, count)


def in_words(stream: Stream, clients: Clients, count: int) -> str:
    """So many open letters, with the most frequent reasons of the newest ones."""
    from ..postgres.dead_letters import TOP_REASONS_OF, DeadLetters

    if not count:
        return "no open dead letters"
    reasons = DeadLetters(clients.database(), stream).top_reasons(TOP_REASONS)
    top = "; ".join(f"{row.letters:,}x {row.reason}" for row in reasons)
    newest = f" (of the newest {TOP_REASONS_OF:,})" if count > TOP_REASONS_OF else ""
    return f"{count:,} open dead letters: {top}{newest}"
