"""Accepts a data loss: records the gap and moves the position past it, in one transaction."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from ..core.errors import Superseded
from ..core.loss import Acceptance
from ..core.record import TopicIdentity
from ..core.stream import Stream
from .sql import Schemas


def write(
    connection: Connection,
    schemas: Schemas,
    stream: Stream,
    accepted: Sequence[Acceptance],
    *,
    run_id: str,
    identity: TopicIdentity,
    by: str,
) -> None:
    """Inside the open transaction of the partitions' owner, for every acceptance:

    1. Record the gap with the lost offsets. A position that starts a new incarnation has two gaps: an empty range at
       the last offset verified in the old topic, and the skipped part of the new log.
    2. If offsets will be used again, keep the old position as a past one.
    3. Move the position by compare-and-set, or close the position of a partition that no longer exists.

    Raises:
        Superseded: a position differs from the loss.
    """
    incarnation = None
    if any(item.new_incarnation for item in accepted):
        incarnation = new_incarnation(connection, schemas, stream)
    for item in accepted:
        loss, place = item.loss, item.resume_at
        parameters: dict[str, Any] = {
            "stream": stream.name,
            "topic": stream.topic,
            "partition": loss.partition,
            "incarnation": loss.incarnation,
            "expected": loss.next_offset,
            "run_id": run_id,
            "cause": loss.cause,
            "by": by,
            "to_offset": loss.next_offset if item.new_incarnation or place is None else place.next_offset,
            "next_offset": None if place is None else place.next_offset,
            "left_out": item.left_out,
            "leader_epoch": None if place is None else place.leader_epoch,
            "new_incarnation": incarnation,
            "cluster_id": identity.cluster_id,
            "topic_id": identity.topic_id,
        }

        def run(statement: str, parameters: dict[str, Any] = parameters) -> int:
            return connection.execute(schemas.sql(statement, mine=_MINE), parameters).rowcount

        run(_GAP)  # 1
        if item.left_out:
            run(_LEFT_OUT)
        if item.new_incarnation:
            run(_PAST)  # 2
        statement = _CLOSE if place is None else _BEGIN_ANEW if item.new_incarnation else _SKIP
        if run(statement) != 1:  # 3
            raise Superseded(
                f"stream {stream.name}: partition {loss.partition} has moved meanwhile. Look at the loss again",
                stream=stream.name,
                partition=loss.partition,
            )
        run(_FORGET)
    connection.execute(schemas.sql(_ACTED), {"stream": stream.name})


def new_incarnation(connection: Connection, schemas: Schemas, stream: Stream) -> int:
    """The next incarnation of the event tables, above that of every stored row."""
    used = [0]
    for table in stream.tables if stream.coordinates else ():
        newest = text(f"SELECT max(kafka_incarnation) FROM {schemas.table(table)}")  # noqa: S608 (quoted identifier)
        used.append(connection.execute(newest).scalar() or 0)
    names = sorted(str(schemas.table_name(table)) for table in stream.tables)
    parameters = {"event_tables": names, "used": max(used)}
    return int(max(connection.execute(schemas.sql(_INCARNATION), parameters).scalars()))


_MINE = """
    WHERE stream = :stream AND kafka_partition = :partition AND kafka_incarnation = :incarnation
      AND next_offset = :expected AND run_id = :run_id"""
_GAP = """
    INSERT INTO {ledger}.gap (stream, kafka_partition, kafka_incarnation, from_offset, to_offset, cause, run_id,
        accepted_by)
    VALUES (:stream, :partition, :incarnation, :expected, :to_offset, :cause, :run_id, :by)"""
_LEFT_OUT = """
    INSERT INTO {ledger}.gap (stream, kafka_partition, kafka_incarnation, from_offset, to_offset, cause, run_id,
        accepted_by)
    VALUES (:stream, :partition, :new_incarnation, :next_offset - :left_out, :next_offset, :cause, :run_id, :by)"""
_PAST = """
    INSERT INTO {ledger}.past_position (stream, topic, kafka_partition, kafka_incarnation, cluster_id, topic_id,
        first_offset, next_offset, "rows", dead_letters, skipped, absent, lost, updated_at)
    SELECT stream, topic, kafka_partition, kafka_incarnation, cluster_id, topic_id, first_offset, next_offset, "rows",
           dead_letters, skipped, absent, lost, updated_at
    FROM {ledger}.position {mine}"""
_SKIP = """
    UPDATE {ledger}.position
    SET next_offset = :next_offset, leader_epoch = :leader_epoch, lost = lost + :next_offset - :expected {mine}"""
_BEGIN_ANEW = """
    UPDATE {ledger}.position
    SET kafka_incarnation = :new_incarnation, topic = :topic, cluster_id = :cluster_id, topic_id = :topic_id,
        first_offset = :next_offset - :left_out, next_offset = :next_offset, leader_epoch = :leader_epoch, "rows" = 0,
        dead_letters = 0, skipped = 0, absent = 0, lost = :left_out, updated_at = now() {mine}"""
_CLOSE = "DELETE FROM {ledger}.position {mine}"
_FORGET = "DELETE FROM {ledger}.loss WHERE stream = :stream AND kafka_partition = :partition"
_ACTED = """
    INSERT INTO {ledger}.stream_state (stream, acted_at) VALUES (:stream, now())
    ON CONFLICT (stream) DO UPDATE SET acted_at = now()"""
_INCARNATION = """
    INSERT INTO {ledger}.incarnation AS i (event_table, last)
    SELECT event_table, 1 + greatest(:used, (
        SELECT max(last) FROM {ledger}.incarnation WHERE event_table = ANY(CAST(:event_tables AS text[]))))
    FROM unnest(CAST(:event_tables AS text[])) AS event_table
    ON CONFLICT (event_table) DO UPDATE SET last = greatest(i.last + 1, excluded.last) RETURNING last"""
