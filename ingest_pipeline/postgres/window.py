"""Rebuilds the dead-letter limit's window from committed records of earlier runs."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection

from ..core.dead_letter_limit import WINDOW, LetterWindow, Refusal
from .statements import Statements


def rebuilt(connection: Connection, sql: Statements, window: LetterWindow, partitions: Collection[int]) -> LetterWindow:
    """Read the newest rows and open dead letters of the partitions, in the order of their batches.

    Rows are read only if such a letter exists. Allowed, redriven and discarded letters do not count, because an
    operator has seen them.
    """
    parameters = {"stream": window.stream, "partitions": list(partitions), "window": WINDOW}
    if window.limits is None or connection.execute(sql.letters, parameters).first() is None:
        return window.rebuilt([])
    newest = connection.execute(sql.recent, parameters).all()
    return window.rebuilt(
        None if row.reason is None else Refusal(row.kafka_partition, row.kafka_offset, row.reason)
        for row in reversed(newest)
    )
