"""SQLAlchemy tables of the ledger and of the streams. Only migrations/ creates the ledger's tables."""

from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from ..core.column_names import index_names
from ..core.columns import Column, FilledBy
from ..core.stream import Stream

_TYPES: dict[str, sa.types.TypeEngine[Any]] = {
    "text": sa.Text(),
    "boolean": sa.Boolean(),
    "smallint": sa.SmallInteger(),
    "integer": sa.Integer(),
    "bigint": sa.BigInteger(),
    "double precision": sa.Double(),
    "timestamp with time zone": sa.DateTime(timezone=True),
    "date": sa.Date(),
    "numeric": sa.Numeric(),
    "uuid": sa.Uuid(),
    "jsonb": JSONB(none_as_null=True),
    "bytea": sa.LargeBinary(),
}
BIGINT_OID = 20
_FILL_PERCENT = 80
"""Of a keyed table's pages. The rest is for updates, which then change no index. Without it a third of them do."""
_LETTER_COLUMNS = {
    "stream": "text",
    "topic": "text",
    "run_id": "text",
    "allowed": "bool",
    "kafka_partition": "int4",
    "kafka_offset": "int8",
    "kafka_incarnation": "int2",
    "kafka_timestamp_ms": "int8",
    "key": "bytea",
    "value": "bytea",
    "value_bytes": "int8",
    "value_sha256": "bytea",
    "truncated": "bool",
    "headers": "jsonb",
    "stage": "text",
    "reason": "text",
    "sqlstate": "text",
}


def event_table(stream: Stream, schema: str) -> sa.Table:
    """The stream's table as declared.

    Its primary key is the stream's key, or begins with the record's Kafka coordinates. A table without coordinates has
    no key. An update of an indexed column writes to every index, so a keyed table has no index on event_time. A table
    declared without a schema is in `schema`.
    """
    name = stream.table_name.within(schema)
    key_name, index_name = index_names(name.name)
    has_index = stream.has_event_time and stream.finds_by_coordinates
    return sa.Table(
        name.name,
        sa.MetaData(),
        *map(_column, stream.table_columns),
        *([sa.PrimaryKeyConstraint(*stream.primary_key, name=key_name)] if stream.coordinates else []),
        *([sa.Index(index_name, "event_time", postgresql_using="brin")] if has_index else []),
        schema=name.schema,
        postgresql_with={"fillfactor": _FILL_PERCENT} if stream.key else {},
        postgresql_partition_by="RANGE (event_time)" if stream.partition_by else None,
        comment=stream.description or None,
    )


def _column(column: Column) -> sa.Column[Any]:
    type_ = _TYPES[column.pg_type]
    if column.filled_by is FilledBy.SEQUENCE:
        return sa.Column(column.name, type_, sa.Identity(always=True), nullable=False)
    default = sa.func.now() if column.filled_by is FilledBy.CLOCK else None
    return sa.Column(column.name, type_, nullable=column.nullable, server_default=default)


def primary_key_name(stream: Stream) -> str:
    """The name of the event table's primary key, as `mapped_errors` expects it."""
    return index_names(stream.table_name.name)[0]


def column_oids(stream: Stream) -> dict[str, int]:
    """Column → type OID for the columns that a run writes, in order."""
    return {column.name: column.pg_oid for column in stream.written_columns}


def letter_oids() -> dict[str, int]:
    """Column → type OID for the columns of a dead letter, in order."""
    return {name: psycopg.adapters.types[kind].oid for name, kind in _LETTER_COLUMNS.items()}
