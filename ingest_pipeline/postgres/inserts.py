"""The two INSERTs of a batch, for rows and for dead letters, by COPY or by executemany.

Rows for a table that exists have no Kafka coordinates, and each value has its column's type.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from ..core.errors import LedgerConflict, RecordRefused, RefusalStage, SchemaMismatch
from ..core.ledger import RedriveOutcome
from ..core.many import element_at, table_rows
from ..core.record import STAMP, DeadLetter, EventRow
from ..core.route import rows_by_table
from ..core.stream import Stream
from .column_types import column_types
from .conversions import DOES_NOT_FIT
from .copy import OPTION, CopyPlan
from .errors import UNSENDABLE, DoesNotFit, RowNotSent, mapped_errors
from .sql import Schemas
from .statements import Statements, as_parameters, dressed, letter_row


class ExistingRows:
    """Reads the table's column types once. Make it again after the table was altered."""

    def __init__(self, connection: Connection, stream: Stream, schemas: Schemas) -> None:
        sql = Statements(stream, schemas)
        self._insert = sql.insert
        self._types = column_types(connection, stream, schemas.quoted_table(stream))
        self.copy: CopyPlan = replace(sql.copy, oids=tuple(kind.oid for kind in self._types))

    def prepared(self, rows: Sequence[EventRow]) -> list[tuple[Any, ...]]:
        """The rows as the driver takes them. Raises RowNotSent for a value that its column does not hold unchanged."""
        if not rows:
            return []
        columns: list[Sequence[Any]] = []
        columns += list(zip(*rows, strict=True))[STAMP + 1 :]
        for i, kind in enumerate(self._types):
            if kind.convert is not None:
                columns[i] = self._converted(columns[i], i)
        return list(zip(*columns, strict=True))

    def redrive(self, connection: Connection, values: Sequence[Any]) -> RedriveOutcome:
        """Insert the row of an open letter, whose record has no row by the ledger.

        Args:
            values: behind the Kafka timestamp.

        Raises:
            RecordRefused: a trigger drops the row.
        """
        (row,) = self.prepared([(*[None] * (STAMP + 1), *values)])
        if connection.exec_driver_sql(self._insert, row).rowcount != 1:
            raise RecordRefused("a trigger of the table drops the row", stage=RefusalStage.INSERT)
        return RedriveOutcome.STORED

    def _converted(self, values: Sequence[Any], i: int) -> list[Any]:
        kind = self._types[i]
        convert = kind.convert
        assert convert is not None
        converted: list[Any] = []
        try:
            for value in values:
                converted.append(None if value is None else convert(value))
        except DOES_NOT_FIT:
            reason = f"value does not fit column {kind.name} {kind.type}"
            raise RowNotSent(len(converted)) from DoesNotFit(reason)
        return converted


DUPLICATE_KEY = "23505"


class Inserts:
    """Writes the rows and dead letters of one stream inside the caller's transaction."""

    def __init__(self, stream: Stream, run_id: str, sql: Statements, schemas: Schemas, *, by_copy: bool) -> None:
        self._stream, self._run_id, self._sql, self._by_copy = stream, run_id, sql, by_copy
        self._schemas = schemas
        self._of_tables: list[Inserts] = []
        if stream.route is not None:
            self._of_tables = [
                Inserts(table, run_id, Statements(table, schemas), schemas, by_copy=by_copy) for table in stream.tables
            ]
        self._doing = f"writing stream {stream.name}"
        self._existing_rows: ExistingRows | None = None

    def read_types(self, connection: Connection) -> None:
        """Call this before the first row, and after a table was altered."""
        for inserts in self._of_tables:
            inserts.read_types(connection)
        if not (self._stream.coordinates or self._of_tables):
            self._existing_rows = ExistingRows(connection, self._stream, self._schemas)

    def rows(self, connection: Connection, rows: list[EventRow]) -> int:
        """Store the rows and return how many the table took. A trigger may drop rows.

        Raises:
            RecordRefused: a row is refused, so none was stored.
        """
        if self._stream.many:
            return self._elements(connection, rows)
        if self._of_tables:
            return self._routed(connection, rows)
        with mapped_errors(self._doing, of_rows=True):
            if (existing := self._existing_rows) is not None:
                prepared, copy = existing.prepared(rows), existing.copy if self._by_copy else None
                return send(connection, prepared, self._sql.insert, copy, parameters=tuple)
            return send(connection, rows, self._sql.insert, self._sql.copy if self._by_copy else None)

    def _elements(self, connection: Connection, records: list[EventRow]) -> int:
        """The number of records, less the table rows that a trigger dropped. A refusal names the record's index."""
        rows = table_rows(records)
        try:
            with mapped_errors(self._doing, of_rows=True):
                stored = send(connection, rows, self._sql.insert, self._sql.copy if self._by_copy else None)
        except RecordRefused as refused:
            if refused.index is None or not 0 <= refused.index < len(rows):
                raise
            index, ordinal = element_at(records, refused.index)
            raise refused.of_element(index, ordinal) from refused
        return len(records) - (len(rows) - stored)

    def _routed(self, connection: Connection, rows: list[EventRow]) -> int:
        """Each row to the table whose number it ends with."""
        stored = 0
        for number, indices in rows_by_table(rows).items():
            try:
                stored += self._of_tables[number].rows(connection, [rows[i][:-1] for i in indices])
            except RecordRefused as refused:
                raise refused.in_rows(indices) from refused
        return stored

    def letters(
        self, connection: Connection, letters: Sequence[DeadLetter], allowed: Collection[tuple[int, int]]
    ) -> None:
        """Store the dead letters.

        Args:
            allowed: (partition, offset) of letters that an operator exempted from the limit.

        Raises:
            LedgerConflict: the ledger already holds one of the letters.
            SchemaMismatch: the ledger's table did not store all letters.
        """
        if not letters:
            return
        rows = [
            letter_row(letter, self._stream, self._run_id, (letter.partition, letter.offset) in allowed)
            for letter in letters
        ]
        try:
            with mapped_errors(self._doing):
                copy = self._sql.letter_copy if self._by_copy else None
                stored = send(connection, rows, self._sql.letter, copy, parameters=dressed)
        except RecordRefused as error:
            if error.sqlstate == DUPLICATE_KEY:
                raise LedgerConflict(
                    f"{self._doing}: a dead letter with these Kafka coordinates is in the ledger already, though its"
                    " position says that the record was not read. Was only a part of the ledger restored?",
                    stream=self._stream.name,
                    sqlstate=error.sqlstate,
                ) from error
            # The line that the error names is none of the batch's rows.
            raise RecordRefused(error.message, stage=error.stage, sqlstate=error.sqlstate) from error
        if stored != len(rows):
            raise SchemaMismatch(
                f"{self._doing}: a trigger or rule on the ledger's table dead_letter drops {len(rows) - stored} of"
                f" {len(rows)} dead letters: drop it. Nothing of this batch was written",
                stream=self._stream.name,
            )
        if allowed:
            connection.execute(self._sql.allowed, {"stream": self._stream.name, "used": len(allowed)})


def send(
    connection: Connection,
    rows: list[tuple[Any, ...]],
    insert: str,
    copy: CopyPlan | None,
    parameters: Callable[[tuple[Any, ...]], tuple[Any, ...]] = as_parameters,
) -> int:
    """Execute SQLAlchemy Core's executemany, carried by COPY if there is a plan. Returns how many rows the table took.
    `parameters` makes a row for executemany."""
    if copy is not None:
        return connection.exec_driver_sql(insert, rows, {OPTION: copy}).rowcount
    try:
        return connection.exec_driver_sql(insert, list(map(parameters, rows))).rowcount
    except UNSENDABLE as error:
        raise RowNotSent(None) from error
