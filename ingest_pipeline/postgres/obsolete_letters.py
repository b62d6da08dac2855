"""Dead letters whose row a newer record wrote or deleted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import Connection

from ..core.record import Batch, Deletion
from ..core.record_keys import key_values
from ..core.stream import Stream
from .errors import mapped_errors
from .sql import Schemas

SUPERSEDED = " (superseded: a newer record wrote or deleted the row of its key)"
"""The end of the reason of a dead letter discarded by a redrive, a replay or a deletion."""
RecordDeletion = tuple[int, int, int, bytes | None]
"""(incarnation, partition, offset, record's key)."""


class ObsoleteLetters:
    """Discards open dead letters with the key of a deletion, so that no redrive brings the deleted row back."""

    def __init__(self, stream: Stream, schemas: Schemas) -> None:
        self._stream, self._key_values = stream, key_values(stream)
        self._open_keys, self._discard = schemas.sql(_OPEN_KEYS), schemas.sql(_DISCARD)

    def discard_of(self, connection: Connection, batch: Batch) -> None:
        self.discard(
            connection,
            [
                (row[0], row[1], row[2], message.key())
                for row, message in zip(batch.rows, batch.messages, strict=True)
                if type(row) is Deletion
            ],
        )

    def discard(self, connection: Connection, deletions: Sequence[RecordDeletion]) -> None:
        if not deletions:
            return
        with mapped_errors(f"dead letters of stream {self._stream.name}"):
            keys = connection.execute(self._open_keys, {"stream": self._stream.name}).scalars()
            if by_letter := self._by_letter(deletions, list(keys)):
                names = ("incarnations", "partitions", "offsets", "keys")
                columns = dict(zip(names, map(list, zip(*by_letter, strict=True)), strict=True))
                parameters = {"stream": self._stream.name, "superseded": SUPERSEDED, **columns}
                connection.execute(self._discard, parameters)

    def _by_letter(self, deletions: Sequence[RecordDeletion], keys: Sequence[bytes]) -> list[RecordDeletion]:
        """The deletions with the keys of the letters: `{"id":1}` and `{"id": 1}` are the same row."""
        of_values = defaultdict(list)
        for key in keys:
            of_values[self._key_values(key)].append(key)
        of_values.pop(None, None)
        return [
            (incarnation, partition, offset, key)
            for incarnation, partition, offset, record_key in deletions
            for key in of_values.get(self._key_values(record_key), ())
        ]


_OPEN_KEYS = """
    SELECT DISTINCT key FROM {ledger}.dead_letter WHERE stream = :stream AND status = 'open' AND key IS NOT NULL"""
_DISCARD = """
    UPDATE {ledger}.dead_letter d
    SET status = 'discarded', resolved_at = now(), reason = d.reason || :superseded
    FROM unnest(CAST(:incarnations AS smallint[]), CAST(:partitions AS int[]), CAST(:offsets AS bigint[]),
                CAST(:keys AS bytea[])) AS n(kafka_incarnation, kafka_partition, kafka_offset, key)
    WHERE d.stream = :stream AND d.status = 'open' AND d.key = n.key
      AND NOT (d.kafka_incarnation = n.kafka_incarnation AND d.kafka_partition = n.kafka_partition
               AND d.kafka_offset >= n.kafka_offset)"""
