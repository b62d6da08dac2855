"""The proof of no lost and no doubled record, by SQL for psql."""

from typing import NamedTuple

import psycopg
from psycopg import sql

from ..core.stream import Stream
from ..local.server import LocalServerError

_PROOF = """select count(*) as rows,
       count(distinct event_time) as events,
       (select count(*) from ingest.dead_letter where stream = '{stream}') as dead_letters,
       (select count(*) from ingest.dead_letter d join {table} r
          using (kafka_incarnation, kafka_partition, kafka_offset) where d.stream = '{stream}') as in_both,
       (select sum(next_offset - first_offset) from ingest.position where stream = '{stream}') as read
  from {table}"""


class Counts(NamedTuple):
    """A stream's counts in PostgreSQL.

    Attributes:
        events: rows with different times. The simulator gives every event its own time.
        in_both: offsets with both a row and a dead letter.
        read: offsets below the positions.
    """

    rows: int = 0
    events: int = 0
    dead_letters: int = 0
    in_both: int = 0
    read: int = 0

    def lost(self, produced: int) -> int:
        """How many of the records produced became neither a row nor a dead letter."""
        return max(0, produced - self.events - self.dead_letters + self.in_both)

    @property
    def twice(self) -> int:
        return self.rows - self.events + self.in_both

    def prove(self, produced: int, broken: int) -> bool:
        """Whether every record became a row or a dead letter once, and only broken records became dead letters."""
        all_read = self.read == produced > 0
        return all_read and self.lost(produced) == self.twice == 0 and self.dead_letters == broken


def proof_sql(stream: Stream) -> str:
    """SQL to paste into psql. The result is a line of counts."""
    return _PROOF.format(stream=stream.name, table=sql.Identifier(*stream.table_name.within("public")).as_string())


def count(database_url: str, stream: Stream) -> Counts:
    """Run the proof's SQL. Zeros before the stream's first run. Raises LocalServerError."""
    try:
        with psycopg.connect(database_url, connect_timeout=5, application_name="ingest-demo") as connection:
            row = connection.execute(proof_sql(stream).encode()).fetchone()
    except psycopg.errors.UndefinedTable:
        return Counts()
    except psycopg.Error as error:
        raise LocalServerError(f"PostgreSQL gave no counts: {type(error).__name__}") from error
    return Counts(*(int(number or 0) for number in row or ()))
