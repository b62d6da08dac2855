"""The ledger as everybody but the drainer sees it: read, begun, paused. Uses pooled connections only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, TextClause, text

from ..core.record import Place, TopicIdentity
from ..core.start import StoredPosition
from ..core.stream import Stream
from . import ownership, schema
from .engine import Database, in_text
from .ownership import Holder


@dataclass(frozen=True, slots=True)
class StreamState:
    """Whether a stream is paused, and who says so."""

    paused: bool
    reason: str | None
    paused_by: str | None
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Owners:
    """Who is at work, at one moment.

    Attributes:
        holders: partition → who owns it.
        present: run ids that have a writing session, owners or not.
    """

    holders: Mapping[int, Holder]
    present: Collection[str]


class LedgerBook:
    """One stream's part of the ledger. Implements core.start.Book."""

    def __init__(self, database: Database, stream: Stream) -> None:
        self._database, self._stream = database, stream
        self._doing = f"reading the ledger of stream {stream.name}"

    def prepare(self) -> None:
        """Create ledger and table where they are missing. See postgres.schema.prepare."""
        schema.prepare(self._database, self._stream)

    def positions(self) -> dict[int, StoredPosition]:
        """See core.start.Book."""
        with self._database.connect(self._doing) as connection:
            if schema.ledger_version(connection, self._database.schemas.ledger) is None:
                return {}
            rows = connection.execute(self._sql(_POSITIONS), {"stream": self._stream.name})
            return {row.partition: StoredPosition(**row._mapping) for row in rows}

    def owners(self, partitions: Collection[int]) -> Owners:
        """Who owns these partitions and which runs have a session."""
        with self._database.connect(self._doing) as connection:
            if schema.ledger_version(connection, self._database.schemas.ledger) is None:
                return Owners({}, set())
            keys = ownership.lock_keys(connection, self._database.schemas.ledger, self._stream.name)
            held = ownership.holders(connection, keys, partitions) if partitions else {}
            return Owners(held, ownership.present_runs(connection))

    def state(self) -> StreamState:
        """Paused or not."""
        with self._database.connect(self._doing) as connection:
            if schema.ledger_version(connection, self._database.schemas.ledger) is None:
                return StreamState(False, None, None, None)
            row = connection.execute(self._sql(_STATE), {"stream": self._stream.name}).one_or_none()
            return StreamState(False, None, None, None) if row is None else StreamState(**row._mapping)

    def pause(self, reason: str, by: str) -> None:
        """The stream stops within a batch, wherever it runs, and stays so until `resume`."""
        self._execute(_PAUSE, {"reason": reason, "by": by})

    def resume(self) -> None:
        """Lift the pause; the next tick launches a run."""
        self._execute(_RESUME, {})

    def begin(self, identity: TopicIdentity, places: Mapping[int, Place], first: bool) -> bool:
        """See core.start.Book."""
        with self._database.connect(f"beginning stream {self._stream.name}") as connection:
            lock = {"key": f"ingest begin {self._database.schemas.ledger} {self._stream.name}"}
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), lock)
            known = connection.execute(self._sql(_POSITIONS), {"stream": self._stream.name}).all()
            if first and known:
                return False
            incarnation = max((row.incarnation for row in known), default=0) or self._new_incarnation(connection)
            connection.execute(
                self._sql(_BEGIN),
                [
                    {
                        "stream": self._stream.name,
                        "topic": self._stream.topic,
                        "partition": partition,
                        "incarnation": incarnation,
                        "cluster_id": identity.cluster_id,
                        "topic_id": identity.topic_id,
                        "offset": place.next_offset,
                        "leader_epoch": place.leader_epoch,
                    }
                    for partition, place in places.items()
                ],
            )
            return True

    def adopt_identity(self, identity: TopicIdentity) -> None:
        """See core.start.Book."""
        if identity.topic_id is not None or identity.cluster_id is not None:
            self._execute(_ADOPT, {"cluster_id": identity.cluster_id, "topic_id": identity.topic_id})

    def ledger_id(self) -> str:
        """See core.start.Book."""
        with self._database.connect(self._doing) as connection:
            return str(connection.execute(self._sql("SELECT id FROM {ledger}.ledger")).scalar_one())

    def await_topic(self) -> None:
        """Remember that the topic did not exist: when it appears it begins at its beginning."""
        self._execute(_AWAIT, {})

    def was_awaited(self) -> bool:
        """See core.start.Book."""
        with self._database.connect(self._doing) as connection:
            found = connection.execute(self._sql(_AWAITED), {"stream": self._stream.name})
            return bool(found.scalar())

    def _new_incarnation(self, connection: Connection) -> int:
        events = self._database.schemas.events
        table = f"{in_text(events)}.{in_text(self._stream.table)}"
        used = connection.execute(text(f"SELECT max(kafka_incarnation) FROM {table}")).scalar() or 0  # noqa: S608
        parameters = {"event_table": f"{events}.{self._stream.table}", "used": used}
        return int(connection.execute(self._sql(_INCARNATION), parameters).scalar_one())

    def _execute(self, statement: str, parameters: dict[str, Any]) -> None:
        with self._database.connect(f"changing the ledger of stream {self._stream.name}") as connection:
            connection.execute(self._sql(statement), {"stream": self._stream.name, **parameters})

    def _sql(self, statement: str) -> TextClause:
        return text(statement.replace("{ledger}", in_text(self._database.schemas.ledger)))


_POSITIONS = """
    SELECT kafka_partition AS partition, kafka_incarnation AS incarnation, topic, cluster_id, topic_id, first_offset,
           next_offset, leader_epoch, "rows", dead_letters, skipped, absent, lost, updated_at, run_id
    FROM {ledger}.position WHERE stream = :stream ORDER BY kafka_partition"""
_STATE = "SELECT paused, reason, paused_by, since FROM {ledger}.stream_state WHERE stream = :stream"
_PAUSE = """
    INSERT INTO {ledger}.stream_state AS s (stream, paused, reason, paused_by, since)
    VALUES (:stream, true, :reason, :by, now())
    ON CONFLICT (stream) DO UPDATE SET paused = true, reason = :reason, paused_by = :by, since = now()"""
_RESUME = """
    UPDATE {ledger}.stream_state SET paused = false, reason = NULL, paused_by = NULL, since = now()
    WHERE stream = :stream AND paused"""
_BEGIN = """
    INSERT INTO {ledger}.position (stream, topic, kafka_partition, kafka_incarnation, cluster_id, topic_id,
        first_offset, next_offset, leader_epoch)
    VALUES (:stream, :topic, :partition, :incarnation, :cluster_id, :topic_id, :offset, :offset, :leader_epoch)
    ON CONFLICT (stream, kafka_partition) DO NOTHING"""
_ADOPT = """
    UPDATE {ledger}.position
    SET cluster_id = coalesce(cluster_id, :cluster_id), topic_id = coalesce(topic_id, :topic_id)
    WHERE stream = :stream AND (cluster_id IS NULL OR topic_id IS NULL)"""
_AWAIT = """
    INSERT INTO {ledger}.stream_state (stream, awaited_since) VALUES (:stream, now())
    ON CONFLICT (stream) DO UPDATE SET awaited_since = coalesce(stream_state.awaited_since, now())"""
_AWAITED = "SELECT awaited_since IS NOT NULL FROM {ledger}.stream_state WHERE stream = :stream"
_INCARNATION = """
    INSERT INTO {ledger}.incarnation AS i (event_table, last) VALUES (:event_table, :used + 1)
    ON CONFLICT (event_table) DO UPDATE SET last = greatest(i.last, :used) + 1 RETURNING last"""
