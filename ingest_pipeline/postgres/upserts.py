"""Rows of a keyed stream: sent to a temporary table, then merged into the event table by a single statement."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RootTransaction, text

from ..core.choices import OnConflict
from ..core.columns import INGESTED_AT
from ..core.errors import RecordRefused
from ..core.keyed_rows import KeyedRows
from ..core.record import PARTITION, EventRow
from ..core.stream import COORDINATES, Stream
from .errors import mapped_errors
from .inserts import send
from .obsolete_letters import ObsoleteLetters
from .queries import quoted
from .sql import Schemas, in_text
from .statements import carried, row_oids


class UpsertStatements:
    """`create`, `insert`, `copy` and `clear` are about the temporary table.

    Attributes:
        unwritten: counts the rows by partition that the merge of the same transaction left out.
    """

    def __init__(self, stream: Stream, schemas: Schemas) -> None:
        name = f"ingest_{stream.name}"
        table, staging = schemas.table(stream), f"pg_temp.{in_text(name)}"
        columns = {column.name: column.pg_type for column in stream.row_columns}
        names = ", ".join(map(in_text, columns))
        key = ", ".join(map(in_text, stream.key))
        arrays = ", ".join(f"CAST(:key_{i} AS {columns[column]}[])" for i, column in enumerate(stream.key))
        same_key = " AND ".join(f"t.{in_text(column)} = d.{in_text(column)}" for column in stream.key)
        same_record = " AND ".join(f"t.{column} = d.{column}" for column in COORDINATES)
        typed = ", ".join(f"{in_text(column)} {kind}" for column, kind in columns.items())
        self.create = text(f"CREATE TEMPORARY TABLE {staging} ({typed}) ON COMMIT DELETE ROWS")
        self.insert, self.copy = carried(f"pg_temp.{quoted(name)}", row_oids(stream))
        self.clear = text(f"TRUNCATE {staging}")
        # An UPDATE … FROM or a MERGE takes an eighth less CPU and fires no BEFORE INSERT trigger for a row that exists.
        self.merge = text(
            f"INSERT INTO {table} AS t ({names}) SELECT {names} FROM {staging} {on_conflict(stream, newer(stream))}"  # noqa: S608
        )
        self.unwritten = text(
            f"SELECT d.kafka_partition, count(*) AS unwritten FROM {staging} d LEFT JOIN LATERAL"  # noqa: S608
            f" (SELECT 1 AS present FROM {table} t WHERE {same_key} AND {same_record} LIMIT 1) AS written ON true"
            " WHERE present IS NULL GROUP BY 1"
        )
        self.delete = text(f"DELETE FROM {table} t USING unnest({arrays}) AS d({key}) WHERE {same_key}")  # noqa: S608


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

    Offsets of two partitions have no order. `table`: the name or alias in the INSERT.
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

    Attributes:
        letters: None without `deletes`.
    """

    def __init__(self, stream: Stream, schemas: Schemas, by_copy: bool) -> None:
        self._stream, self._by_copy = stream, by_copy
        self.letters = ObsoleteLetters(stream, schemas) if stream.deletes else None
        self._sql, self._keyed = UpsertStatements(stream, schemas), KeyedRows(stream)
        self._doing = f"writing stream {stream.name}"
        self._session: Connection | None = None
        self._used_in: RootTransaction | None = None

    def prepare(self, connection: Connection) -> None:
        """Create the temporary table, once for a connection and in a transaction of its own."""
        if self._session is not connection:
            with mapped_errors(self._doing), connection.begin():
                connection.execute(self._sql.create)
            self._session = connection

    def rows(self, connection: Connection, rows: list[EventRow]) -> Counter[int]:
        """Store the rows as if one by one. Returns partition → rows without effect.

        Such rows have an older version than the table's row, or are ignored, or are dropped by a trigger.

        Raises:
            RecordRefused: a row is refused, and no row was stored.
        """
        latest = self._keyed.latest(rows)
        if latest.deletions:
            self._delete(connection, [self._keyed.key_of(rows[i]) for i in latest.deletions])
        unwritten = Counter(rows[i][PARTITION] for i in latest.superseded)
        if latest.latest:
            try:
                unwritten.update(self._merge(connection, [rows[i] for i in latest.latest]))
            except RecordRefused as error:
                raise error.in_rows(latest.latest) from error
        return unwritten

    def _merge(self, connection: Connection, rows: list[EventRow]) -> Mapping[int, int]:
        transaction = connection.get_transaction()
        with mapped_errors(self._doing, of_rows=True):
            if self._used_in is transaction:
                connection.execute(self._sql.clear)
            self._used_in = transaction
            send(connection, rows, self._sql.insert, self._sql.copy if self._by_copy else None)
            if connection.execute(self._sql.merge).rowcount == len(rows):
                return {}
            return {row.kafka_partition: row.unwritten for row in connection.execute(self._sql.unwritten)}

    def _delete(self, connection: Connection, keys: Sequence[Any]) -> None:
        columns = [list(keys)] if len(self._stream.key) == 1 else [list(column) for column in zip(*keys, strict=True)]
        with mapped_errors(self._doing, of_rows=True):
            connection.execute(self._sql.delete, {f"key_{i}": column for i, column in enumerate(columns)})
