"""Finds a table that already holds rows of the same topic from another stream, as after a stream was renamed."""

from __future__ import annotations

from sqlalchemy import Connection

from ..core.errors import LedgerConflict
from ..core.record import TopicIdentity
from ..core.stream import Stream
from .sql import Schemas

_STORED_BY = """
    SELECT p.stream, p.kafka_partition, p.first_offset, p.next_offset
    FROM (SELECT stream, topic, kafka_partition, kafka_incarnation, cluster_id, topic_id, first_offset, next_offset
          FROM {ledger}.position
          UNION ALL
          SELECT stream, topic, kafka_partition, kafka_incarnation, cluster_id, topic_id, first_offset, next_offset
          FROM {ledger}.past_position) AS p
    {present}
    WHERE p.topic = :topic AND p.stream <> :stream
      AND coalesce(p.cluster_id = CAST(:cluster_id AS text), true)
      AND coalesce(p.topic_id = CAST(:topic_id AS text), true)
    ORDER BY p.stream, p.kafka_partition LIMIT 1"""


_PRESENT = """
    CROSS JOIN LATERAL (
        SELECT FROM {table} AS event
        WHERE event.kafka_incarnation = p.kafka_incarnation AND event.kafka_partition = p.kafka_partition
          AND event.kafka_offset >= p.first_offset AND event.kafka_offset < p.next_offset LIMIT 1) AS present"""


def refuse_second_reading(connection: Connection, schemas: Schemas, stream: Stream, identity: TopicIdentity) -> None:
    """Call this before a stream begins for the first time. Several topics may share a table, but no topic may be stored
    twice.

    Raises:
        LedgerConflict: the table holds rows of this topic under another stream's positions. Without coordinates in the
            table, another stream's positions are enough.
    """
    parameters = {
        "stream": stream.name,
        "topic": stream.topic,
        "cluster_id": identity.cluster_id,
        "topic_id": identity.topic_id,
    }
    statement = schemas.sql(_STORED_BY, stream, present=_PRESENT if stream.coordinates else "")
    other = connection.execute(statement, parameters).first()
    if other is not None:
        holds = "holds" if stream.coordinates else "may hold"
        raise LedgerConflict(
            f"stream {stream.name}: table {schemas.table_name(stream)} {holds} rows of topic {stream.topic} already,"
            f" by the positions of stream {other.stream} (partition {other.kafka_partition}, offsets"
            f" {other.first_offset} to {other.next_offset - 1}), and would hold them twice. If {other.stream} was"
            " renamed, give it its name back or rename it in the ledger, as docs/operations.md says. If both are"
            " wanted, give one another table",
            stream=stream.name,
            partition=other.kafka_partition,
        )
