"""Values of settings with two choices. The value is the setting's text."""

from __future__ import annotations

from enum import StrEnum


class WriteMethod(StrEnum):
    """How rows are sent to PostgreSQL."""

    COPY = "copy"
    EXECUTEMANY = "executemany"


class OnDataLoss(StrEnum):
    """What a run does when Kafka has lost records."""

    STOP = "stop"
    CONTINUE = "continue"


class ReportAs(StrEnum):
    """The kind of asset event that reports progress."""

    OBSERVATION = "observation"
    MATERIALIZATION = "materialization"


class Tombstones(StrEnum):
    """What becomes of a record without a value."""

    SKIP = "skip"
    DEAD_LETTER = "dead-letter"


class OnConflict(StrEnum):
    """What becomes of a row whose key is in the table."""

    UPDATE = "update"
    IGNORE = "ignore"


class NaiveTimestamps(StrEnum):
    """How a timestamp without a zone is read."""

    UTC = "utc"
    REJECT = "reject"


class Envelope(StrEnum):
    """What is around the event in a record's value."""

    NONE = ""
    DEBEZIUM = "debezium"
    CLOUDEVENTS = "cloudevents"
