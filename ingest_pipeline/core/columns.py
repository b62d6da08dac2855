"""An event table's columns. CREATE TABLE, COPY, the checks and the asset use the same list."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from .fields import PG_TYPES


class FilledBy(Enum):
    ROW = "row"
    CLOCK = "the database's clock"
    SEQUENCE = "the database's sequence"


@dataclass(frozen=True, slots=True)
class Column:
    """A column. `pg_type` and `pg_oid` are PostgreSQL's name and OID of the type."""

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
"""The primary key of a table without a key of its own. Re-creating the topic does not repeat a key."""
ORDINAL = Column("kafka_ordinal", "integer", 23)
"""Number of a row among the rows of its record, from 0. Part of the primary key of a stream with `many=True`."""


def column_of(name: str, python_type: type, nullable: bool = False, filled_by: FilledBy = FilledBy.ROW) -> Column:
    return Column(name, *PG_TYPES[python_type], nullable, filled_by)


KAFKA_TIMESTAMP = column_of("kafka_timestamp", datetime, nullable=True)
INGESTED_AT = column_of("ingested_at", datetime, filled_by=FilledBy.CLOCK)
