"""The level of a stream's status, and of an error."""

from collections.abc import Iterable
from enum import IntEnum

from ..core.errors import DatabaseUnavailable, EnvironmentFault, IngestError, UnknownFault


class Level(IntEnum):
    """How well a stream is. The values are the exit codes of `ingest status`.

    UNKNOWN is neither well nor ill: a server does not answer, or a question was not asked.
    """

    HEALTHY = 0
    DEGRADED = 1
    STOPPED = 2
    UNKNOWN = 3

    @property
    def label(self) -> str:
        """The word for people, JSON and metrics."""
        return self.name.lower()

    @property
    def gravity(self) -> int:
        return _BY_GRAVITY.index(self)


_BY_GRAVITY = (Level.HEALTHY, Level.DEGRADED, Level.UNKNOWN, Level.STOPPED)
_TIME_OUTS = {"57014": "the question was ended after 5 s", "55P03": "another session locked what was asked for"}


def worst(levels: Iterable[Level]) -> Level:
    """The gravest level of several streams."""
    return max(levels, key=lambda level: level.gravity, default=Level.HEALTHY)


def timed_out(error: IngestError) -> bool:
    """Whether a running PostgreSQL did not answer in time."""
    return isinstance(error, DatabaseUnavailable) and error.sqlstate in _TIME_OUTS


def judge_error(error: IngestError) -> tuple[Level, str]:
    """The level and the message of a question with an error for an answer.

    A refusal is an answer about the stream. A server without an answer says nothing about the stream.
    """
    if timed_out(error):
        cause = _TIME_OUTS[str(error.sqlstate)]
        return Level.UNKNOWN, f"unknown: the ledger did not answer in time, as {cause}: {error.message}"
    if isinstance(error, EnvironmentFault | UnknownFault):
        return Level.UNKNOWN, f"unknown: {error.message}"
    return Level.STOPPED, error.message
