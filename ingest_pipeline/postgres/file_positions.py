"""Positions of files in the ledger.

A file is a partition with a negative number, and its lines are the offsets, so Kafka's partitions never meet them. The
statements that compare positions with Kafka leave negative partitions out. `topic` is the file's name, and `topic_id` a
hash of the first line.
"""

from __future__ import annotations

from sqlalchemy import text

from ..core.errors import SettingsError
from ..core.stream import Stream
from .database import Database

FILE_INCARNATION = 1
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))")
_FIND = """
    SELECT kafka_partition, topic_id FROM {ledger}.position
    WHERE stream = :stream AND kafka_partition < 0 AND topic = :name"""
_BEGIN = """
    INSERT INTO {ledger}.position
        (stream, topic, kafka_partition, kafka_incarnation, topic_id, first_offset, next_offset)
    SELECT :stream, :name, least(min(kafka_partition), 0) - 1, :incarnation, :first_line, 1, 1
    FROM {ledger}.position WHERE stream = :stream
    RETURNING kafka_partition"""


def file_partition(database: Database, stream: Stream, name: str, first_line: str) -> int:
    """The partition of a file, made on the first call. A file's first line is offset 1.

    Raises:
        SettingsError: another file of this name was loaded.
    """
    with database.connect(f"loading {name} into stream {stream.name}") as connection:
        connection.execute(_LOCK, {"key": f"ingest load {database.schemas.ledger} {stream.name}"})
        parameters = {"stream": stream.name, "name": name, "first_line": first_line, "incarnation": FILE_INCARNATION}
        row = connection.execute(database.schemas.sql(_FIND), parameters).one_or_none()
        if row is None:
            return int(connection.execute(database.schemas.sql(_BEGIN), parameters).scalar_one())
        if row.topic_id != first_line:
            raise SettingsError(
                f"stream {stream.name}: a file {name} with another first line was loaded before: give this one another"
                " name (--name)"
            )
        return int(row.kafka_partition)
