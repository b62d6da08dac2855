"""Dead letters whose row a newer record wrote or deleted."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from ..core.record import Batch, Deletion, ValuesOf, coordinates_of
from ..core.stream import Stream
from .errors import mapped_errors
from .sql import Schemas

SUPERSEDED = " (superseded: a newer record wrote or deleted the row of its key)"
"""The end of the reason of a dead letter discarded by a redrive, a replay or a deletion."""
RecordDeletion = tuple[int, int, int, bytes | None]
"""(incarnation, partition, offset, record's key with its schema's id)."""


class ObsoleteLetters:
    """Discards open dead letters with the key of a deletion, so that no redrive brings the deleted row back."""

    def __init__(self, stream: Stream, schemas: Schemas) -> None:
        self._stream = stream
        self._open_keys, self._discard = schemas.sql(_OPEN_KEYS), schemas.sql(_DISCARD)

    def discard_of(self, connection: Connection, batch: Batch) -> None:
        framed_key = self._stream.record_columns.framed_key
        deletions = [
            (*coordinates_of(row), framed_key(batch.messages[i].key(), *batch.headers[i : i + 1]))
            for i, row in enumerate(batch.rows)
            if type(row) is Deletion
        ]
        if batch.record_keys is not None and deletions:
            self.discard(connection, batch.record_keys.values, deletions)

    def discard(self, connection: Connection, values_of: ValuesOf, deletions: Sequence[RecordDeletion]) -> None:
        with mapped_errors(f"dead letters of stream {self._stream.name}"):
            letters = connection.execute(self._open_keys, {"stream": self._stream.name}).all()
            if by_letter := self._by_letter(values_of, deletions, letters):
                names = ("incarnations", "partitions", "offsets", "keys")
                columns = dict(zip(names, map(list, zip(*by_letter, strict=True)), strict=True))
                parameters = {"stream": self._stream.name, "superseded": SUPERSEDED, **columns}
                connection.execute(self._discard, parameters)

    def _by_letter(
        self, values_of: ValuesOf, deletions: Sequence[RecordDeletion], letters: Sequence[Any]
    ) -> list[RecordDeletion]:
        """The deletions with the keys of the letters: `{"id":1}` and `{"id": 1}` are the same row."""
        framed_key, of_values = self._stream.record_columns.framed_key, defaultdict(list)
        for key, headers in letters:
            of_values[values_of(framed_key(key, headers))].append(key)
        of_values.pop(None, None)
        return [
            (incarnation, partition, offset, key)
            for incarnation, partition, offset, record_key in deletions
            for key in of_values.get(values_of(record_key), ())
        ]


_OPEN_KEYS = """
    SELECT DISTINCT key, jsonb_path_query_array(headers, 'strict $[*] ? (@[0] == "__key_schema_id")') AS headers
    FROM {ledger}.dead_letter WHERE stream = :stream AND status = 'open' AND key IS NOT NULL"""
_DISCARD = """
    UPDATE {ledger}.dead_letter d
    SET status = 'discarded', resolved_at = now(), reason = d.reason || :superseded
    FROM unnest(CAST(:incarnations AS smallint[]), CAST(:partitions AS int[]), CAST(:offsets AS bigint[]),
                CAST(:keys AS bytea[])) AS n(kafka_incarnation, kafka_partition, kafka_offset, key)
    WHERE d.stream = :stream AND d.status = 'open' AND d.key = n.key
      AND NOT (d.kafka_incarnation = n.kafka_incarnation AND d.kafka_partition = n.kafka_partition
               AND d.kafka_offset >= n.kafka_offset)"""
