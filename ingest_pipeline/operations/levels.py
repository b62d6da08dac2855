"""The level of a stream's status, and questions that the ledger does not answer in time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from ..core.errors import DatabaseUnavailable, IngestError

HEALTHY, DEGRADED, STOPPED, UNKNOWN = range(4)
"""Also the exit codes of `ingest status`. UNKNOWN is neither well nor ill: PostgreSQL is there, but did not answer in
time."""
LEVELS = ("healthy", "degraded", "stopped", "unknown")
_BY_GRAVITY = (HEALTHY, DEGRADED, UNKNOWN, STOPPED)
_NOT_IN_TIME = {"57014": "the question was ended after 5 s", "55P03": "another session locked what was asked for"}
T = TypeVar("T")


def worst(levels: Iterable[int]) -> int:
    """The gravest level of several streams."""
    return max(levels, key=_BY_GRAVITY.index, default=HEALTHY)


def unanswered(error: IngestError) -> str | None:
    """A sentence for a question that PostgreSQL did not answer in time. None for any other error."""
    if not isinstance(error, DatabaseUnavailable) or error.sqlstate not in _NOT_IN_TIME:
        return None
    return f"unknown: the ledger did not answer in time, as {_NOT_IN_TIME[error.sqlstate]}: {error.message}"


def in_time(question: Callable[[], T], unknown: list[str]) -> T | None:
    """What the ledger answers. None when it did not answer in time, and then the sentence is added to `unknown`.

    Raises: every other error of the question.
    """
    try:
        return question()
    except DatabaseUnavailable as error:
        if (sentence := unanswered(error)) is None:
            raise
        unknown.append(sentence)
        return None
