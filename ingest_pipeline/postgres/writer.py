"""One batch, one transaction."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, text

from ..core.errors import DatabaseUnavailable, RecordRefused, Superseded, UnknownFault
from ..core.letters import dead_letter
from ..core.limit import LetterTally, LetterWindow
from ..core.record import Batch, DeadLetter, Requests, Row, Written
from ..core.stream import Stream
from .copy import OPTION, CopyPlan
from .errors import UNSENDABLE, RowNotSent, mapped_errors
from .isolate import store_isolated
from .statements import Statements, as_parameters, dressed, letter_row
from .tables import LETTER_KEY, primary_key_name

_PARTITION = itemgetter(1)
_QUERY_CANCELED = "57014"
_IMMEDIATE = text("SET CONSTRAINTS ALL IMMEDIATE")


class BatchWriter:
    """Writes batches of one stream on behalf of one run.

    Args:
        write_method: "copy" or "executemany": what carries the rows.
        letter_bytes: bytes of a value that a dead letter keeps.
        batch_size: most rows of one INSERT; a transaction may hold several. COPY takes all of a transaction: each
            costs two round trips, and PostgreSQL 17 and later spend up to 1 ms of CPU on one of 1,000 rows, since the
            resource owner keeps their slots under one hash (0.9 µs a row; 0.1 with 10,000 rows).
        window: which of the last records were refused; moves with each committed batch.
    """

    def __init__(
        self,
        stream: Stream,
        run_id: str,
        statements: Statements,
        write_method: str,
        letter_bytes: int,
        batch_size: int,
        window: LetterWindow,
    ) -> None:
        self._stream, self._run_id, self._sql, self.window = stream, run_id, statements, window
        self._by_copy = write_method == "copy"
        self._letter_bytes, self._batch_size = letter_bytes, batch_size
        self._most = sys.maxsize if self._by_copy else batch_size  # rows of a statement
        self._doing = f"writing stream {stream.name}"
        self._own_key = primary_key_name(stream.table)

    def write(self, connection: Connection, batch: Batch) -> Written:
        """Commit the batch, or nothing of it.

        A batch in which the database refuses a record is begun again, each refused record found and put aside.

        Raises:
            Superseded, EnvironmentFault, StopStream: the transaction was rolled back, or its end is not known. After a
                statement that took longer than its time-out, by a slow trigger, the next try is made of shorter ones.
        """
        try:
            return self._written(connection, batch)
        except DatabaseUnavailable as error:
            if error.sqlstate == _QUERY_CANCELED:
                self._most = max(1, min(self._most, len(batch.rows)) // 100)
            raise

    def _written(self, connection: Connection, batch: Batch) -> Written:
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

    def _transaction(self, connection: Connection, batch: Batch, first: RecordRefused | None = None) -> Written:
        """One transaction, with `first`, the refusal that ended it when tried before, in this order:

        1. deferred constraints become immediate: one that failed at COMMIT could not be isolated;
        2. the positions move, by compare-and-set: a writer that lost ownership ends here;
        3. rows, the refused ones put aside, unless they are too many;
        4. dead letters;
        5. COMMIT.
        """
        rows = Counter(map(_PARTITION, batch.rows))
        letters = Counter(letter.partition for letter in batch.dead_letters)
        with mapped_errors(self._doing, self._own_key), connection.begin():
            connection.execute(_IMMEDIATE)  # 1
            requests, allowed = self._move(connection, batch, rows, letters)  # 2
            if allowed and (batch.dead_letters or first):
                allowed = connection.execute(self._sql.allowance, {"stream": self._stream.name}).scalar_one()
            tally = self.window.tally(batch.dead_letters, batch.rows_before, allowed)
            put_aside = self._store(connection, batch, tally, first)  # 3
            window = tally.after(len(batch.rows))
            self._insert_letters(connection, [*batch.dead_letters, *put_aside], tally.uncounted)  # 4
            if put_aside:
                refused = Counter(letter.partition for letter in put_aside)
                self._recount(connection, refused)
                rows.subtract(refused)
                letters.update(refused)
        self.window = window
        return Written(rows, letters, self._reasons(batch, put_aside), requests)

    def _move(
        self, connection: Connection, batch: Batch, rows: Mapping[int, int], letters: Mapping[int, int]
    ) -> tuple[Requests, int]:
        """What others ask, and how many dead letters the limit need not count."""
        moves = batch.moves
        accounted = {p: rows.get(p, 0) + letters.get(p, 0) + move.skipped for p, move in moves.items()}
        row = connection.execute(
            self._sql.move,
            {
                "stream": self._stream.name,
                "run_id": self._run_id,
                "partitions": list(moves),
                "incarnations": [move.incarnation for move in moves.values()],
                "expected": [move.expected for move in moves.values()],
                "next_offsets": [move.place.next_offset for move in moves.values()],
                "leader_epochs": [move.place.leader_epoch for move in moves.values()],
                "rows": [rows.get(p, 0) for p in moves],
                "dead_letters": [letters.get(p, 0) for p in moves],
                "skipped": [move.skipped for move in moves.values()],
                "absent": [move.place.next_offset - move.expected - accounted[p] for p, move in moves.items()],
            },
        ).one()
        if row.moved != len(moves):
            raise Superseded(
                f"stream {self._stream.name}: {len(moves) - row.moved} of {len(moves)} positions are not as run"
                f" {self._run_id[:8]} left them: another run owns the partitions; nothing of this batch was written",
                stream=self._stream.name,
            )
        return Requests(paused=f"{row.reason} ({row.paused_by})" if row.paused else None), row.letters_allowed

    def _store(
        self, connection: Connection, batch: Batch, tally: LetterTally, first: RecordRefused | None
    ) -> list[DeadLetter]:
        if not batch.rows:
            return []
        if first is None:
            for start in range(0, len(batch.rows), self._most):
                self._insert(connection, batch.rows[start : start + self._most])
            return []

        def refuse(index: int, error: RecordRefused) -> None:
            row = batch.rows[index]
            tally.refuse(index, row[1], row[2], error.message)

        def store(rows: list[Row]) -> None:
            with mapped_errors(self._doing, self._own_key):
                self._insert(connection, rows)

        named = first if len(batch.rows) <= self._most else None  # a line is counted from its statement's first row
        most = min(self._batch_size, self._most)
        refused = store_isolated(connection, batch.rows, store, most, named, refuse)
        return [self._put_aside(batch, i, error) for i, error in refused]

    def _put_aside(self, batch: Batch, i: int, refused: RecordRefused) -> DeadLetter:
        """Made once, however often the batch is tried."""
        if i not in batch.put_aside:
            row, read = batch.rows[i], batch.rows[i][self._stream.parts.headers_at]
            batch.put_aside[i] = dead_letter(batch.messages[i], row[0], refused, self._letter_bytes, read)
        return batch.put_aside[i]

    def _insert(self, connection: Connection, rows: list[Row]) -> None:
        self._carry(connection, self._sql.insert, rows, self._sql.copy, as_parameters)

    def _carry(
        self,
        connection: Connection,
        insert: str,
        rows: list[tuple[Any, ...]],
        copy: CopyPlan,
        dress: Callable[[tuple[Any, ...]], tuple[Any, ...]],
    ) -> None:
        """SQLAlchemy Core's executemany; carried by COPY when that is the method."""
        if self._by_copy:
            connection.exec_driver_sql(insert, rows, {OPTION: copy})
            return
        try:
            connection.exec_driver_sql(insert, list(map(dress, rows)))
        except UNSENDABLE as error:
            raise RowNotSent(None) from error

    def _insert_letters(
        self, connection: Connection, letters: Sequence[DeadLetter], allowed: Collection[tuple[int, int]]
    ) -> None:
        if not letters:
            return
        rows = [
            letter_row(letter, self._stream, self._run_id, (letter.partition, letter.offset) in allowed)
            for letter in letters
        ]
        try:
            with mapped_errors(self._doing, LETTER_KEY):
                self._carry(connection, self._sql.letter, rows, self._sql.letter_copy, dressed)
        except RecordRefused as error:  # the line that it names is none of the batch's rows
            raise RecordRefused(error.message, stage=error.stage, sqlstate=error.sqlstate) from error
        if allowed:
            connection.execute(self._sql.allowed, {"stream": self._stream.name, "used": len(allowed)})

    def _recount(self, connection: Connection, refused: Mapping[int, int]) -> None:
        connection.execute(
            self._sql.recount,
            {"stream": self._stream.name, "partitions": list(refused), "refused": list(refused.values())},
        )

    def _reasons(self, batch: Batch, put_aside: Sequence[DeadLetter]) -> list[str]:
        return [letter.reason for letter in (*batch.dead_letters, *put_aside)]
