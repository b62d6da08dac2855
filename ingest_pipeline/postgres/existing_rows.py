"""Rows for a table that exists: without Kafka's coordinates, with each value in its column's type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from ..core.errors import RecordRefused, RefusalStage
from ..core.ledger import RedriveOutcome
from ..core.record import STAMP, Row
from ..core.stream import Stream
from .column_types import column_types
from .conversions import DOES_NOT_FIT
from .copy import CopyPlan
from .errors import DoesNotFit, RowNotSent
from .sql import Schemas
from .statements import statements


class ExistingRows:
    """Reads the table's column types once. Make it again after the table was altered.

    Attributes:
        copy: the COPY of these rows.
    """

    def __init__(self, connection: Connection, stream: Stream, schemas: Schemas) -> None:
        sql = statements(stream, schemas)
        self._insert = sql.insert
        self._types = column_types(connection, stream, schemas.quoted_table(stream))
        self.copy: CopyPlan = replace(sql.copy, oids=tuple(kind.oid for kind in self._types))

    def prepared(self, rows: Sequence[Row]) -> list[tuple[Any, ...]]:
        """The rows as the driver takes them. Raises RowNotSent for a value that its column does not hold unchanged."""
        if not rows:
            return []
        columns: list[Sequence[Any]] = []
        columns += list(zip(*rows, strict=True))[STAMP + 1 :]
        for i, kind in enumerate(self._types):
            if kind.convert is not None:
                columns[i] = self._converted(columns[i], i)
        return list(zip(*columns, strict=True))

    def redrive(self, connection: Connection, values: Sequence[Any]) -> RedriveOutcome:
        """Insert the row of an open letter, whose record has no row by the ledger.

        Args:
            values: behind the Kafka timestamp.

        Raises:
            RecordRefused: a trigger drops the row.
        """
        (row,) = self.prepared([(*[None] * (STAMP + 1), *values)])
        if connection.exec_driver_sql(self._insert, row).rowcount != 1:
            raise RecordRefused("a trigger of the table drops the row", stage=RefusalStage.INSERT)
        return RedriveOutcome.STORED

    def _converted(self, values: Sequence[Any], i: int) -> list[Any]:
        kind = self._types[i]
        convert = kind.convert
        assert convert is not None
        converted: list[Any] = []
        try:
            for value in values:
                converted.append(None if value is None else convert(value))
        except DOES_NOT_FIT:
            reason = f"value does not fit column {kind.name} {kind.type}"
            raise RowNotSent(len(converted)) from DoesNotFit(reason)
        return converted
