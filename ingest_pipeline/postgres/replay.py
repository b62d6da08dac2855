"""Stores the missing rows of a replayed range."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, text

from ..core.keyed_rows import KeyedRows
from ..core.ledger import Replayed
from ..core.ledger_ports import ReplayStore
from ..core.many import table_rows
from ..core.record import OFFSET, Batch, EventRow
from ..core.route import rows_by_table
from ..core.stream import COORDINATES, Stream
from . import schema
from .copy import OPTION, CopyPlan
from .database import Database
from .errors import mapped_errors
from .obsolete_letters import SUPERSEDED
from .queries import quoted
from .refused_rows import store_isolated
from .session_settings import LONG_STATEMENT_SECONDS
from .sql import Schemas, in_text
from .statements import Statements
from .tables import column_oids, primary_key_name
from .upserts import older, on_conflict


class MissingRows(ReplayStore):
    """Stores missing rows on pooled connections.

    Raises:
        SchemaMismatch: the table is not as declared.
    """

    def __init__(self, database: Database, stream: Stream) -> None:
        self._database, self._stream = database, stream
        self._doing = f"replaying stream {stream.name}"
        self._keyed = KeyedRows(stream) if stream.key else None
        rows = database.schemas.rows(stream)
        self._tables = [_Table(table, database.schemas, rows, number) for number, table in enumerate(stream.tables)]
        self._offsets = text(f"SELECT kafka_offset FROM {rows} AS t WHERE {_RANGE}")  # noqa: S608
        with database.connect(self._doing) as connection:
            schema.verify_table(connection, stream, database)

    def store(self, batch: Batch) -> Replayed:
        """In one transaction:

        1. Leave out records with a dead letter, unless the letter's value is truncated.
        2. COPY the other records into a temporary table, and insert the missing ones into the event table.
        3. Mark truncated letters with a row as redriven. Rows that a trigger drops count as skipped.

        A keyed stream's row replaces only an older row of its key. A row with a newer one counts as present, and its
        truncated letter is discarded.
        """
        with self._database.connect(self._doing, LONG_STATEMENT_SECONDS) as connection:
            schema.hold_table(connection, self._stream, self._database)
            letters = self._letters(connection, batch)  # 1
            rows = [row for row in batch.rows if letters.get(row[OFFSET], True)]
            dead = len(batch.rows) - len(rows)
            for table in self._tables:
                connection.execute(table.create)
            stored = 0

            def store(part: list[EventRow]) -> None:
                nonlocal stored
                if self._keyed is not None:
                    part = [part[i] for i in self._keyed.latest(part).latest]
                rows = table_rows(part) if self._stream.many else part
                if self._stream.route is None:
                    stored += self._inserted(connection, self._tables[0], rows)
                    return
                groups = rows_by_table(rows).items()
                stored += sum(
                    self._inserted(connection, self._tables[number], [rows[i][:-1] for i in indices])
                    for number, indices in groups
                )

            refused = {rows[i][OFFSET] for i, _ in store_isolated(connection, rows, store)}  # 2
            kept = [row[OFFSET] for row in rows if row[OFFSET] not in refused]
            present = set(kept)
            if letters or (stored < len(kept) and self._keyed is None):
                present = set(connection.execute(self._offsets, self._coordinates(batch)).scalars())
            self._settle(connection, batch, _REDRIVEN, letters.keys() & present & set(kept))  # 3
            if self._keyed is not None:
                self._settle(connection, batch, _SUPERSEDED, letters.keys() & set(kept) - present)
                present = set(kept)
        undecoded = {letter.offset for letter in batch.dead_letters}
        known_letters = sum(offset in letters for offset in refused | undecoded)
        dropped = sum(offset not in present for offset in kept)
        return Replayed(
            stored=stored,
            present=len(kept) - dropped - stored,
            dead=dead + known_letters,
            refused=len(refused) + len(undecoded) - known_letters,
            skipped=dropped,
        )

    def _inserted(self, connection: Connection, table: _Table, rows: list[EventRow]) -> int:
        """The number of records with a new row."""
        with mapped_errors(self._doing, of_rows=True):
            connection.exec_driver_sql(table.insert, rows, {OPTION: table.copy})
            inserted = connection.execute(table.insert_missing).scalar_one()
            connection.execute(table.clear)
        return int(inserted)

    def _letters(self, connection: Connection, batch: Batch) -> dict[int, bool]:
        """Offset → True for an open letter with a truncated value. Redriven letters are left out."""
        letters = connection.execute(self._database.schemas.sql(_LETTERS), self._coordinates(batch))
        return {row.kafka_offset: row.cut for row in letters}

    def _settle(self, connection: Connection, batch: Batch, statement: str, offsets: Collection[int]) -> None:
        if offsets:
            parameters = {**self._coordinates(batch), "offsets": list(offsets)}
            connection.execute(self._database.schemas.sql(statement), parameters)

    def _coordinates(self, batch: Batch) -> dict[str, Any]:
        ((partition, advance),) = batch.advances.items()
        return {
            "stream": self._stream.name,
            "incarnation": advance.incarnation,
            "partition": partition,
            "start": advance.expected,
            "stop": advance.resume_at.next_offset,
        }


class _Table:
    """The statements of one table, which go through a temporary table of the same columns.

    Args:
        rows: the stream's rows in all of its tables.
    """

    def __init__(self, stream: Stream, schemas: Schemas, rows: str, number: int) -> None:
        temporary = f"ingest_replay_{number}"
        columns = ", ".join(in_text(name) for name in column_oids(stream))
        table = schemas.table(stream)
        conflict = f"ON CONFLICT ON CONSTRAINT {in_text(primary_key_name(stream))} DO NOTHING"
        if stream.partition_by or rows != table:  # a row of the record may have another event_time, or another table
            same = " AND ".join(f"t.{name} = n.{name}" for name in COORDINATES)
            conflict = f"AS n WHERE NOT EXISTS (SELECT FROM {rows} AS t WHERE {same}) {conflict}"
        if stream.key:
            conflict = on_conflict(stream, older(stream, "t"))
        self.create = text(
            f"CREATE TEMPORARY TABLE {temporary} ON COMMIT DROP AS SELECT {columns} FROM {table} WITH NO DATA"  # noqa: S608
        )
        self.insert_missing = text(
            f"WITH inserted AS (INSERT INTO {table} AS t ({columns}) SELECT {columns} FROM {temporary}"  # noqa: S608
            f" {conflict} RETURNING kafka_offset) SELECT count(DISTINCT kafka_offset) FROM inserted"
        )
        self.clear = text(f"TRUNCATE {temporary}")
        plain = ", ".join(quoted(name) for name in column_oids(stream))
        carried = Statements(stream, schemas)
        self.insert = carried.insert
        self.copy = CopyPlan(f"COPY {temporary} ({plain}) FROM STDIN (FORMAT BINARY)", carried.copy.oids)


_RANGE = """
    kafka_incarnation = :incarnation AND kafka_partition = :partition
      AND kafka_offset >= :start AND kafka_offset < :stop"""
_OF_BATCH = f"stream = :stream AND {_RANGE}"
_LETTERS = f"""
    SELECT kafka_offset, truncated AND status = 'open' AS cut FROM {{ledger}}.dead_letter
    WHERE {_OF_BATCH} AND status <> 'redriven'"""  # noqa: S608
_REDRIVEN = f"""
    UPDATE {{ledger}}.dead_letter SET status = 'redriven', resolved_at = now(), attempts = attempts + 1
    WHERE {_OF_BATCH} AND kafka_offset = ANY(CAST(:offsets AS bigint[]))"""  # noqa: S608
_SUPERSEDED = f"""
    UPDATE {{ledger}}.dead_letter
    SET status = 'discarded', resolved_at = now(), attempts = attempts + 1, reason = reason || '{SUPERSEDED}'
    WHERE {_OF_BATCH} AND kafka_offset = ANY(CAST(:offsets AS bigint[]))"""  # noqa: S608
