"""The statements of a batch's transaction, rendered once for a ledger and a stream, with all names quoted."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any

from msgspec import Raw
from psycopg.types.json import Jsonb
from sqlalchemy import TextClause

from ..core.columns import ORDINAL
from ..core.record import STAMP, DeadLetter, EventRow
from ..core.stream import Stream
from .catalog import SIGNATURE
from .copy import CopyPlan
from .queries import quoted
from .sql import Schemas
from .tables import BIGINT_OID, column_oids, letter_oids

_PG_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_letter_values = attrgetter(*DeadLetter.__slots__)


class Statements:
    """The statements of a stream's writer. `insert` and `letter` are for exec_driver_sql. Their CopyPlans carry the
    same rows."""

    def __init__(self, stream: Stream, schemas: Schemas) -> None:
        def rendered(statement: str) -> TextClause:
            return schemas.sql(statement, stream, **parts)

        parts = {
            "signature": SIGNATURE,
            "event_tables": ", ".join(f"to_regclass(:event_table_{i})" for i in range(len(stream.tables))),
            "first_row": first_row(stream),
        }
        self.coordinates = stream.coordinates
        self.insert, self.copy = carried(schemas.quoted_table(stream), row_oids(stream))
        self.letter, self.letter_copy = carried(f"{quoted(schemas.ledger)}.dead_letter", letter_oids())
        self.advance, self.recount = rendered(_ADVANCE), rendered(_RECOUNT)
        self.row_counts, self.first_present = rendered(_ROW_COUNTS), rendered(_FIRST_PRESENT)
        self.unfilled, self.allowed, self.allowance = rendered(_UNFILLED), rendered(_ALLOWED), rendered(_ALLOWANCE)
        self.letters = rendered(_LETTERS)
        self.recent = rendered(_RECENT if stream.finds_by_coordinates else _RECENT_OFFSETS)
        self.own, self.read = rendered(_OWN), rendered(_READ)


def first_row(stream: Stream) -> str:
    """A condition for reading the rows of an event table `e` once per record."""
    return f" AND e.{ORDINAL.name} = 0" if stream.many else ""


def row_oids(stream: Stream) -> dict[str, int]:
    """Column → type OID of an EventRow's values. kafka_timestamp is sent as microseconds since PostgreSQL's epoch."""
    return {name: BIGINT_OID if name == "kafka_timestamp" else oid for name, oid in column_oids(stream).items()}


def carried(table: str, oids: Mapping[str, int]) -> tuple[str, CopyPlan]:
    """The INSERT into these columns, and the COPY of the same rows."""
    columns, values = ", ".join(map(quoted, oids)), ", ".join(["%s"] * len(oids))
    insert = f"INSERT INTO {table} ({columns})".replace("%", "%%") + f" VALUES ({values})"  # noqa: S608
    return insert, CopyPlan(f"COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)", tuple(oids.values()))


def as_parameters(row: EventRow) -> tuple[Any, ...]:
    """A row for executemany. COPY takes timestamps as int8 and JSON as text, and executemany needs both converted."""
    stamp = row[STAMP]
    time = None if stamp is None else _PG_EPOCH + timedelta(microseconds=stamp)
    return (*row[:STAMP], time, *dressed(row[STAMP + 1 :]))


def dressed(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(Jsonb(value) if isinstance(value, dict | list | Raw) else value for value in values)


def letter_row(letter: DeadLetter, stream: Stream, run_id: str, allowed: bool) -> tuple[Any, ...]:
    """A dead letter's values, in the order of its columns."""
    return (stream.name, stream.topic, run_id, allowed, *_letter_values(letter))


# Both sub-selects lock their table against any ALTER until COMMIT. The lock is taken before the snapshot, so the
# signature is that of the locked tables.
_ADVANCE = """
    WITH advanced AS (
        UPDATE {ledger}.position AS p
        SET next_offset = m.next_offset, leader_epoch = m.leader_epoch, "rows" = p."rows" + m.rows,
            dead_letters = p.dead_letters + m.dead_letters, skipped = p.skipped + m.skipped,
            absent = p.absent + m.absent, updated_at = now()
        FROM unnest(CAST(:partitions AS int[]), CAST(:incarnations AS smallint[]), CAST(:expected AS bigint[]),
                    CAST(:next_offsets AS bigint[]), CAST(:leader_epochs AS int[]), CAST(:rows AS bigint[]),
                    CAST(:dead_letters AS bigint[]), CAST(:skipped AS bigint[]), CAST(:absent AS bigint[]))
             AS m(kafka_partition, incarnation, expected, next_offset, leader_epoch, rows, dead_letters, skipped,
                  absent)
        WHERE p.stream = :stream AND p.kafka_partition = m.kafka_partition AND p.kafka_incarnation = m.incarnation
          AND p.next_offset = m.expected AND p.run_id = :run_id
        RETURNING 1)
    SELECT (SELECT count(*) FROM advanced) AS advanced, coalesce(s.paused, false) AS paused, s.reason, s.paused_by,
           coalesce(s.letters_allowed, 0) AS letters_allowed,
           {holds} OR EXISTS (SELECT FROM {ledger}.dead_letter WHERE false)
               AS locked,
           ({signature}) AS signature
    FROM (VALUES (1)) AS one LEFT JOIN {ledger}.stream_state s ON s.stream = :stream"""
_RECOUNT = """
    UPDATE {ledger}.position AS p
    SET "rows" = p."rows" - m.refused - m.dropped, dead_letters = p.dead_letters + m.refused,
        skipped = p.skipped + m.dropped
    FROM unnest(CAST(:partitions AS int[]), CAST(:refused AS bigint[]), CAST(:dropped AS bigint[]))
         AS m(kafka_partition, refused, dropped)
    WHERE p.stream = :stream AND p.kafka_partition = m.kafka_partition"""
_ROW_COUNTS = """
    SELECT m.kafka_partition, counted.present
    FROM unnest(CAST(:partitions AS int[]), CAST(:incarnations AS smallint[]), CAST(:starts AS bigint[]),
                CAST(:stops AS bigint[])) AS m(kafka_partition, incarnation, start, stop)
    CROSS JOIN LATERAL (
        SELECT count(DISTINCT e.kafka_offset) AS present FROM {rows} e
        WHERE e.kafka_incarnation = m.incarnation AND e.kafka_partition = m.kafka_partition
          AND e.kafka_offset >= m.start AND e.kafka_offset < m.stop) AS counted"""
_FIRST_PRESENT = """
    SELECT r.kafka_partition, r.kafka_offset
    FROM unnest(CAST(:incarnations AS smallint[]), CAST(:partitions AS int[]), CAST(:offsets AS bigint[]))
         AS r(kafka_incarnation, kafka_partition, kafka_offset)
    CROSS JOIN LATERAL (
        SELECT FROM {rows} e
        WHERE e.kafka_incarnation = r.kafka_incarnation AND e.kafka_partition = r.kafka_partition
          AND e.kafka_offset = r.kafka_offset LIMIT 1) AS present
    LIMIT 1"""
_UNFILLED = """
    SELECT a.attgenerated = '' AND NOT EXISTS (
        SELECT FROM pg_trigger t WHERE t.tgrelid = a.attrelid AND NOT t.tgisinternal AND t.tgtype & 7 = 7)
    FROM pg_attribute a WHERE a.attrelid = to_regclass(:event_table) AND a.attname = :column"""
_ALLOWED = """
    UPDATE {ledger}.stream_state SET letters_allowed = greatest(0, letters_allowed - :used) WHERE stream = :stream"""
_ALLOWANCE = "SELECT letters_allowed FROM {ledger}.stream_state WHERE stream = :stream FOR UPDATE"
_LETTERS = """
    SELECT 1 FROM {ledger}.position p JOIN {ledger}.dead_letter d
        ON d.stream = p.stream AND d.kafka_incarnation = p.kafka_incarnation AND d.kafka_partition = p.kafka_partition
    WHERE p.stream = :stream AND p.kafka_partition = ANY(CAST(:partitions AS int[]))
      AND d.status = 'open' AND NOT d.allowed LIMIT 1"""
_RECENT = """
    SELECT kafka_partition, kafka_offset, reason FROM (
        SELECT p.kafka_partition, newest.*
        FROM {ledger}.position p CROSS JOIN LATERAL (
            SELECT d.kafka_offset, d.reason, d.failed_at AS at FROM {ledger}.dead_letter d
            WHERE d.stream = p.stream AND d.kafka_incarnation = p.kafka_incarnation
              AND d.kafka_partition = p.kafka_partition AND d.status = 'open' AND NOT d.allowed
            ORDER BY d.kafka_offset DESC LIMIT :window) AS newest
        WHERE p.stream = :stream AND p.kafka_partition = ANY(CAST(:partitions AS int[]))
        UNION ALL
        SELECT p.kafka_partition, newest.*
        FROM {ledger}.position p CROSS JOIN LATERAL (
            SELECT e.kafka_offset, NULL, e.ingested_at FROM {rows} e
            WHERE e.kafka_incarnation = p.kafka_incarnation AND e.kafka_partition = p.kafka_partition{first_row}
            ORDER BY e.kafka_offset DESC LIMIT :window) AS newest
        WHERE p.stream = :stream AND p.kafka_partition = ANY(CAST(:partitions AS int[]))) AS recent
    ORDER BY at DESC, kafka_offset DESC LIMIT :window"""
_RECENT_OFFSETS = """
    SELECT p.kafka_partition, offsets.kafka_offset, d.reason
    FROM {ledger}.position p
    CROSS JOIN LATERAL generate_series(greatest(p.first_offset, p.next_offset - :window), p.next_offset - 1)
        AS offsets(kafka_offset)
    LEFT JOIN {ledger}.dead_letter d
        ON d.stream = p.stream AND d.kafka_incarnation = p.kafka_incarnation AND d.kafka_partition = p.kafka_partition
           AND d.kafka_offset = offsets.kafka_offset AND d.status = 'open' AND NOT d.allowed
    WHERE p.stream = :stream AND p.kafka_partition = ANY(CAST(:partitions AS int[]))
    ORDER BY p.next_offset - offsets.kafka_offset LIMIT :window"""
_OWN = """
    UPDATE {ledger}.position SET run_id = :run_id
    WHERE stream = :stream AND kafka_partition = ANY(CAST(:partitions AS int[]))"""
_READ = """
    SELECT kafka_partition, kafka_incarnation, next_offset, leader_epoch, run_id, "rows", dead_letters, skipped
    FROM {ledger}.position
    WHERE stream = :stream AND kafka_partition = ANY(CAST(:partitions AS int[])) ORDER BY kafka_partition"""
