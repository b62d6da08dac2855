"""A redriven dead letter of a keyed stream. It never replaces or brings back what a newer record decided."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from ..core.choices import OnConflict
from ..core.columns import INGESTED_AT
from ..core.errors import RecordRefused, RefusalStage
from ..core.ledger import RedriveOutcome
from ..core.record import ValuesOf
from ..core.stream import COORDINATES, Stream
from .obsolete_letters import ObsoleteLetters
from .sql import Schemas
from .upserts import older

Values = Mapping[str, Any]


class KeyedRedrive:
    """Stores the rows of dead letters inside the caller's savepoint."""

    def __init__(self, stream: Stream, table: sa.Table, schemas: Schemas) -> None:
        self._stream, self._table = stream, table
        self._letters = ObsoleteLetters(stream, schemas) if stream.deletes else None

    def store(self, connection: Connection, row: Values) -> RedriveOutcome:
        """Raises RecordRefused if a trigger drops the row."""
        statement = insert(self._table).values(row)
        key = list(self._stream.key)
        if self._stream.on_conflict == OnConflict.IGNORE:
            statement = statement.on_conflict_do_nothing(index_elements=key)
        else:
            names = [name for name in (*self._stream.columns, INGESTED_AT.name) if name not in key]
            statement = statement.on_conflict_do_update(
                index_elements=key,
                set_={name: statement.excluded[name] for name in names},
                where=sa.text(older(self._stream, self._table.name)),
            )
        written = connection.execute(statement.returning(self._table.c.kafka_offset)).first()
        stored = self._coordinates(connection, row)
        if stored is None:  # also a trigger that deletes or moves a stored row
            raise RecordRefused("a trigger of the table drops the row", stage=RefusalStage.INSERT)
        if written is not None:
            return RedriveOutcome.STORED
        own = stored == tuple(row[name] for name in COORDINATES)
        return RedriveOutcome.PRESENT if own else RedriveOutcome.SUPERSEDED

    def delete(
        self, connection: Connection, row: Values, values_of: ValuesOf, record_key: bytes | None
    ) -> RedriveOutcome:
        """Delete the row of the key, unless a newer record wrote it."""
        assert self._letters is not None
        table, coordinates = self._table.c, [row[name] for name in COORDINATES]
        before = sa.or_(
            table.kafka_incarnation < coordinates[0],
            sa.and_(
                table.kafka_incarnation == coordinates[0],
                table.kafka_partition == coordinates[1],
                table.kafka_offset < coordinates[2],
            ),
        )
        self._letters.discard(connection, values_of, [(*coordinates, record_key)])
        connection.execute(self._table.delete().where(self._same_key(row), before))
        return RedriveOutcome.STORED if self._coordinates(connection, row) is None else RedriveOutcome.SUPERSEDED

    def _coordinates(self, connection: Connection, row: Values) -> tuple[Any, ...] | None:
        """Of the table's row with the key."""
        columns = [self._table.c[name] for name in COORDINATES]
        stored = connection.execute(sa.select(*columns).where(self._same_key(row))).first()
        return None if stored is None else tuple(stored)

    def _same_key(self, row: Values) -> sa.ColumnElement[bool]:
        return sa.and_(*(self._table.c[name] == row[name] for name in self._stream.key))
