"""Finding the records that only the database refuses, at a cost that stays near that of storing the others.

A failed COPY names its line: what came before is stored in chunks, the named row is tried alone, and the rest goes on.
The line is a hint: a row becomes a dead letter only when it fails alone. Without a line the list is halved.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from ..core.errors import RecordRefused
from ..core.record import Row

CHUNK = 100
"""Rows under one savepoint: a savepoint a row would overflow PostgreSQL's cache of 64 subtransactions soon."""

Store = Callable[[list[Row]], None]


def store_isolated(
    connection: Connection,
    rows: list[Row],
    store: Store,
    batch_size: int = 1 << 62,
    observe: Callable[[int, RecordRefused], None] = lambda index, error: None,
) -> list[tuple[int, RecordRefused]]:
    """Store every row that can be stored, in order, inside the open transaction.

    Args:
        store: writes rows by one statement; raises RecordRefused when one of them is refused.
        batch_size: most rows of one statement.
        observe: called for each row that was refused alone, in their order; may raise to give up.

    Returns:
        (index in `rows`, why) of each row that was refused alone.
    """
    refused: list[tuple[int, RecordRefused]] = []
    work = [(start, min(start + batch_size, len(rows))) for start in range(0, len(rows), batch_size)][::-1]
    while work:
        start, stop = work.pop()
        if start >= stop:
            continue
        error = _try(connection, rows[start:stop], store)
        if error is None:
            continue
        if stop - start == 1:
            refused.append((start, error))
            observe(start, error)
            continue
        hint = error.index
        if hint is not None and 0 <= hint < stop - start:
            at = start + hint
            before = [(left, min(left + CHUNK, at)) for left in range(start, at, CHUNK)]
            work += reversed([*before, (at, at + 1), (at + 1, stop)])
        else:
            middle = (start + stop) // 2
            work += [(middle, stop), (start, middle)]
    return refused


def _try(connection: Connection, rows: list[Row], store: Store) -> RecordRefused | None:
    savepoint = connection.begin_nested()
    try:
        store(rows)
    except RecordRefused as error:
        savepoint.rollback()
        return error
    savepoint.commit()
    return None
