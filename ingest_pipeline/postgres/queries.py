"""Queries to paste into psql. The module works without SQLAlchemy, which definitions do not load."""

from ..core.column_names import TableName
from ..core.stream import Stream

_NEWEST_ROWS = """\
SELECT newest.*
FROM {ledger}.position AS at
CROSS JOIN LATERAL (
    SELECT * FROM {table} AS event
    WHERE event.kafka_incarnation = at.kafka_incarnation AND event.kafka_partition = at.kafka_partition
    ORDER BY event.kafka_offset DESC LIMIT 20
) AS newest
WHERE at.stream = '{stream}'
ORDER BY newest.ingested_at DESC, newest.kafka_offset DESC LIMIT 20;"""
_NEWEST_OF_ALL = "SELECT * FROM {table} ORDER BY ingested_at DESC, kafka_offset DESC LIMIT 20;"
_OPEN_DEAD_LETTERS = """\
SELECT id, failed_at, kafka_partition, kafka_offset, stage, reason, sqlstate, attempts
FROM {ledger}.dead_letter
WHERE stream = '{stream}' AND status = 'open'
ORDER BY id DESC LIMIT 20;"""


def quoted(name: str) -> str:
    """A name as an SQL identifier. Double its percent signs in statements that a driver formats."""
    return '"' + name.replace('"', '""') + '"'


def quoted_table(table: TableName) -> str:
    return f"{quoted(table.schema)}.{quoted(table.name)}"


def newest_rows(stream: Stream, events: str, ledger: str) -> str:
    """The newest rows, by the primary key, at the same cost in a large table. Reads a whole keyed table. `events` and
    `ledger` are schemas."""
    table = quoted_table(stream.table_name.within(events))
    query = _NEWEST_ROWS if stream.finds_by_coordinates else _NEWEST_OF_ALL
    return query.format(ledger=quoted(ledger), table=table, stream=stream.name)


def open_dead_letters(stream: Stream, ledger: str) -> str:
    """The newest open dead letters, without their bytes."""
    return _OPEN_DEAD_LETTERS.format(ledger=quoted(ledger), stream=stream.name)
