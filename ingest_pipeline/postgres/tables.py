"""SQLAlchemy tables of the ledger and of the streams. Only migrations/ creates the ledger's tables."""

from __future__ import annotations

from typing import Any

import psycopg
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

from ..core.column_names import index_names
from ..core.columns import Column as Declared
from ..core.columns import FilledBy
from ..core.stream import COORDINATES, Stream

_TYPES: dict[str, TypeEngine[Any]] = {
    "text": Text(),
    "boolean": Boolean(),
    "smallint": SmallInteger(),
    "integer": Integer(),
    "bigint": BigInteger(),
    "double precision": Double(),
    "timestamp with time zone": DateTime(timezone=True),
    "date": Date(),
    "numeric": Numeric(),
    "uuid": Uuid(),
    "jsonb": JSONB(none_as_null=True),
    "bytea": LargeBinary(),
}
BIGINT_OID = 20
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


def event_table(stream: Stream, schema: str, metadata: MetaData | None = None) -> Table:
    """The stream's table as declared. Its primary key is the record's Kafka coordinates."""
    return Table(
        stream.table,
        metadata if metadata is not None else MetaData(),
        *map(_column, stream.table_columns),
        PrimaryKeyConstraint(*COORDINATES, name=primary_key_name(stream.table)),
        *(
            [Index(index_names(stream.table)[1], "event_time", postgresql_using="brin")]
            if stream.has_event_time
            else []
        ),
        schema=schema,
        comment=stream.description or None,
    )


def _column(declared: Declared) -> Column[Any]:
    type_ = _TYPES[declared.pg_type]
    if declared.filled_by is FilledBy.SEQUENCE:
        return Column(declared.name, type_, Identity(always=True), nullable=False)
    default = func.now() if declared.filled_by is FilledBy.CLOCK else None
    return Column(declared.name, type_, nullable=declared.nullable, server_default=default)


def primary_key_name(table: str) -> str:
    """The name of the event table's primary key, as `mapped_errors` expects it."""
    return index_names(table)[0]


def column_oids(stream: Stream) -> dict[str, int]:
    """Column → type OID for the columns of a row, in order."""
    return {column.name: column.pg_oid for column in stream.row_columns}


def letter_oids() -> dict[str, int]:
    """Column → type OID for the columns of a dead letter, in order."""
    return {name: psycopg.adapters.types[kind].oid for name, kind in _LETTER_COLUMNS.items()}
