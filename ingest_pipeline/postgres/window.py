"""The dead-letter limit's window, rebuilt from what earlier runs committed."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection

from ..core.dead_letter_limit import WINDOW, LetterWindow, Refusal
from .statements import Statements


def rebuilt(connection: Connection, sql: Statements, window: LetterWindow, partitions: Collection[int]) -> LetterWindow:
    """From the newest rows and open dead letters of the partitions, in the order of their batches.

    The rows are looked at only where there is such a letter. Letters that were allowed, redriven or discarded do not
    count: an operator has seen them.
    """
    parameters = {"stream": window.stream, "partitions": list(partitions), "window": WINDOW}
    if window.limits is None or connection.execute(sql.letters, parameters).first() is None:
        return window.rebuilt([])
    newest = connection.execute(sql.recent, parameters).all()
    return window.rebuilt(
        None if row.reason is None else Refusal(row.kafka_partition, row.kafka_offset, row.reason)
        for row in reversed(newest)
    )
