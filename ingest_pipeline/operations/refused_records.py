"""A stream's open dead letters: the questions, and the judgement."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from ..core.ledger import LetterCount, Refusals, StreamState
from ..core.stream import Stream
from . import lateness
from .levels import Level
from .problems import Kind, Problem, moment
from .stream_context import StreamContext

TOP_REASONS = 3
RECENT_RECORDS = 20
"""If more than half of the last records were refused, the refusals are no exception any more."""
QUIET = timedelta(days=1)
"""After this time without a refusal, acknowledged dead letters do not degrade the stream any more."""


@dataclass(frozen=True, slots=True)
class LetterFacts:
    """About open dead letters."""

    reasons: str
    refusals: Refusals


def letter_facts(context: StreamContext, letters: Sequence[LetterCount], state: StreamState) -> LetterFacts | None:
    """None without an open letter."""
    from ..postgres.dead_letters import TOP_REASONS_OF

    count = sum(row.letters for row in letters)
    if not count:
        return None
    dead_letters = context.clients.dead_letters(context.stream)
    top = "; ".join(f"{row.letters:,}x {row.reason}" for row in dead_letters.top_reasons(TOP_REASONS))
    newest = f" (of the newest {TOP_REASONS_OF:,})" if count > TOP_REASONS_OF else ""
    refusals = dead_letters.refusals(RECENT_RECORDS, state.acknowledged_at)
    return LetterFacts(f"{_open_letters(count)}: {top}{newest}", refusals)


def judge_letters(
    stream: Stream, letters: Sequence[LetterCount], facts: LetterFacts | None, state: StreamState
) -> Problem | str:
    """The problem, or a remark.

    Args:
        facts: None: there is no open letter, or the ledger did not answer.
    """
    count = sum(row.letters for row in letters)
    if not count:
        return "no open dead letters"
    to_see = f"To see them: ingest dead-letters list {stream.name}"
    if facts is None:
        return Problem(Level.DEGRADED, Kind.REFUSED_RECORDS, f"{_open_letters(count)}. {to_see}")
    refusals = facts.refusals
    if 2 * refusals.refused > refusals.records:
        few = f"{refusals.refused} of the last {refusals.records} records were refused"
        few = few if refusals.records > 1 else "the only record was refused"
        return Problem(Level.DEGRADED, Kind.MOSTLY_REFUSED, f"{few}. {facts.reasons}. {to_see}")
    newest_at, acknowledged_at = refusals.newest_at, state.acknowledged_at
    if newest_at is None or acknowledged_at is None or acknowledged_at < newest_at:
        message = f"{facts.reasons}. {to_see}"
    elif lateness.ledger_time(state) - newest_at < QUIET:
        message = f"{facts.reasons}. Acknowledged. The stream is healthy again at {moment(newest_at + QUIET)}"
    else:
        return f"{facts.reasons}. Acknowledged {moment(acknowledged_at)}"
    return Problem(Level.DEGRADED, Kind.REFUSED_RECORDS, message)


def _open_letters(count: int) -> str:
    return f"{count:,} open dead letter{'s' * (count > 1)}"
