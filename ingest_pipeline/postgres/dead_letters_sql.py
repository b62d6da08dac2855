"""The statements of dead_letters.py and letter_retention.py."""

from sqlalchemy import TextClause

from .sql import Schemas

_OPEN = """{ledger}.dead_letter
    WHERE stream = :stream AND status = 'open'
      AND (CAST(:stage AS text) IS NULL OR stage = :stage)
      AND (CAST(:sqlstate AS text) IS NULL OR sqlstate = :sqlstate)
      AND (CAST(:reason AS text) IS NULL OR strpos(reason, :reason) > 0)
      AND (CAST(:since AS timestamptz) IS NULL OR failed_at >= :since)
      AND (CAST(:until AS timestamptz) IS NULL OR failed_at < :until)
      AND (CAST(:ids AS bigint[]) IS NULL OR id = ANY(:ids))"""
_BYTES = """(CASE WHEN truncated AND status = 'open' THEN 0 ELSE coalesce(octet_length(value), 0) END
            + coalesce(octet_length(key), 0) + coalesce(pg_column_size(headers), 0))"""
"""Columns of a letter without its bytes. A redrive does not fetch a truncated value."""

COUNTS = """
    SELECT stage, reason, sqlstate, count(*) AS letters, min(id) AS first_id, max(failed_at) AS newest
    FROM {open} GROUP BY 1, 2, 3 ORDER BY 4 DESC, 5"""
TOP_REASONS = """
    SELECT reason, count(*) AS letters
    FROM (SELECT id, reason FROM {ledger}.dead_letter WHERE stream = :stream AND status = 'open'
          ORDER BY id DESC LIMIT :newest) AS newest
    GROUP BY 1 ORDER BY 2 DESC, min(id) LIMIT :limit"""
REFUSALS = """
    SELECT count(*) AS records, count(*) FILTER (WHERE refused) AS refused,
           (SELECT max(failed_at) FROM {ledger}.dead_letter WHERE stream = :stream AND status = 'open') AS newest_at
    FROM (
        SELECT newest.* FROM {ledger}.position p CROSS JOIN LATERAL (
            SELECT true AS refused, d.failed_at AS at, d.kafka_offset FROM {ledger}.dead_letter d
            WHERE d.stream = p.stream AND d.kafka_incarnation = p.kafka_incarnation
              AND d.kafka_partition = p.kafka_partition AND d.status = 'open' AND NOT d.allowed
              AND d.failed_at > coalesce(:acknowledged_at, '-infinity'::timestamptz)
            ORDER BY d.kafka_offset DESC LIMIT :records) AS newest
        WHERE p.stream = :stream
        UNION ALL
        SELECT newest.* FROM {ledger}.position p CROSS JOIN LATERAL (
            SELECT false, e.ingested_at, e.kafka_offset FROM {rows} e
            WHERE e.kafka_incarnation = p.kafka_incarnation AND e.kafka_partition = p.kafka_partition{first_row}
            ORDER BY e.kafka_offset DESC LIMIT :records) AS newest
        WHERE p.stream = :stream
        ORDER BY at DESC, kafka_offset DESC LIMIT :records) AS recent"""
REFUSALS_BY_OFFSET = """
    SELECT count(*) AS records, count(*) FILTER (WHERE refused) AS refused,
           (SELECT max(failed_at) FROM {ledger}.dead_letter WHERE stream = :stream AND status = 'open') AS newest_at
    FROM (
        SELECT d.id IS NOT NULL AS refused
        FROM {ledger}.position p
        CROSS JOIN LATERAL generate_series(greatest(p.first_offset, p.next_offset - :records), p.next_offset - 1)
            AS offsets(kafka_offset)
        LEFT JOIN {ledger}.dead_letter d
            ON d.stream = p.stream AND d.kafka_incarnation = p.kafka_incarnation
               AND d.kafka_partition = p.kafka_partition AND d.kafka_offset = offsets.kafka_offset
               AND d.status = 'open' AND NOT d.allowed
               AND d.failed_at > coalesce(:acknowledged_at, '-infinity'::timestamptz)
        WHERE p.stream = :stream
        ORDER BY p.next_offset - offsets.kafka_offset LIMIT :records) AS recent"""
"""As REFUSALS, for a table without an index on the coordinates: every offset counts as a record."""
PAGE = """
    SELECT id, kafka_partition, kafka_offset, failed_at, stage, reason, sqlstate, attempts, value_bytes, truncated
    FROM {open} ORDER BY id LIMIT :limit"""
TRUNCATED = """
    SELECT kafka_partition, kafka_offset FROM {open} AND truncated AND kafka_partition >= 0
      AND kafka_incarnation = (SELECT p.kafka_incarnation FROM {ledger}.position p
                               WHERE p.stream = dead_letter.stream AND p.kafka_partition = dead_letter.kafka_partition)
    ORDER BY id LIMIT :limit"""
"""The newest topic's letters."""
SHOW = """
    SELECT id, stream, topic, kafka_incarnation, kafka_partition, kafka_offset, kafka_timestamp_ms,
           substr(key, 1, :preview) AS key, octet_length(key) AS key_bytes, substr(value, 1, :preview) AS value,
           octet_length(value) AS kept_bytes, value_bytes, value_sha256, truncated, headers, stage, reason, sqlstate,
           run_id, allowed, failed_at, status, attempts, resolved_at
    FROM {ledger}.dead_letter WHERE stream = :stream AND id = :id"""

NEXT_SIZES = "SELECT id, {bytes} AS bytes FROM {open} AND id > :after ORDER BY id LIMIT :limit"
LOCKED = """
    SELECT id, kafka_incarnation, kafka_partition, kafka_offset, kafka_timestamp_ms, key, headers, truncated,
           CASE WHEN NOT truncated THEN value END AS value
    FROM {ledger}.dead_letter WHERE id = ANY(CAST(:ids AS bigint[])) AND status = 'open'
    ORDER BY id FOR UPDATE SKIP LOCKED"""
PRESENT = """
    SELECT FROM {rows} AS e
    WHERE e.kafka_incarnation = :kafka_incarnation AND e.kafka_partition = :kafka_partition
      AND e.kafka_offset = :kafka_offset LIMIT 1"""
IS_OPEN = "SELECT status = 'open' FROM {ledger}.dead_letter WHERE id = :id"
REDRIVEN = """
    UPDATE {ledger}.dead_letter SET status = 'redriven', resolved_at = now(), attempts = attempts + 1
    WHERE id = ANY(CAST(:ids AS bigint[]))"""
SUPERSEDED = """
    UPDATE {ledger}.dead_letter
    SET status = 'discarded', resolved_at = now(), attempts = attempts + 1, reason = reason || :superseded
    WHERE id = ANY(CAST(:ids AS bigint[])) AND status = 'open'"""
REFUSED = """
    UPDATE {ledger}.dead_letter AS d
    SET attempts = d.attempts + 1, stage = r.stage, reason = r.reason, sqlstate = r.sqlstate
    FROM unnest(CAST(:ids AS bigint[]), CAST(:stages AS text[]), CAST(:reasons AS text[]), CAST(:sqlstates AS text[]))
         AS r(id, stage, reason, sqlstate)
    WHERE d.id = r.id"""

NEWEST = "SELECT max(id) FROM {open}"
NEXT_IDS = "SELECT id FROM {open} AND id > :after AND id <= :newest ORDER BY id LIMIT :limit"
DISCARD = """
    UPDATE {ledger}.dead_letter SET status = 'discarded', resolved_at = now()
    WHERE id = ANY(CAST(:ids AS bigint[])) AND status = 'open'"""

_SETTLED = "{ledger}.dead_letter WHERE stream = :stream AND status <> 'open'"
EXPIRED = """
    SELECT id, {bytes} AS bytes
    FROM {settled} AND coalesce(resolved_at, failed_at) < now() - make_interval(days => :days)
    ORDER BY coalesce(resolved_at, failed_at) LIMIT :limit"""
EXPIRED_COUNT = """
    SELECT count(*) FROM {settled} AND coalesce(resolved_at, failed_at) < now() - make_interval(days => :days)"""
PURGE = """
    WITH purged AS (
        DELETE FROM {ledger}.dead_letter WHERE id = ANY(CAST(:ids AS bigint[])) AND status <> 'open'
        RETURNING stream, kafka_incarnation, kafka_partition),
    counted AS (
        INSERT INTO {ledger}.settled_letters AS s (stream, kafka_incarnation, kafka_partition, purged)
        SELECT stream, kafka_incarnation, kafka_partition, count(*) FROM purged GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        ON CONFLICT (stream, kafka_incarnation, kafka_partition) DO UPDATE SET purged = s.purged + excluded.purged)
    SELECT count(*) FROM purged"""
MISSING = """
    SELECT coalesce(sum(redriven + discarded - purged), 0) - (SELECT count(*) FROM {settled})
    FROM {ledger}.settled_letters WHERE stream = :stream"""


def rendered(statement: str, schemas: Schemas) -> TextClause:
    return schemas.sql(statement, open=_OPEN, settled=_SETTLED, bytes=_BYTES)
