"""An event table's columns: one list, which the table, COPY, the checks and the asset are made from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from .fields import PG_TYPES, Field


class FilledBy(Enum):
    """Who gives a column its value."""

    ROW = "row"
    CLOCK = "the database's clock"
    SEQUENCE = "the database's sequence"


@dataclass(frozen=True, slots=True)
class Column:
    """One column; `pg_type` and `pg_oid` are PostgreSQL's name and OID of its type."""

    name: str
    pg_type: str
    pg_oid: int
    nullable: bool = False
    filled_by: FilledBy = FilledBy.ROW


COORDINATE_COLUMNS = (
    Column("kafka_incarnation", "smallint", 21),
    Column("kafka_partition", "integer", 23),
    Column("kafka_offset", "bigint", 20),
)
"""The primary key: unique for ever, whatever happens to the topic."""
KAFKA_TIMESTAMP = Column("kafka_timestamp", *PG_TYPES[datetime], nullable=True)
INGESTED_AT = Column("ingested_at", *PG_TYPES[datetime], filled_by=FilledBy.CLOCK)


def field_column(item: Field) -> Column:
    return Column(item.name, item.pg_type, item.pg_oid, item.nullable)


def nullable_column(name: str, python_type: type) -> Column:
    return Column(name, *PG_TYPES[python_type], nullable=True)


def identity_column(name: str) -> Column:
    return Column(name, *PG_TYPES[int], filled_by=FilledBy.SEQUENCE)
