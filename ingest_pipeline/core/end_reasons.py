"""Why a run ends by itself, as stored in the run's tag and shown in its metadata."""

from enum import StrEnum


class EndReason(StrEnum):
    """A run that fails has "failed:<error class>" in its tag instead."""

    CAUGHT_UP = "caught-up"
    AGE = "age"
    BATCHES = "batches"
    PAUSED = "paused"
    YIELDED = "yielded"
    PARTITIONS_ADDED = "partitions-added"
    TERMINATED = "terminated"
    SIGNAL = "signal"
    SUPERSEDED = "superseded"
    SURPLUS = "surplus"
    OTHER_DEFINITION = "other-definition"
