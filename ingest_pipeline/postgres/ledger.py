"""The ledger outside a run: read, begin, pause."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, TextClause, text

from ..core.errors import IngestError
from ..core.ledger import Account, LedgerSnapshot, LetterCount, Owners, StreamState
from ..core.ledger_ports import Ledger
from ..core.loss import Loss
from ..core.record import NextOffset, StoredPosition, TopicIdentity
from ..core.stream import Stream
from . import acceptance, ledger_sql, ledgers, renamed, schema
from .database import Database
from .ledgers import PostgresLedgers


class PostgresLedger(Ledger):
    """The ledger of one stream, on pooled connections."""

    def __init__(self, database: Database, stream: Stream) -> None:
        self._database, self._stream = database, stream
        self._doing = f"reading the ledger of stream {stream.name}"

    def prepare(self) -> None:
        schema.prepare(self._database, self._stream)

    def snapshot(self) -> LedgerSnapshot:
        snapshot = self._ledgers().snapshots()[self._stream.name]
        if isinstance(snapshot, IngestError):
            raise snapshot
        return snapshot

    def positions(self) -> dict[int, StoredPosition]:
        """Raises LedgerConflict: see `read_positions`."""
        name = self._stream.name
        with self._database.connect(self._doing) as connection:
            if not schema.has_ledger(connection, self._database):
                return {}
            positions = ledgers.read_positions(connection, self._database, [name])[name]
        if isinstance(positions, IngestError):
            raise positions
        return positions

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
        self._execute(ledger_sql.PAUSE, {"reason": reason, "by": by})

    def resume(self) -> None:
        self._execute(ledger_sql.RESUME, {})

    def allow_letters(self, count: int) -> None:
        self._execute(ledger_sql.ALLOW, {"count": count})

    def acknowledge_letters(self) -> None:
        self._execute(ledger_sql.ACKNOWLEDGE, {})

    def note_tick(self) -> None:
        self._execute(ledger_sql.TICK, {})

    def note_waiting(self, waiting: Mapping[int, Sequence[float]]) -> None:
        self._execute(
            ledger_sql.WAITING, {"waiting": json.dumps({str(p): list(values) for p, values in waiting.items()})}
        )

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

    def begin(self, identity: TopicIdentity, starts: Mapping[int, NextOffset], first: bool) -> bool:
        with self._database.connect(f"beginning stream {self._stream.name}") as connection:
            lock = {"key": f"ingest begin {self._database.schemas.ledger} {self._stream.name}"}
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), lock)
            existing = connection.execute(self._sql(ledger_sql.POSITIONS), {"streams": [self._stream.name]}).all()
            if first and existing:
                return False
            if first:
                renamed.refuse_second_reading(connection, self._database.schemas, self._stream, identity)
            incarnations = self._incarnations(connection, max((row.incarnation for row in existing), default=0), starts)
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
            return True

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
        self._execute(ledger_sql.AWAIT, {})

    def was_awaited(self) -> bool:
        with self._database.connect(self._doing) as connection:
            awaited = connection.execute(self._sql(ledger_sql.AWAITED), {"stream": self._stream.name})
            return bool(awaited.scalar())

    def _execute(self, statement: str, parameters: dict[str, Any]) -> None:
        with self._database.connect(f"changing the ledger of stream {self._stream.name}") as connection:
            connection.execute(self._sql(statement), {"stream": self._stream.name, **parameters})

    def _ledgers(self) -> PostgresLedgers:
        return PostgresLedgers(self._database, [self._stream])

    def _sql(self, statement: str) -> TextClause:
        return self._database.schemas.sql(statement)
