"""What the demo shows: rows, dead letters and lag as PostgreSQL and Kafka tell them, and the proof at the end."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql

from ..core.stream import Stream
from ..kafka.admin import Admin
from ..kafka.topic import KafkaTopic
from ..local.server import LocalServerError

# No setting reaches the demo's PostgreSQL that would change these.
_EVENTS, _LEDGER = "public", "ingest"

_PROOF = """select count(*) as rows,
       count(distinct event_time) as events,
       (select count(*) from {ledger}.dead_letter where stream = '{stream}') as dead_letters,
       (select count(*) from {ledger}.dead_letter d join {table} r
          using (kafka_incarnation, kafka_partition, kafka_offset) where d.stream = '{stream}') as in_both,
       (select sum(next_offset - first_offset) from {ledger}.position where stream = '{stream}') as read
  from {table}"""


class FiguresUnavailable(LocalServerError):
    """PostgreSQL gave no answer."""


@dataclass(frozen=True)
class StreamFigures:
    """One stream at one moment.

    Attributes:
        events: rows with different times; the simulator gives every event a time of its own. -1: not counted.
        settled: offsets below the position, tombstones and absent ones left out; -1: the stream has not begun.
        next_offsets: partition → position.
        run_ids: of the runs that moved the positions last.
    """

    rows: int = 0
    events: int = -1
    dead_letters: int = 0
    settled: int = -1
    next_offsets: Mapping[int, int] = field(default_factory=dict)
    run_ids: frozenset[str] = frozenset()

    @property
    def lost(self) -> int:
        """Records behind the position that became neither a row nor a dead letter; `events` must be counted."""
        return max(0, self.settled - self.events - self.dead_letters)

    @property
    def twice(self) -> int:
        return max(0, self.rows - self.events)


@dataclass(frozen=True)
class Proof:
    """What the proof's SQL said of one stream, beside what the broker had acknowledged."""

    stream: str
    produced: int
    broken: int
    rows: int
    events: int
    dead_letters: int
    in_both: int
    read: int

    @property
    def lost(self) -> int:
        return max(0, self.produced - self.events - self.dead_letters + self.in_both)

    @property
    def twice(self) -> int:
        return self.rows - self.events + self.in_both

    @property
    def holds(self) -> bool:
        """Every record acknowledged is a row or a dead letter once, and those refused are those broken on purpose."""
        return self.lost == self.twice == 0 and self.dead_letters == self.broken and self.read == self.produced > 0


class Figures:
    """Reads the figures by one connection, which is opened again after it was lost."""

    def __init__(self, database_url: str, kafka: Mapping[str, str], streams: Sequence[Stream]) -> None:
        self._url = database_url
        self._streams = list(streams)
        self._admin = Admin(kafka, client_id="ingest-demo")
        self._topics = {stream.name: KafkaTopic(self._admin, stream.topic) for stream in streams}
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self._admin.close()

    def look(self, count_events: bool = False) -> dict[str, StreamFigures]:
        """Stream → its figures, all of one snapshot. Raises FiguresUnavailable.

        `count_events`: count rows with different times too, which takes longer.
        """
        try:
            with self._snapshot() as connection:
                ledger = self._exists(connection, _LEDGER, "position")
                return {stream.name: self._of(connection, stream, ledger, count_events) for stream in self._streams}
        except psycopg.Error as error:
            self._close()
            raise FiguresUnavailable(f"PostgreSQL gave no figures: {type(error).__name__}") from error

    def lag(self, found: Mapping[str, StreamFigures], partitions: int) -> dict[str, int]:
        """Stream → records between the positions and Kafka's end offsets. Raises KafkaUnavailable and StopStream."""
        lags = {}
        for name, topic in self._topics.items():
            positions = found[name].next_offsets
            ends = topic.end_offsets(range(partitions))
            lags[name] = sum(max(0, place.next_offset - positions.get(at, 0)) for at, place in ends.items())
        return lags

    def prove(self, stream: Stream, produced: int, broken: int) -> Proof:
        """Run the proof's SQL for one stream. Raises FiguresUnavailable."""
        try:
            with self._snapshot() as connection:
                row = connection.execute(proof_sql(stream).encode()).fetchone()
        except psycopg.Error as error:
            self._close()
            raise FiguresUnavailable(f"PostgreSQL gave no proof: {type(error).__name__}") from error
        assert row is not None
        return Proof(stream.name, produced, broken, *(int(number or 0) for number in row))

    def _of(
        self, connection: psycopg.Connection[tuple[Any, ...]], stream: Stream, ledger: bool, count_events: bool
    ) -> StreamFigures:
        rows, events, letters = 0, 0 if count_events else -1, 0
        if self._exists(connection, _EVENTS, stream.table):
            counted = "count(distinct event_time)" if count_events else "-1"
            query = sql.SQL("select count(*), {} from {}").format(
                sql.SQL(counted), sql.Identifier(_EVENTS, stream.table)
            )
            rows, events = connection.execute(query).fetchone() or (0, 0)
        if not ledger:
            return StreamFigures(rows, events)
        schema = sql.Identifier(_LEDGER)
        query = sql.SQL("select count(*) from {}.dead_letter where stream = %s").format(schema)
        (letters,) = connection.execute(query, [stream.name]).fetchone() or (0,)
        query = sql.SQL(
            "select kafka_partition, next_offset, next_offset - first_offset - skipped - absent, run_id"
            " from {}.position where stream = %s"
        ).format(schema)
        positions = connection.execute(query, [stream.name]).fetchall()
        return StreamFigures(
            rows,
            events,
            letters,
            sum(row[2] for row in positions) if positions else -1,
            {row[0]: row[1] for row in positions},
            frozenset(row[3] for row in positions if row[3]),
        )

    @contextmanager
    def _snapshot(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        if self._connection is None:
            self._connection = psycopg.connect(
                self._url, connect_timeout=5, autocommit=True, application_name="ingest-demo"
            )
            self._connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            self._connection.read_only = True
        with self._connection.transaction():
            yield self._connection

    def _exists(self, connection: psycopg.Connection[tuple[Any, ...]], schema: str, table: str) -> bool:
        query = "select exists (select from pg_tables where schemaname = %s and tablename = %s)"
        row = connection.execute(query, [schema, table]).fetchone()
        return row is not None and bool(row[0])

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def proof_sql(stream: Stream) -> str:
    """SQL to paste into psql: one line of counts of a drained stream."""
    table = sql.Identifier(_EVENTS, stream.table).as_string()
    return _PROOF.format(ledger=_LEDGER, stream=stream.name, table=table)
