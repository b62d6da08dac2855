"""Values of settings with two choices. The value is the setting's text."""

from enum import StrEnum


class WriteMethod(StrEnum):
    COPY = "copy"
    EXECUTEMANY = "executemany"


class OnDataLoss(StrEnum):
    STOP = "stop"
    CONTINUE = "continue"


class ReportAs(StrEnum):
    OBSERVATION = "observation"
    MATERIALIZATION = "materialization"


class Tombstones(StrEnum):
    """What becomes of a record without a value."""

    SKIP = "skip"
    DEAD_LETTER = "dead-letter"


class Others(StrEnum):
    """What becomes of a record for which a route names no table."""

    DEAD_LETTER = "dead-letter"
    SKIP = "skip"
    TABLE = "table"


class OnConflict(StrEnum):
    """What becomes of a row whose key is in the table."""

    UPDATE = "update"
    IGNORE = "ignore"


class NaiveTimestamps(StrEnum):
    UTC = "utc"
    REJECT = "reject"


class Envelope(StrEnum):
    """What is around the event in a record's value."""

    NONE = ""
    DEBEZIUM = "debezium"
    CLOUDEVENTS = "cloudevents"
