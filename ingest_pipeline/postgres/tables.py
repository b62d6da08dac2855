"""The ledger's tables and the event tables, as SQLAlchemy sees them. The ledger's are made by migrations/ alone."""

from __future__ import annotations

import hashlib
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Double,
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

from ..core.fields import PG_TYPES
from ..core.stream import COORDINATES, POSTGRES_NAME_BYTES, Stream

_TYPES: dict[type, TypeEngine[Any]] = {
    str: Text(),
    bool: Boolean(),
    int: BigInteger(),
    float: Double(),
    datetime: DateTime(timezone=True),
    date: Date(),
    Decimal: Numeric(),
    UUID: Uuid(),
    dict: JSONB(none_as_null=True),
    list: JSONB(none_as_null=True),
    bytes: LargeBinary(),
}
LETTER_KEY = "dead_letter_coordinates"
"""The unique constraint of the dead letters' coordinates, as v0001_ledger.py names it."""
SMALLINT_OID, INT_OID, BIGINT_OID, TIMESTAMPTZ_OID = 21, 23, 20, 1184


def event_table(stream: Stream, schema: str, metadata: MetaData | None = None) -> Table:
    """The stream's table as declared. Its primary key is the record's Kafka coordinates."""
    columns = [
        Column("kafka_incarnation", SmallInteger, nullable=False),
        Column("kafka_partition", Integer, nullable=False),
        Column("kafka_offset", BigInteger, nullable=False),
        *(Column(item.name, _TYPES[item.python_type], nullable=item.nullable) for item in stream.fields),
        Column("kafka_timestamp", DateTime(timezone=True), nullable=True),
        Column("ingested_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    ]
    return Table(
        stream.table,
        metadata if metadata is not None else MetaData(),
        *columns,
        PrimaryKeyConstraint(*COORDINATES, name=primary_key_name(stream.table)),
        Index(_derived(stream.table, "_event_time_brin"), "event_time", postgresql_using="brin"),
        schema=schema,
        comment=(stream.event.__doc__ or "").strip() or None,
    )


def primary_key_name(table: str) -> str:
    """The event table's own key, as `mapped_errors` knows it."""
    return _derived(table, "_pkey")


def _derived(table: str, suffix: str) -> str:
    """The table's name and a suffix; one too long for PostgreSQL is cut, and told from others by a hash."""
    if len(table.encode()) + len(suffix) <= POSTGRES_NAME_BYTES:
        return table + suffix
    suffix = f"_{hashlib.sha256(table.encode()).hexdigest()[:8]}{suffix}"
    return table.encode()[: POSTGRES_NAME_BYTES - len(suffix)].decode(errors="ignore") + suffix


def column_oids(stream: Stream) -> dict[str, int]:
    """Column → type OID for the columns a row fills, in a row's order."""
    kafka = {
        "kafka_incarnation": SMALLINT_OID,
        "kafka_partition": INT_OID,
        "kafka_offset": BIGINT_OID,
        "kafka_timestamp": TIMESTAMPTZ_OID,
    }
    return {**kafka, **{item.name: PG_TYPES[item.python_type][1] for item in stream.fields}}
