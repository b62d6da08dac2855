"""The ledger as everybody but the drainer sees it: read, begun, paused. Uses pooled connections only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, TextClause, text

from ..core.loss import Loss, noted_loss
from ..core.record import Place, TopicIdentity
from ..core.start import StoredPosition
from ..core.stream import Stream
from . import acceptance, ownership, schema
from .engine import Database, in_text
from .ownership import Holder


@dataclass(frozen=True, slots=True)
class StreamState:
    """Whether a stream is paused, and who says so; how many dead letters may still pass uncounted by the limit; when an
    operator last mended something; when its sensor last looked, to the minute; when a run failed last, why, and whether
    only somebody's action can help."""

    paused: bool = False
    reason: str | None = None
    paused_by: str | None = None
    since: datetime | None = None
    letters_allowed: int = 0
    acted_at: datetime | None = None
    ticked_at: datetime | None = None
    failed_at: datetime | None = None
    failure: str | None = None
    failure_stops: bool | None = None

    @property
    def paused_words(self) -> str | None:
        """Why, by whom and since when; None when it is not paused."""
        if not self.paused or self.since is None:
            return None
        return f"{self.reason} ({self.paused_by}), since {self.since.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


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
            if not schema.has_ledger(connection, self._database):
                return {}
            rows = connection.execute(self._sql(_POSITIONS), {"stream": self._stream.name})
            return {row.partition: StoredPosition(**row._mapping) for row in rows}

    def owners(self, partitions: Collection[int]) -> Owners:
        """Who owns these partitions and which runs have a session."""
        with self._database.connect(self._doing) as connection:
            if not schema.has_ledger(connection, self._database):
                return Owners({}, set())
            keys = ownership.lock_keys(connection, self._database.schemas.ledger, self._stream.name)
            held = ownership.holders(connection, keys, partitions) if partitions else {}
            return Owners(held, ownership.present_runs(connection))

    def state(self) -> StreamState:
        """Paused or not."""
        with self._database.connect(self._doing) as connection:
            if not schema.has_ledger(connection, self._database):
                return StreamState()
            row = connection.execute(self._sql(_STATE), {"stream": self._stream.name}).one_or_none()
            return StreamState() if row is None else StreamState(**row._mapping)

    def pause(self, reason: str, by: str) -> None:
        """The stream stops within a batch, wherever it runs, and stays so until `resume`."""
        self._execute(_PAUSE, {"reason": reason, "by": by})

    def resume(self) -> None:
        """Lift the pause; the next tick launches a run."""
        self._execute(_RESUME, {})

    def allow_letters(self, count: int) -> None:
        """Let so many dead letters pass uncounted by the limit, whatever was allowed before; 0 for none any more."""
        self._execute(_ALLOW, {"count": count})

    def note_tick(self) -> None:
        """The stream's sensor has looked just now."""
        self._execute(_TICK, {})

    def note_failure(self, why: str, stops: bool) -> None:
        """A run has failed just now.

        Args:
            why: one line, without a record's values.
            stops: trying again cannot help.
        """
        self._execute(_FAILED, {"why": why, "stops": stops})

    def losses(self) -> list[Loss]:
        """What was found missing at the positions as they stand now, and is not accepted yet."""
        with self._database.connect(self._doing) as connection:
            if not schema.has_ledger(connection, self._database):
                return []
            rows = connection.execute(self._sql(_LOSSES), {"stream": self._stream.name})
            return [noted_loss(**row._mapping) for row in rows]

    def note_loss(self, loss: Loss) -> None:
        """Keep what was found first: the log's bounds may say something else by the time somebody looks."""
        parameters = {
            "partition": loss.partition,
            "incarnation": loss.incarnation,
            "next_offset": loss.next_offset,
            "cause": loss.cause,
            "low": loss.low,
            "high": loss.high,
        }
        self._execute(_NOTE_LOSS, parameters)

    def forget_losses(self) -> None:
        """What was found was a mistake: Kafka holds the next offsets after all."""
        self._execute("DELETE FROM {ledger}.loss WHERE stream = :stream", {})

    def begin(self, identity: TopicIdentity, places: Mapping[int, Place], first: bool) -> bool:
        """See core.start.Book."""
        with self._database.connect(f"beginning stream {self._stream.name}") as connection:
            lock = {"key": f"ingest begin {self._database.schemas.ledger} {self._stream.name}"}
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), lock)
            known = connection.execute(self._sql(_POSITIONS), {"stream": self._stream.name}).all()
            if first and known:
                return False
            incarnation = max((row.incarnation for row in known), default=0) or acceptance.new_incarnation(
                connection, self._database.schemas, self._stream
            )
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

    def accounting(self) -> list[Row[Any]]:
        """The stream's rows of the view accounting; empty without a ledger."""
        with self._database.connect(self._doing) as connection:
            if not schema.has_ledger(connection, self._database):
                return []
            return list(connection.execute(self._sql(_ACCOUNTING), {"stream": self._stream.name}).all())

    def open_letters(self) -> list[Row[Any]]:
        """(partition, stage, sqlstate_class, letters) of the dead letters that wait for somebody. The class is the
        SQLSTATE's first two characters, empty where the database had no say."""
        with self._database.connect(self._doing) as connection:
            if not schema.has_ledger(connection, self._database):
                return []
            return list(connection.execute(self._sql(_OPEN_LETTERS), {"stream": self._stream.name}).all())

    def await_topic(self) -> None:
        """Remember that the topic did not exist: when it appears it begins at its beginning."""
        self._execute(_AWAIT, {})

    def was_awaited(self) -> bool:
        """See core.start.Book."""
        with self._database.connect(self._doing) as connection:
            found = connection.execute(self._sql(_AWAITED), {"stream": self._stream.name})
            return bool(found.scalar())

    def _execute(self, statement: str, parameters: dict[str, Any]) -> None:
        with self._database.connect(f"changing the ledger of stream {self._stream.name}") as connection:
            connection.execute(self._sql(statement), {"stream": self._stream.name, **parameters})

    def _sql(self, statement: str) -> TextClause:
        return text(statement.replace("{ledger}", in_text(self._database.schemas.ledger)))


_POSITIONS = """
    SELECT kafka_partition AS partition, kafka_incarnation AS incarnation, topic, cluster_id, topic_id, first_offset,
           next_offset, leader_epoch, "rows", dead_letters, skipped, absent, lost, updated_at, run_id
    FROM {ledger}.position WHERE stream = :stream ORDER BY kafka_partition"""
_STATE = """
    SELECT paused, reason, paused_by, since, letters_allowed, acted_at, ticked_at, failed_at,
           failure, failure_stops
    FROM {ledger}.stream_state WHERE stream = :stream"""
_PAUSE = """
    INSERT INTO {ledger}.stream_state AS s (stream, paused, reason, paused_by, since)
    VALUES (:stream, true, :reason, :by, now())
    ON CONFLICT (stream) DO UPDATE SET paused = true, reason = :reason, paused_by = :by, since = now()"""
_RESUME = """
    UPDATE {ledger}.stream_state
    SET paused = false, reason = NULL, paused_by = NULL, since = now(), acted_at = now()
    WHERE stream = :stream AND paused"""
_ALLOW = """
    INSERT INTO {ledger}.stream_state (stream, letters_allowed, acted_at) VALUES (:stream, :count, now())
    ON CONFLICT (stream) DO UPDATE SET letters_allowed = :count, acted_at = now()"""
_TICK = """
    INSERT INTO {ledger}.stream_state (stream, ticked_at) VALUES (:stream, now())
    ON CONFLICT (stream) DO UPDATE SET ticked_at = now()"""
_FAILED = """
    INSERT INTO {ledger}.stream_state (stream, failed_at, failure, failure_stops) VALUES (:stream, now(), :why, :stops)
    ON CONFLICT (stream) DO UPDATE SET failed_at = now(), failure = :why, failure_stops = :stops"""
_BEGIN = """
    INSERT INTO {ledger}.position (stream, topic, kafka_partition, kafka_incarnation, cluster_id, topic_id,
        first_offset, next_offset, leader_epoch)
    VALUES (:stream, :topic, :partition, :incarnation, :cluster_id, :topic_id, :offset, :offset, :leader_epoch)
    ON CONFLICT (stream, kafka_partition) DO NOTHING"""
_ADOPT = """
    UPDATE {ledger}.position
    SET cluster_id = coalesce(cluster_id, :cluster_id), topic_id = coalesce(topic_id, :topic_id)
    WHERE stream = :stream AND (cluster_id IS NULL OR topic_id IS NULL)"""
_ACCOUNTING = """
    SELECT * FROM {ledger}.accounting WHERE stream = :stream ORDER BY kafka_partition, kafka_incarnation"""
_OPEN_LETTERS = """
    SELECT kafka_partition AS partition, stage, coalesce(left(sqlstate, 2), '') AS sqlstate_class, count(*) AS letters
    FROM {ledger}.dead_letter WHERE stream = :stream AND status = 'open' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""
_AWAIT = """
    INSERT INTO {ledger}.stream_state (stream, awaited_since) VALUES (:stream, now())
    ON CONFLICT (stream) DO UPDATE SET awaited_since = coalesce(stream_state.awaited_since, now())"""
_AWAITED = "SELECT awaited_since IS NOT NULL FROM {ledger}.stream_state WHERE stream = :stream"
_LOSSES = """
    SELECT l.cause, l.kafka_partition AS partition, l.kafka_incarnation AS incarnation, l.next_offset AS expected,
           l.low, l.high, l.found_at
    FROM {ledger}.loss l JOIN {ledger}.position p USING (stream, kafka_partition, kafka_incarnation, next_offset)
    WHERE stream = :stream ORDER BY l.kafka_partition"""
_NOTE_LOSS = """
    INSERT INTO {ledger}.loss AS l (stream, kafka_partition, kafka_incarnation, next_offset, low, high, cause)
    VALUES (:stream, :partition, :incarnation, :next_offset, :low, :high, :cause)
    ON CONFLICT (stream, kafka_partition) DO UPDATE
    SET kafka_incarnation = excluded.kafka_incarnation, next_offset = excluded.next_offset, low = excluded.low,
        high = excluded.high, cause = excluded.cause, found_at = now()
    WHERE (l.kafka_incarnation, l.next_offset) <> (excluded.kafka_incarnation, excluded.next_offset)"""
