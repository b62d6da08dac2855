"""The ledger as everybody but the drainer sees it: read, begun, paused. Uses pooled connections only."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, TextClause, text

from ..core.errors import LedgerConflict
from ..core.loss import Loss, noted_loss
from ..core.record import NextOffset, TopicIdentity
from ..core.start import StoredPosition
from ..core.stream import Stream
from . import acceptance, ledger_sql, locks, renamed, schema
from .database import Database, in_text
from .locks import Holder


@dataclass(frozen=True, slots=True)
class StreamState:
    """Whether a stream is paused, and who says so; how many dead letters may still pass uncounted by the limit; when an
    operator last mended something; when its sensor last looked, to the minute; when a run failed last, why, and whether
    only somebody's action can help. `waiting`: what note_waiting has kept. `now`:
    PostgreSQL's time, by which the others are to be judged."""

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
    waiting: Mapping[str, Any] | None = None
    now: datetime | None = None


@dataclass(frozen=True, slots=True)
class Owners:
    """Who is at work, at one moment.

    Attributes:
        holders: partition → who owns it.
        present: run ids that have a writing session, owners or not.
    """

    holders: Mapping[int, Holder]
    present: Collection[str]


@dataclass(frozen=True, slots=True)
class LedgerSnapshot:
    """All that a tick asks of a stream's ledger; `owners` of the partitions that have a position."""

    positions: dict[int, StoredPosition]
    state: StreamState
    losses: list[Loss]
    owners: Owners


class PostgresLedger:
    """One stream's part of the ledger. Implements core.start.Ledger."""

    def __init__(self, database: Database, stream: Stream) -> None:
        self._database, self._stream = database, stream
        self._doing = f"reading the ledger of stream {stream.name}"

    def prepare(self) -> None:
        """Create ledger and table where they are missing. See postgres.schema.prepare."""
        schema.prepare(self._database, self._stream)

    def snapshot(self) -> LedgerSnapshot:
        """In one transaction, which a tick every few seconds of each stream can afford."""
        with self._database.connect(self._doing) as connection:
            if not schema.has_ledger(connection, self._database):
                return LedgerSnapshot({}, StreamState(), [], Owners({}, set()))
            known = self._positions(connection)
            return LedgerSnapshot(
                known, self._state(connection), self._losses(connection), self._owners(connection, known)
            )

    def positions(self) -> dict[int, StoredPosition]:
        """See core.start.Ledger."""
        with self._database.connect(self._doing) as connection:
            return self._positions(connection) if schema.has_ledger(connection, self._database) else {}

    def _positions(self, connection: Connection) -> dict[int, StoredPosition]:
        """Raises LedgerConflict for an offset that is none: an earlier version stored -1001 where a leader was away."""
        rows = connection.execute(self._sql(ledger_sql.POSITIONS), {"stream": self._stream.name}).all()
        for row in rows:
            if row.first_offset < 0:
                raise LedgerConflict(
                    f"stream {self._stream.name}, partition {row.partition}: its position begins at {row.first_offset},"
                    " which is no offset: an earlier version stored it while the partition's leader was away. If the"
                    f" table has no row of the partition, delete this row of {self._database.schemas.ledger}.position:"
                    " the partition begins at its beginning. Else restore the ledger and the table from one backup",
                    stream=self._stream.name,
                    partition=row.partition,
                )
        return {row.partition: StoredPosition(**row._mapping) for row in rows}

    def owners(self, partitions: Collection[int]) -> Owners:
        """Who owns these partitions and which runs have a session."""
        with self._database.connect(self._doing) as connection:
            if not schema.has_ledger(connection, self._database):
                return Owners({}, set())
            return self._owners(connection, partitions)

    def _owners(self, connection: Connection, partitions: Collection[int]) -> Owners:
        keys = locks.lock_keys(connection, self._database.schemas.ledger, self._stream.name)
        looks = self._database.copy_looks
        held = locks.holders(connection, keys, partitions, looks) if partitions else {}
        return Owners(held, locks.present_runs(connection))

    def state(self) -> StreamState:
        """Paused or not."""
        with self._database.connect(self._doing) as connection:
            return self._state(connection) if schema.has_ledger(connection, self._database) else StreamState()

    def _state(self, connection: Connection) -> StreamState:
        row = connection.execute(self._sql(ledger_sql.STATE), {"stream": self._stream.name}).one_or_none()
        return StreamState() if row is None else StreamState(**row._mapping)

    def pause(self, reason: str, by: str) -> None:
        """The stream stops within a batch, wherever it runs, and stays so until `resume`."""
        self._execute(ledger_sql.PAUSE, {"reason": reason, "by": by})

    def resume(self) -> None:
        """Lift the pause; the next tick launches a run."""
        self._execute(ledger_sql.RESUME, {})

    def allow_letters(self, count: int) -> None:
        """Let so many dead letters pass uncounted by the limit, whatever was allowed before; 0 for none any more."""
        self._execute(ledger_sql.ALLOW, {"count": count})

    def note_tick(self) -> None:
        """The stream's sensor has looked just now."""
        self._execute(ledger_sql.TICK, {})

    def note_waiting(self, waiting: Mapping[int, Sequence[float]]) -> None:
        """The sensor sees records wait.

        Args:
            waiting: partition → incarnation, next offset, and since when, in Unix seconds by PostgreSQL's clock.
        """
        self._execute(ledger_sql.WAITING, {"waiting": json.dumps({str(p): list(at) for p, at in waiting.items()})})

    def note_failure(self, why: str, stops: bool) -> None:
        """A run has failed just now.

        Args:
            why: one line, without a record's values.
            stops: trying again cannot help.
        """
        self._execute(ledger_sql.FAILED, {"why": why, "stops": stops})

    def losses(self) -> list[Loss]:
        """What was found missing at the positions as they stand now, and is not accepted yet."""
        with self._database.connect(self._doing) as connection:
            return self._losses(connection) if schema.has_ledger(connection, self._database) else []

    def _losses(self, connection: Connection) -> list[Loss]:
        rows = connection.execute(self._sql(ledger_sql.LOSSES), {"stream": self._stream.name})
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
        self._execute(ledger_sql.NOTE_LOSS, parameters)

    def forget_losses(self, partition: int | None = None) -> None:
        """What was found was a mistake: Kafka holds the next offsets after all, those of one partition or of all.

        The positions forget their leader epochs, too. With them a reader would find a rewritten log once more.
        """
        self._execute(ledger_sql.FORGET_LOSSES, {"partition": partition})

    def begin(self, identity: TopicIdentity, places: Mapping[int, NextOffset], first: bool) -> bool:
        """See core.start.Ledger."""
        with self._database.connect(f"beginning stream {self._stream.name}") as connection:
            lock = {"key": f"ingest begin {self._database.schemas.ledger} {self._stream.name}"}
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), lock)
            known = connection.execute(self._sql(ledger_sql.POSITIONS), {"stream": self._stream.name}).all()
            if first and known:
                return False
            if first:
                renamed.refuse_second_reading(connection, self._database.schemas, self._stream, identity)
            incarnations = self._incarnations(connection, max((row.incarnation for row in known), default=0), places)
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
                        "offset": place.next_offset,
                        "leader_epoch": place.leader_epoch,
                    }
                    for partition, place in places.items()
                ],
            )
            return True

    def _incarnations(self, connection: Connection, current: int, partitions: Collection[int]) -> dict[int, int]:
        """The stream's current one; a new one for partitions that were closed under it, whose offsets come again."""
        rows = connection.execute(self._sql(ledger_sql.PAST_INCARNATIONS), {"stream": self._stream.name})
        past = {row.partition: row.incarnation for row in rows}
        used = [partition for partition in partitions if past.get(partition, 0) >= current]
        if not used:
            return dict.fromkeys(partitions, current)
        new = acceptance.new_incarnation(connection, self._database.schemas, self._stream)
        return dict.fromkeys(partitions, current) | dict.fromkeys(used, new)

    def adopt_identity(self, identity: TopicIdentity) -> None:
        """See core.start.Ledger."""
        if identity.topic_id is not None or identity.cluster_id is not None:
            self._execute(ledger_sql.ADOPT, {"cluster_id": identity.cluster_id, "topic_id": identity.topic_id})

    def ledger_id(self) -> str:
        """See core.start.Ledger."""
        with self._database.connect(self._doing) as connection:
            return str(connection.execute(self._sql("SELECT id FROM {ledger}.ledger")).scalar_one())

    def accounting(self) -> list[Row[Any]]:
        """The stream's rows of the view accounting; empty without a ledger."""
        with self._database.connect(self._doing) as connection:
            if not schema.has_ledger(connection, self._database):
                return []
            return list(connection.execute(self._sql(ledger_sql.ACCOUNTING), {"stream": self._stream.name}).all())

    def open_letters(self) -> list[Row[Any]]:
        """(partition, stage, sqlstate_class, letters) of the dead letters that wait for somebody. The class is the
        SQLSTATE's first two characters, empty where the database had no say."""
        with self._database.connect(self._doing) as connection:
            if not schema.has_ledger(connection, self._database):
                return []
            return list(connection.execute(self._sql(ledger_sql.OPEN_LETTERS), {"stream": self._stream.name}).all())

    def await_topic(self) -> None:
        """Remember that the topic did not exist: when it appears it begins at its beginning."""
        self._execute(ledger_sql.AWAIT, {})

    def was_awaited(self) -> bool:
        """See core.start.Ledger."""
        with self._database.connect(self._doing) as connection:
            found = connection.execute(self._sql(ledger_sql.AWAITED), {"stream": self._stream.name})
            return bool(found.scalar())

    def _execute(self, statement: str, parameters: dict[str, Any]) -> None:
        with self._database.connect(f"changing the ledger of stream {self._stream.name}") as connection:
            connection.execute(self._sql(statement), {"stream": self._stream.name, **parameters})

    def _sql(self, statement: str) -> TextClause:
        return text(statement.replace("{ledger}", in_text(self._database.schemas.ledger)))
