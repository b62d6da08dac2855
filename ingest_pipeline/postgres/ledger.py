"""The ledger outside a run: read, begin, pause."""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, TextClause, text

from ..core.errors import IngestError, LedgerConflict
from ..core.ledger import Account, LedgerSnapshot, LetterCount, Owners, StreamState
from ..core.ledger_ports import Ledger
from ..core.loss import Loss
from ..core.record import NextOffset, StoredPosition, TopicIdentity
from ..core.stream import Stream
from . import acceptance, ledger_sql, ledgers, schema
from .database import Database
from .ledgers import PostgresLedgers
from .sql import Schemas


class PostgresLedger(Ledger):
    def __init__(self, database: Database, stream: Stream) -> None:
        self._database, self._stream = database, stream
        self._doing = f"reading the ledger of stream {stream.name}"

    def prepare(self) -> None:
        self._ledgers().prepare()

    def snapshot(self) -> LedgerSnapshot:
        snapshot = self._ledgers().snapshots()[self._stream.name]
        if isinstance(snapshot, IngestError):
            raise snapshot
        return snapshot

    def positions(self) -> dict[int, StoredPosition]:
        """Raises LedgerConflict: see `read_positions`."""
        with self._database.connect(self._doing) as connection:
            return self._positions(connection) if schema.has_ledger(connection, self._database) else {}

    def owners(self, partitions: Collection[int]) -> Owners:
        name = self._stream.name
        with self._database.connect(self._doing) as connection:
            if not schema.has_ledger(connection, self._database):
                return Owners({}, set())
            return ledgers.read_owners(connection, self._database, {name: partitions})[name]

    def state(self) -> StreamState:
        name = self._stream.name
        with self._database.connect(self._doing) as connection:
            if not schema.has_ledger(connection, self._database):
                return StreamState()
            return ledgers.read_states(connection, self._database, [name])[name]

    def pause(self, reason: str, by: str) -> None:
        self._execute_prepared(ledger_sql.PAUSE, {"reason": reason, "by": by})

    def resume(self) -> None:
        self._execute_prepared(ledger_sql.RESUME, {})

    def allow_letters(self, count: int) -> None:
        self._execute_prepared(ledger_sql.ALLOW, {"count": count})

    def acknowledge_letters(self) -> None:
        self._execute_prepared(ledger_sql.ACKNOWLEDGE, {})

    def note_failure(self, why: str, stops: bool) -> None:
        self._execute(ledger_sql.FAILED, {"why": why, "stops": stops})

    def losses(self) -> list[Loss]:
        name = self._stream.name
        with self._database.connect(self._doing) as connection:
            if not schema.has_ledger(connection, self._database):
                return []
            return ledgers.read_losses(connection, self._database, [name])[name]

    def note_loss(self, loss: Loss) -> None:
        parameters = {
            "partition": loss.partition,
            "incarnation": loss.incarnation,
            "next_offset": loss.next_offset,
            "cause": loss.cause,
            "low": loss.low,
            "high": loss.high,
        }
        self._execute(ledger_sql.NOTE_LOSS, parameters)

    def forget_losses(self, partition: int | None = None) -> None:
        self._execute(ledger_sql.FORGET_LOSSES, {"partition": partition})

    def begin(
        self, identity: TopicIdentity, starts: Mapping[int, NextOffset], first: bool
    ) -> dict[int, StoredPosition]:
        with self._database.connect(f"beginning stream {self._stream.name}") as connection:
            lock = {"key": f"ingest begin {self._database.schemas.ledger} {self._stream.name}"}
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), lock)
            existing = self._positions(connection)
            if first and existing:
                return existing
            if first:
                _refuse_second_reading(connection, self._database.schemas, self._stream, identity)
            incarnations = self._incarnations(
                connection, max((p.incarnation for p in existing.values()), default=0), starts
            )
            connection.execute(
                self._sql(ledger_sql.BEGIN),
                [
                    {
                        "stream": self._stream.name,
                        "topic": self._stream.topic,
                        "partition": partition,
                        "incarnation": incarnations[partition],
                        "cluster_id": identity.cluster_id,
                        "topic_id": identity.topic_id,
                        "offset": start.next_offset,
                        "leader_epoch": start.leader_epoch,
                    }
                    for partition, start in starts.items()
                ],
            )
            return self._positions(connection)

    def _positions(self, connection: Connection) -> dict[int, StoredPosition]:
        positions = ledgers.read_positions(connection, self._database, [self._stream.name])[self._stream.name]
        if isinstance(positions, IngestError):
            raise positions
        return positions

    def _incarnations(self, connection: Connection, current: int, partitions: Collection[int]) -> dict[int, int]:
        """The stream's current incarnation. Partitions closed under it get a new one, because their offsets are used
        again."""
        rows = connection.execute(self._sql(ledger_sql.PAST_INCARNATIONS), {"stream": self._stream.name})
        past = {row.partition: row.incarnation for row in rows}
        used = [partition for partition in partitions if past.get(partition, 0) >= current]
        if not used:
            return dict.fromkeys(partitions, current)
        new = acceptance.new_incarnation(connection, self._database.schemas, self._stream)
        return dict.fromkeys(partitions, current) | dict.fromkeys(used, new)

    def adopt_identity(self, identity: TopicIdentity) -> None:
        if identity.topic_id is not None or identity.cluster_id is not None:
            self._execute(ledger_sql.ADOPT, {"cluster_id": identity.cluster_id, "topic_id": identity.topic_id})

    def ledger_id(self) -> str:
        with self._database.connect(self._doing) as connection:
            return str(connection.execute(self._sql("SELECT id FROM {ledger}.ledger")).scalar_one())

    def accounting(self) -> list[Account]:
        return self._ledgers().accounting()[self._stream.name]

    def row_count(self) -> int:
        with self._database.connect(self._doing) as connection:
            count = connection.execute(self._sql(ledger_sql.ROW_COUNT), {"stream": self._stream.name})
            return int(count.scalar_one())

    def open_letters(self) -> list[LetterCount]:
        return self._ledgers().open_letters()[self._stream.name]

    def await_topic(self) -> None:
        self._execute_prepared(ledger_sql.AWAIT, {})

    def _execute_prepared(self, statement: str, parameters: dict[str, Any]) -> None:
        """For a change that may come before the stream's first run."""
        self.prepare()
        self._execute(statement, parameters)

    def _execute(self, statement: str, parameters: dict[str, Any]) -> None:
        with self._database.connect(f"changing the ledger of stream {self._stream.name}") as connection:
            connection.execute(self._sql(statement), {"stream": self._stream.name, **parameters})

    def _ledgers(self) -> PostgresLedgers:
        return PostgresLedgers(self._database, [self._stream])

    def _sql(self, statement: str) -> TextClause:
        return self._database.schemas.sql(statement)


_STORED_BY = """
    SELECT p.stream, p.kafka_partition, p.first_offset, p.next_offset
    FROM (SELECT stream, topic, kafka_partition, kafka_incarnation, cluster_id, topic_id, first_offset, next_offset
          FROM {ledger}.position
          UNION ALL
          SELECT stream, topic, kafka_partition, kafka_incarnation, cluster_id, topic_id, first_offset, next_offset
          FROM {ledger}.past_position) AS p
    {present}
    WHERE p.topic = :topic AND p.stream <> :stream
      AND coalesce(p.cluster_id = CAST(:cluster_id AS text), true)
      AND coalesce(p.topic_id = CAST(:topic_id AS text), true)
    ORDER BY p.stream, p.kafka_partition LIMIT 1"""


_PRESENT = """
    CROSS JOIN LATERAL (
        SELECT FROM {rows} AS event
        WHERE event.kafka_incarnation = p.kafka_incarnation AND event.kafka_partition = p.kafka_partition
          AND event.kafka_offset >= p.first_offset AND event.kafka_offset < p.next_offset LIMIT 1) AS present"""


def _refuse_second_reading(connection: Connection, schemas: Schemas, stream: Stream, identity: TopicIdentity) -> None:
    """Call this before a stream begins for the first time. Several topics may share a table, but no topic may be stored
    twice.

    Raises:
        LedgerConflict: the table holds rows of this topic under another stream's positions. Without coordinates in the
            table, another stream's positions are enough.
    """
    parameters = {
        "stream": stream.name,
        "topic": stream.topic,
        "cluster_id": identity.cluster_id,
        "topic_id": identity.topic_id,
    }
    statement = schemas.sql(_STORED_BY, stream, present=_PRESENT if stream.coordinates else "")
    other = connection.execute(statement, parameters).first()
    if other is not None:
        tables = " or ".join(str(schemas.table_name(table)) for table in stream.tables)
        holds = "holds" if stream.coordinates else "may hold"
        raise LedgerConflict(
            f"stream {stream.name}: table {tables} {holds} rows of topic {stream.topic} already,"
            f" by the positions of stream {other.stream} (partition {other.kafka_partition}, offsets"
            f" {other.first_offset} to {other.next_offset - 1}), and would hold them twice. If {other.stream} was"
            " renamed, give it its name back or rename it in the ledger, as docs/operations.md says. If both are"
            " wanted, give one another table",
            stream=stream.name,
            partition=other.kafka_partition,
        )
