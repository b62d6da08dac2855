"""One batch, one transaction."""

import sys
from collections import Counter
from collections.abc import Mapping
from operator import itemgetter

from sqlalchemy import Connection, text

from ..core.choices import WriteMethod
from ..core.dead_letter_limit import LetterTally, LetterWindow
from ..core.dead_letters import dead_letter
from ..core.errors import DatabaseUnavailable, RecordRefused, SchemaMismatch, Superseded, UnknownFault
from ..core.record import (
    INCARNATION,
    OFFSET,
    PARTITION,
    Batch,
    CommitResult,
    DeadLetter,
    EventRow,
    OwnerRequests,
    coordinates_of,
)
from ..core.stream import Stream
from . import schema
from .database import Database
from .errors import mapped_errors
from .inserts import DUPLICATE_KEY, Inserts
from .presence import refuse_conflict, row_counts
from .queries import quoted
from .refused_rows import store_isolated
from .statements import Statements
from .upserts import Upserts

_QUERY_CANCELED = "57014"
_NULL_IN_COLUMN = "23502"
_IMMEDIATE = text("SET CONSTRAINTS ALL IMMEDIATE")


class BatchWriter:
    """Writes batches of a stream for a run.

    Args:
        rows_per_insert: maximum. A transaction may have several INSERTs. COPY takes all rows of a transaction at once:
            every COPY costs two round trips, and up to 1 ms of the CPU of PostgreSQL 17 and later. A row then costs
            0.9 µs in a COPY of 1,000 rows, 0.1 µs in one of 10,000.
        window: the refusals among the last records. Every committed batch moves the window.
        database: gives table names for messages, and a second connection to inspect an altered table.
    """

    def __init__(
        self,
        stream: Stream,
        run_id: str,
        *,
        statements: Statements,
        write_method: WriteMethod,
        dead_letter_max_bytes: int,
        rows_per_insert: int,
        window: LetterWindow,
        database: Database,
    ) -> None:
        self._database = database
        tables = [database.schemas.quoted_table(table) for table in stream.tables]
        self._event_tables = {f"event_table_{i}": table for i, table in enumerate(tables)}
        self._letter_table = f"{quoted(database.schemas.ledger)}.dead_letter"
        self._signature: int | None = None
        self._stream, self._run_id, self._sql, self.window = stream, run_id, statements, window
        by_copy = write_method == WriteMethod.COPY
        self._inserts = Inserts(stream, run_id, statements, database.schemas, by_copy=by_copy)
        self._upserts = Upserts(stream, database.schemas, by_copy) if stream.key else None
        self._dead_letter_max_bytes, self._rows_per_insert = dead_letter_max_bytes, rows_per_insert
        self._rows_per_statement = sys.maxsize if by_copy else rows_per_insert
        self._doing = f"writing stream {stream.name}"

    def write(self, connection: Connection, batch: Batch) -> CommitResult:
        """Commit the whole batch or nothing.

        If the database refuses a record, the transaction starts again and isolates every refused record.

        Raises:
            Superseded, EnvironmentFault, StopStream: the transaction was rolled back, or its outcome is unknown. After
                a statement time-out, as with a slow trigger, the next attempt uses shorter statements.
        """
        if self._upserts is not None:
            self._upserts.prepare(connection)
        try:
            return self._written(connection, batch)
        except DatabaseUnavailable as error:
            if error.sqlstate == _QUERY_CANCELED:
                self._rows_per_statement = max(1, min(self._rows_per_statement, len(batch.rows)) // 100)
            raise

    def _written(self, connection: Connection, batch: Batch) -> CommitResult:
        try:
            return self._transaction(connection, batch)
        except RecordRefused as refused:
            first = refused
        try:
            return self._transaction(connection, batch, first)
        except RecordRefused as error:
            raise UnknownFault(
                f"{self._doing}: PostgreSQL refuses the ledger's own part of a batch: {error.message}",
                stream=self._stream.name,
                sqlstate=error.sqlstate,
            ) from error

    def _transaction(self, connection: Connection, batch: Batch, first: RecordRefused | None = None) -> CommitResult:
        """One transaction. `first` is the refusal at the end of the previous attempt, if any. The steps:

        1. Make deferred constraints immediate, because a failure at COMMIT could not be isolated.
        2. Advance the positions by compare-and-set. A writer ends here without ownership, or after its table was
           altered against its declaration. The table cannot be altered from here to COMMIT.
        3. Store the rows, and put refused rows aside, up to the dead-letter limit. Count rows dropped by a trigger, and
           rows of a keyed stream older than the table's. A deletion first discards the dead letters of its key. The
           lock on the letters makes the deletion wait for their redrive.
        4. Store the dead letters.
        5. COMMIT.
        """
        rows = Counter(map(itemgetter(PARTITION), batch.rows))
        letters = Counter(letter.partition for letter in batch.dead_letters)
        with mapped_errors(self._doing), connection.begin():
            connection.execute(_IMMEDIATE)  # 1
            requests, allowed = self._advance(connection, batch, rows, letters)  # 2
            if allowed and (batch.dead_letters or first):
                allowed = connection.execute(self._sql.allowance, {"stream": self._stream.name}).scalar_one()
            tally = LetterTally(self.window, batch.dead_letters, batch.rows_before, allowed)
            obsolete = self._upserts and self._upserts.letters
            if obsolete:
                obsolete.discard_of(connection, batch)
            stored, unwritten, put_aside = self._store(connection, batch, tally, first)  # 3
            window = tally.after(len(batch.rows))
            refused = Counter(letter.partition for letter in put_aside)
            rows.subtract(refused)
            letters.update(refused)
            dropped = unwritten
            if self._stream.finds_by_coordinates and stored < rows.total():
                dropped = self._dropped(connection, batch, rows)
            rows.subtract(dropped)
            self._inserts.letters(connection, [*batch.dead_letters, *put_aside], tally.uncounted)  # 4
            if obsolete and letters:
                obsolete.discard_of(connection, batch)
            if refused or dropped:
                self._recount(connection, refused, dropped)
        self.window = window
        reasons = [letter.reason for letter in (*batch.dead_letters, *put_aside)]
        return CommitResult(rows, letters, reasons=reasons, requests=requests, dropped=dropped)

    def _advance(
        self, connection: Connection, batch: Batch, rows: Mapping[int, int], letters: Mapping[int, int]
    ) -> tuple[OwnerRequests, int]:
        """Requests of others, and the number of dead letters exempt from the limit."""
        advances = batch.advances
        accounted = {p: rows.get(p, 0) + letters.get(p, 0) + advance.skipped for p, advance in advances.items()}
        row = connection.execute(
            self._sql.advance,
            {
                "stream": self._stream.name,
                "run_id": self._run_id,
                "partitions": list(advances),
                "incarnations": [advance.incarnation for advance in advances.values()],
                "expected": [advance.expected for advance in advances.values()],
                "next_offsets": [advance.resume_at.next_offset for advance in advances.values()],
                "leader_epochs": [advance.resume_at.leader_epoch for advance in advances.values()],
                "rows": [rows.get(p, 0) for p in advances],
                "dead_letters": [letters.get(p, 0) for p in advances],
                "skipped": [advance.skipped for advance in advances.values()],
                "absent": [
                    advance.resume_at.next_offset - advance.expected - accounted[p] for p, advance in advances.items()
                ],
                "letter_table": self._letter_table,
                **self._event_tables,
            },
        ).one()
        if row.advanced != len(advances):
            raise Superseded(
                f"stream {self._stream.name}: {len(advances) - row.advanced} of {len(advances)} positions are not as"
                f" run {self._run_id[:8]} left them: another run owns the partitions. Nothing of this batch was"
                " written",
                stream=self._stream.name,
            )
        if row.signature != self._signature:
            schema.verify_table(connection, self._stream, self._database)
            self._inserts.read_types(connection)
            self._signature = row.signature
        return OwnerRequests(paused=f"{row.reason} ({row.paused_by})" if row.paused else None), row.letters_allowed

    def _store(
        self, connection: Connection, batch: Batch, tally: LetterTally, first: RecordRefused | None
    ) -> tuple[int, Counter[int], list[DeadLetter]]:
        """The number of rows stored, partition → rows of a keyed stream that changed nothing, and the dead letters of
        the refused rows."""
        stored, unwritten = 0, Counter[int]()

        def store(rows: list[EventRow]) -> None:
            nonlocal stored
            if self._upserts is not None:
                unwritten.update(self._upserts.rows(connection, rows))
            else:
                stored += self._inserts.rows(connection, rows)

        def refuse(index: int, error: RecordRefused) -> None:
            row = batch.rows[index]
            if error.sqlstate == DUPLICATE_KEY and self._upserts is None:
                refuse_conflict(connection, self._sql, [coordinates_of(row)], self._doing)
            if error.sqlstate == _NULL_IN_COLUMN:
                self._refuse_unfilled(connection, error, row[-1] if self._stream.route else 0)
            tally.refuse(index, row[PARTITION], row[OFFSET], error.message)

        if first is None:
            for start in range(0, len(batch.rows), self._rows_per_statement):
                store(batch.rows[start : start + self._rows_per_statement])
            return stored, unwritten, []
        by_one_statement = len(batch.rows) <= self._rows_per_statement
        refused = store_isolated(
            connection,
            batch.rows,
            store,
            rows_per_statement=min(self._rows_per_insert, self._rows_per_statement),
            first=first if by_one_statement else None,  # a line is counted from its statement's first row
            observe=refuse,
        )
        if refused and self._upserts is None:
            refuse_conflict(connection, self._sql, [coordinates_of(batch.rows[i]) for i, _ in refused], self._doing)
        return stored, unwritten, [self._put_aside(batch, i, error) for i, error in refused]

    def _refuse_unfilled(self, connection: Connection, error: RecordRefused, table: int) -> None:
        """A NOT NULL column without a field, default or trigger is null in every row. No single record is at fault."""
        column = error.where.get("column")
        if column in self._stream.tables[table].columns:
            return
        parameters = {"event_table": self._event_tables[f"event_table_{table}"], "column": column}
        if connection.execute(self._sql.unfilled, parameters).scalar():
            raise SchemaMismatch(
                f"{self._doing}: column {column} is NOT NULL, and neither a field nor its default fills it: give it a"
                " default, or drop NOT NULL",
                stream=self._stream.name,
                sqlstate=error.sqlstate,
            )

    def _dropped(self, connection: Connection, batch: Batch, rows: Mapping[int, int]) -> Counter[int]:
        """Partition → rows missing from the table although no statement failed. A trigger returned NULL for them."""
        present = row_counts(connection, self._sql, batch.advances)
        return Counter({p: count - present[p] for p, count in rows.items() if count > present[p]})

    def _put_aside(self, batch: Batch, i: int, refused: RecordRefused) -> DeadLetter:
        """The dead letter is made once, even if the batch is tried several times."""
        if i not in batch.put_aside:
            batch.put_aside[i] = dead_letter(
                batch.messages[i],
                batch.rows[i][INCARNATION],
                refused,
                value_limit=self._dead_letter_max_bytes,
                headers_read=batch.headers[i : i + 1],
            )
        return batch.put_aside[i]

    def _recount(self, connection: Connection, refused: Mapping[int, int], dropped: Mapping[int, int]) -> None:
        partitions = sorted(refused.keys() | dropped.keys())
        connection.execute(
            self._sql.recount,
            {
                "stream": self._stream.name,
                "partitions": partitions,
                "refused": [refused.get(partition, 0) for partition in partitions],
                "dropped": [dropped.get(partition, 0) for partition in partitions],
            },
        )
