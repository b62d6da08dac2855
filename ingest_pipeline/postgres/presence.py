"""Looks up the rows of a batch in the event table, after triggers, rules and partitions have acted."""

from collections.abc import Collection, Mapping

from sqlalchemy import Connection

from ..core.errors import LedgerConflict
from ..core.record import Advance
from .statements import Statements


def row_counts(connection: Connection, sql: Statements, advances: Mapping[int, Advance]) -> dict[int, int]:
    """Partition → number of stored rows in the batch's offset range."""
    parameters = {
        "partitions": list(advances),
        "incarnations": [advance.incarnation for advance in advances.values()],
        "starts": [advance.expected for advance in advances.values()],
        "stops": [advance.resume_at.next_offset for advance in advances.values()],
    }
    return {row.kafka_partition: row.present for row in connection.execute(sql.row_counts, parameters)}


def refuse_conflict(
    connection: Connection, sql: Statements, coordinates: Collection[tuple[int, int, int]], doing: str
) -> None:
    """Stop before a record with a stored row becomes a dead letter. Nothing to stop in a table without coordinates.

    Raises:
        LedgerConflict: the table holds a row of one of them.
    """
    if not sql.coordinates:
        return
    incarnations, partitions, offsets = zip(*coordinates, strict=True)
    parameters = {"incarnations": list(incarnations), "partitions": list(partitions), "offsets": list(offsets)}
    row = connection.execute(sql.first_present, parameters).first()
    if row is not None:
        raise LedgerConflict(
            f"{doing}: partition {row.kafka_partition} offset {row.kafka_offset}: a row with these Kafka coordinates is"
            " in the table already, though the ledger says it was not written. Was the ledger restored from a"
            " backup without the table?",
            partition=row.kafka_partition,
            offset=row.kafka_offset,
        )
