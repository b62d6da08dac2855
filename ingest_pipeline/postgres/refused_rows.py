"""Finding the records that only the database refuses, at a cost that stays near that of storing the others.

A failed COPY names its line: what came before is stored, the named row is tried alone, and the rest goes on, a chunk
first: all that is sent behind a row that fails is sent in vain.
The line is a hint: a row becomes a dead letter only when it fails alone, or by a rule that looks at nothing but the
row. Without a line the list is halved.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from ..core.errors import RecordRefused
from ..core.record import Row

CHUNK = 200
"""Rows tried behind one that failed, under one savepoint. With 1 % refused, at random places, 100 took longer and 300
no less: what is sent behind the next one that fails is cheap, a statement more is not."""

_OF_THE_ROW = frozenset({"22001", "23502", "23514"})
"""Too long for its column, null where it must not be, a CHECK: whatever else is stored, such a row is refused. That
saves a third of the statements; a key (23505) is another matter, since the row it collides with may be refused, too."""

Store = Callable[[list[Row]], None]


def store_isolated(
    connection: Connection,
    rows: list[Row],
    store: Store,
    batch_size: int = 1 << 62,
    first: RecordRefused | None = None,
    observe: Callable[[int, RecordRefused], None] = lambda index, error: None,
) -> list[tuple[int, RecordRefused]]:
    """Store every row that can be stored, in order, inside the open transaction.

    Args:
        store: writes rows by one statement; raises RecordRefused when one of them is refused.
        batch_size: most rows of one statement.
        first: why one statement with all of them has failed; saves that try where it names a line.
        observe: called for each row that was refused alone, in their order; may raise to give up.

    Returns:
        (index in `rows`, why) of each row that was refused alone.
    """
    refused: list[tuple[int, RecordRefused]] = []
    named = first if first is not None and first.index is not None else None
    work: list[tuple[int, int, RecordRefused | None]] = [(0, len(rows), named)]
    while work:
        start, stop, known = work.pop()
        if start >= stop:
            continue
        if known is None and stop - start > batch_size:
            work += [(start + batch_size, stop, None), (start, start + batch_size, None)]
            continue
        error = known or _try(connection, rows[start:stop], store)
        if error is None:
            continue
        if stop - start == 1:
            refused.append((start, error))
            observe(start, error)
            continue
        hint = error.index
        if hint is not None and 0 <= hint < stop - start:
            at = start + hint
            behind = min(at + 1 + CHUNK, stop)
            certain = error if error.sqlstate in _OF_THE_ROW else None
            work += [(behind, stop, None), (at + 1, behind, None), (at, at + 1, certain), (start, at, None)]
        else:
            middle = (start + stop) // 2
            work += [(middle, stop, None), (start, middle, None)]
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
