"""Rows of a keyed stream: sent to a temporary table, then merged into the event table by a single statement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RootTransaction, TextClause, text

from ..core.choices import OnConflict
from ..core.columns import INGESTED_AT
from ..core.errors import RecordRefused
from ..core.keyed_rows import KeyedRows
from ..core.record import Batch, Deletion, Row
from ..core.stream import Stream
from .copy import CopyPlan
from .errors import mapped_errors
from .inserts import send
from .queries import quoted
from .sql import Schemas, in_text
from .statements import carried, row_oids

SUPERSEDED = " (superseded: a newer record wrote or deleted the row of its key)"
"""The end of the reason of a dead letter discarded by a redrive, a replay or a deletion."""


@dataclass(frozen=True)
class UpsertStatements:
    """`create`, `insert`, `copy` and `clear` are about the temporary table."""

    create: TextClause
    insert: str
    copy: CopyPlan
    clear: TextClause
    merge: TextClause
    delete: TextClause


def upsert_statements(stream: Stream, schemas: Schemas) -> UpsertStatements:
    name = f"ingest_{stream.name}"
    table, staging = schemas.table(stream), f"pg_temp.{in_text(name)}"
    columns = {column.name: column.pg_type for column in stream.row_columns}
    insert, copy = carried(f"pg_temp.{quoted(name)}", row_oids(stream))
    names = ", ".join(map(in_text, columns))
    key = ", ".join(map(in_text, stream.key))
    arrays = ", ".join(f"CAST(:key_{i} AS {columns[column]}[])" for i, column in enumerate(stream.key))
    same_key = " AND ".join(f"t.{in_text(column)} = d.{in_text(column)}" for column in stream.key)
    return UpsertStatements(
        create=text(
            f"CREATE TEMPORARY TABLE {staging} ({', '.join(f'{in_text(n)} {kind}' for n, kind in columns.items())})"
            " ON COMMIT DELETE ROWS"
        ),
        insert=insert,
        copy=copy,
        clear=text(f"TRUNCATE {staging}"),
        merge=text(
            f"WITH written AS (INSERT INTO {table} AS t ({names}) SELECT {names} FROM {staging}"  # noqa: S608
            f" {on_conflict(stream, newer(stream))} RETURNING kafka_partition)"
            " SELECT kafka_partition, count(*) AS written FROM written GROUP BY 1"
        ),
        delete=text(f"DELETE FROM {table} t USING unnest({arrays}) AS d({key}) WHERE {same_key}"),  # noqa: S608
    )


def on_conflict(stream: Stream, condition: str) -> str:
    """The ON CONFLICT clause of an INSERT INTO the event table AS t. `condition`: when to update. Empty: always."""
    target = f"ON CONFLICT ({', '.join(map(in_text, stream.key))})"
    if stream.on_conflict == OnConflict.IGNORE:
        return f"{target} DO NOTHING"
    names = [name for name in (*stream.columns, INGESTED_AT.name) if name not in stream.key]
    changes = ", ".join(f"{in_text(name)} = excluded.{in_text(name)}" for name in names)
    return f"{target} DO UPDATE SET {changes}" + (f" WHERE {condition}" if condition else "")


def newer(stream: Stream) -> str:
    """When a run's row may replace the table's row t."""
    if not stream.only_newer:
        return ""
    version = in_text(stream.only_newer)
    return f"t.{version} <= excluded.{version}"


def older(stream: Stream, table: str) -> str:
    """When a redriven or replayed row may replace the table's row: the row is newer beyond doubt.

    Offsets of two partitions have no order.

    Args:
        table: name or alias of the event table in the INSERT.
    """
    row = in_text(table)
    before = (
        f"{row}.kafka_incarnation < excluded.kafka_incarnation OR ({row}.kafka_incarnation = excluded.kafka_incarnation"
        f" AND {row}.kafka_partition = excluded.kafka_partition AND {row}.kafka_offset < excluded.kafka_offset)"
    )
    if not stream.only_newer:
        return before
    version = in_text(stream.only_newer)
    return f"{row}.{version} < excluded.{version} OR ({row}.{version} = excluded.{version} AND ({before}))"


class Upserts:
    """Writes the rows of a keyed stream inside the caller's transaction.

    Args:
        by_copy: True for COPY into the temporary table, False for executemany.
    """

    def __init__(self, stream: Stream, schemas: Schemas, by_copy: bool) -> None:
        self._stream, self._schemas, self._by_copy = stream, schemas, by_copy
        self._sql, self._keyed = upsert_statements(stream, schemas), KeyedRows(stream)
        self._doing = f"writing stream {stream.name}"
        self._session: Connection | None = None
        self._used_in: RootTransaction | None = None

    def prepare(self, connection: Connection) -> None:
        """Create the temporary table, once for a connection and in a transaction of its own."""
        if self._session is not connection:
            with mapped_errors(self._doing), connection.begin():
                connection.execute(self._sql.create)
            self._session = connection

    def rows(self, connection: Connection, rows: list[Row]) -> Counter[int]:
        """Store the rows as if one by one. Returns partition → rows without effect.

        Such rows have an older version than the table's row, or are ignored, or are dropped by a trigger.

        Raises:
            RecordRefused: a row is refused, and no row was stored.
        """
        latest = self._keyed.latest(rows)
        if latest.deletions:
            self._delete(connection, [self._keyed.key_of(rows[i]) for i in latest.deletions])
        unwritten = Counter(rows[i][1] for i in latest.superseded)
        if latest.latest:
            try:
                written = self._merge(connection, [rows[i] for i in latest.latest])
            except RecordRefused as error:
                if error.index is None:
                    raise
                raise error.of_row(latest.latest[error.index]) from error
            unwritten.update(rows[i][1] for i in latest.latest)
            unwritten.subtract(written)
        return +unwritten

    def _merge(self, connection: Connection, rows: list[Row]) -> Mapping[int, int]:
        transaction = connection.get_transaction()
        with mapped_errors(self._doing, of_rows=True):
            if self._used_in is transaction:
                connection.execute(self._sql.clear)
            self._used_in = transaction
            send(connection, rows, self._sql.insert, self._sql.copy if self._by_copy else None)
            return {row.kafka_partition: row.written for row in connection.execute(self._sql.merge)}

    def _delete(self, connection: Connection, keys: Sequence[Any]) -> None:
        columns = [list(keys)] if len(self._stream.key) == 1 else [list(column) for column in zip(*keys, strict=True)]
        with mapped_errors(self._doing, of_rows=True):
            connection.execute(self._sql.delete, {f"key_{i}": column for i, column in enumerate(columns)})

    def discard_letters(self, connection: Connection, batch: Batch) -> None:
        """Discard open dead letters with the key of a Deletion, so that no redrive brings the deleted row back."""
        deletions = [
            (*row[:3], message.key())
            for row, message in zip(batch.rows, batch.messages, strict=True)
            if type(row) is Deletion
        ]
        discard_letters(connection, self._schemas, self._stream, deletions)


def discard_letters(
    connection: Connection, schemas: Schemas, stream: Stream, deletions: Sequence[tuple[Any, ...]]
) -> None:
    """Discard the open dead letters that deletions make obsolete.

    Args:
        deletions: (incarnation, partition, offset, record's key) of each.
    """
    if not deletions:
        return
    incarnations, partitions, offsets, keys = map(list, zip(*deletions, strict=True))
    parameters = {"incarnations": incarnations, "partitions": partitions, "offsets": offsets, "keys": keys}
    with mapped_errors(f"dead letters of stream {stream.name}"):
        connection.execute(schemas.sql(_DISCARD), {"stream": stream.name, "superseded": SUPERSEDED, **parameters})


_DISCARD = """
    UPDATE {ledger}.dead_letter d
    SET status = 'discarded', resolved_at = now(), reason = d.reason || :superseded
    FROM unnest(CAST(:incarnations AS smallint[]), CAST(:partitions AS int[]), CAST(:offsets AS bigint[]),
                CAST(:keys AS bytea[])) AS n(kafka_incarnation, kafka_partition, kafka_offset, key)
    WHERE d.stream = :stream AND d.status = 'open' AND d.key = n.key
      AND NOT (d.kafka_incarnation = n.kafka_incarnation AND d.kafka_partition = n.kafka_partition
               AND d.kafka_offset >= n.kafka_offset)"""
