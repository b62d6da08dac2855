"""Positions of files in the ledger.

A file is a partition with a negative number, and its lines are the offsets, so Kafka's partitions never meet them. The
statements that compare positions with Kafka leave negative partitions out. `topic` is the file's name, and `topic_id`
the number of its first lines and their hash, such as `3:9f86d0…`.
"""

import hashlib

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
    SELECT :stream, :name, least(min(kafka_partition), 0) - 1, :incarnation, :lines, 1, 1
    FROM {ledger}.position WHERE stream = :stream
    RETURNING kafka_partition, topic_id"""
_NOTE = """
    UPDATE {ledger}.position SET topic_id = :lines WHERE stream = :stream AND kafka_partition = :partition"""


class FilePosition:
    """Recognizes a file by its name and by the lines that were loaded before. A file's first line is offset 1.

    A last line without a line break does not count, because it may grow.
    """

    def __init__(self, database: Database, stream: Stream, name: str) -> None:
        self._database, self._stream, self._name = database, stream, name
        self._lines, self._hash = 0, hashlib.sha256()
        with database.connect(self._doing) as connection:
            connection.execute(_LOCK, {"key": f"ingest load {database.schemas.ledger} {stream.name}"})
            parameters = {"stream": stream.name, "name": name, "lines": self._read, "incarnation": FILE_INCARNATION}
            row = connection.execute(database.schemas.sql(_FIND), parameters).one_or_none()
            if row is None:
                row = connection.execute(database.schemas.sql(_BEGIN), parameters).one()
        self.partition = int(row.kafka_partition)
        self._before: str = row.topic_id
        self._lines_before = int(self._before.partition(":")[0])

    def add(self, line: bytes) -> None:
        """Take note of the file's next line. Raises SettingsError if it is another file than the one loaded before."""
        if line.endswith(b"\n"):
            self._lines += 1
            self._hash.update(line.rstrip(b"\r\n") + b"\n")
            if self._lines == self._lines_before and self._read != self._before:
                raise self._other_file()

    def check_length(self) -> None:
        """Call this at the file's end. Raises as `add`."""
        if self._lines < self._lines_before:
            raise self._other_file()

    def store(self) -> None:
        """Store what identifies the file, after its lines were committed."""
        if self._lines > self._lines_before:
            with self._database.connect(self._doing) as connection:
                parameters = {"stream": self._stream.name, "partition": self.partition, "lines": self._read}
                connection.execute(self._database.schemas.sql(_NOTE), parameters)

    @property
    def _doing(self) -> str:
        return f"loading {self._name} into stream {self._stream.name}"

    @property
    def _read(self) -> str:
        return f"{self._lines}:{self._hash.hexdigest()}"

    def _other_file(self) -> SettingsError:
        return SettingsError(
            f"stream {self._stream.name}: a file {self._name} with other lines was loaded before: give this one another"
            " name (--name)"
        )
