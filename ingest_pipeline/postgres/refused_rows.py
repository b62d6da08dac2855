"""Finds the records refused only by the database, at little more than the cost of storing the others.

A failed COPY names a line. The rows before the line are stored, the named row is tried alone, and the rest follows in
chunks, because a COPY wastes all rows after its first failure. The line is only a hint: a row becomes a dead letter
after failing alone, or for violating a rule about the row alone. Without a line the list is halved.
"""

from collections.abc import Callable

from sqlalchemy import Connection

from ..core.errors import RecordRefused
from ..core.record import EventRow

CHUNK = 200
"""Rows tried after a failed row, under one savepoint. With 1 % refused rows at random places, 100 took longer and 300
did not help: rows sent behind a failure are cheap, and another statement is not.
"""

_OF_THE_ROW = frozenset({"22001", "23502", "23514"})
"""Value too long, null in a NOT NULL column, CHECK violation: the row fails whatever else is stored, so no second
attempt is needed. This saves a third of the statements. A unique violation (23505) is different, because the row on the
other side may be refused too. So is a row without a partition, because the DEFAULT partition refuses rows whose
partition was made while COPY waited for a lock.
"""

Store = Callable[[list[EventRow]], None]


def store_isolated(
    connection: Connection,
    rows: list[EventRow],
    store: Store,
    *,
    rows_per_statement: int = 1 << 62,
    first: RecordRefused | None = None,
    observe: Callable[[int, RecordRefused], None] = lambda index, error: None,
) -> list[tuple[int, RecordRefused]]:
    """Store all acceptable rows, in order, inside the open transaction.

    Args:
        store: writes at most `rows_per_statement` rows by a single statement. Raises RecordRefused for a refused row.
        first: the error of a statement with all rows. Its line saves another attempt.
        observe: called for every refused row, in order. May raise to give up.

    Returns:
        (index in `rows`, error) of every refused row.
    """
    refused: list[tuple[int, RecordRefused]] = []
    named = first if first is not None and first.index is not None else None
    work: list[tuple[int, int, RecordRefused | None]] = [(0, len(rows), named)]
    while work:
        start, stop, error = work.pop()
        if start >= stop:
            continue
        if error is None and stop - start > rows_per_statement:
            work += [(start + rows_per_statement, stop, None), (start, start + rows_per_statement, None)]
            continue
        error = error or _try(connection, rows[start:stop], store)
        if error is None:
            continue
        if stop - start == 1:
            refused.append((start, error))
            observe(start, error)
            continue
        hint = error.index
        if hint is not None and 0 <= hint < stop - start:
            index = start + hint
            behind = min(index + 1 + CHUNK, stop)
            certain = error if error.sqlstate in _OF_THE_ROW and not error.without_partition else None
            work += [(behind, stop, None), (index + 1, behind, None), (index, index + 1, certain), (start, index, None)]
        else:
            middle = (start + stop) // 2
            work += [(middle, stop, None), (start, middle, None)]
    return refused


def _try(connection: Connection, rows: list[EventRow], store: Store) -> RecordRefused | None:
    savepoint = connection.begin_nested()
    try:
        store(rows)
    except RecordRefused as error:
        savepoint.rollback()
        return error
    savepoint.commit()
    return None
