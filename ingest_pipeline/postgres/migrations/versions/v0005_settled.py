"""Counters of settled letters and indexes of open letters. Queries then need not read every dead letter.

Building the indexes blocks writes of dead letters for some seconds per million. Runs retry meanwhile.
"""

import sqlalchemy as sa
from alembic import context, op

from ingest_pipeline.postgres.sql import in_text

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    schema = context.config.attributes["ledger_schema"]
    op.create_table(
        "settled_letters",
        sa.Column("stream", sa.Text, nullable=False),
        sa.Column("kafka_incarnation", sa.SmallInteger, nullable=False),
        sa.Column("kafka_partition", sa.Integer, nullable=False),
        *(
            sa.Column(name, sa.BigInteger, nullable=False, server_default="0")
            for name in ("redriven", "discarded", "purged")
        ),
        sa.PrimaryKeyConstraint("stream", "kafka_incarnation", "kafka_partition", name="settled_letters_pkey"),
        schema=schema,
        postgresql_with={"fillfactor": "50"},
        comment="How many dead letters were redriven or discarded, and how many of these were purged since.",
    )
    for statement in (_FUNCTION, _TRIGGER, _FILL, *_INDEXES, _ACCOUNTING):
        op.execute(sa.text(statement.replace("{ledger}", in_text(schema))))


def downgrade() -> None:
    schema = context.config.attributes["ledger_schema"]
    for statement in (*_DROPS, _ACCOUNTING_BEFORE):
        op.execute(sa.text(statement.replace("{ledger}", in_text(schema))))
    op.drop_table("settled_letters", schema=schema)


# One statement may settle thousands of letters, so the trigger fires once a statement. The counters are locked in the
# order of their key, so that two statements never wait for each other.
_FUNCTION = """
    CREATE FUNCTION {ledger}.count_settled_letters() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO {ledger}.settled_letters AS s (stream, kafka_incarnation, kafka_partition, redriven, discarded)
        SELECT n.stream, n.kafka_incarnation, n.kafka_partition,
               count(*) FILTER (WHERE n.status = 'redriven') - count(*) FILTER (WHERE o.status = 'redriven'),
               count(*) FILTER (WHERE n.status = 'discarded') - count(*) FILTER (WHERE o.status = 'discarded')
        FROM old_letters o JOIN new_letters n USING (id)
        WHERE n.status <> o.status
        GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        ON CONFLICT (stream, kafka_incarnation, kafka_partition) DO UPDATE
        SET redriven = s.redriven + excluded.redriven, discarded = s.discarded + excluded.discarded;
        RETURN NULL;
    END $$"""
_TRIGGER = """
    CREATE TRIGGER count_settled_letters AFTER UPDATE ON {ledger}.dead_letter
    REFERENCING OLD TABLE AS old_letters NEW TABLE AS new_letters
    FOR EACH STATEMENT EXECUTE FUNCTION {ledger}.count_settled_letters()"""
_FILL = """
    INSERT INTO {ledger}.settled_letters (stream, kafka_incarnation, kafka_partition, redriven, discarded)
    SELECT stream, kafka_incarnation, kafka_partition, count(*) FILTER (WHERE status = 'redriven'),
           count(*) FILTER (WHERE status = 'discarded')
    FROM {ledger}.dead_letter WHERE status <> 'open' GROUP BY 1, 2, 3"""
_INDEXES = (
    "CREATE INDEX dead_letter_open ON {ledger}.dead_letter (stream, id) WHERE status = 'open'",
    """CREATE INDEX dead_letter_open_coordinates
       ON {ledger}.dead_letter (stream, kafka_incarnation, kafka_partition, kafka_offset)
       INCLUDE (stage, sqlstate, allowed) WHERE status = 'open'""",
    """CREATE INDEX dead_letter_settled ON {ledger}.dead_letter (stream, coalesce(resolved_at, failed_at))
       WHERE status <> 'open'""",
)
_DROPS = (
    "DROP INDEX {ledger}.dead_letter_open",
    "DROP INDEX {ledger}.dead_letter_open_coordinates",
    "DROP INDEX {ledger}.dead_letter_settled",
    "DROP TRIGGER count_settled_letters ON {ledger}.dead_letter",
    "DROP FUNCTION {ledger}.count_settled_letters()",
)
_VIEW = """
    CREATE OR REPLACE VIEW {ledger}.accounting AS
    WITH every AS (
        SELECT stream, topic, kafka_partition, kafka_incarnation, first_offset, next_offset, "rows", dead_letters,
               skipped, absent, lost, updated_at, true AS current
        FROM {ledger}.position
        UNION ALL
        SELECT stream, topic, kafka_partition, kafka_incarnation, first_offset, next_offset, "rows", dead_letters,
               skipped, absent, lost, updated_at, false
        FROM {ledger}.past_position),
    counted AS (
        SELECT e.*, e.next_offset - e.first_offset - e."rows" - e.dead_letters - e.skipped - e.absent - e.lost
                   AS unaccounted,
               {letters} AS letters_kept,
               (SELECT coalesce(sum(g.to_offset - g.from_offset), 0)::bigint FROM {ledger}.gap g
                WHERE g.stream = e.stream AND g.kafka_incarnation = e.kafka_incarnation
                  AND g.kafka_partition = e.kafka_partition) AS gaps_kept
        FROM every e)
    SELECT *, unaccounted = 0 AND letters_kept = dead_letters AND gaps_kept = lost AS accounted FROM counted"""
_COUNT = """(SELECT count(*) FROM {ledger}.dead_letter d
                WHERE d.stream = e.stream AND d.kafka_incarnation = e.kafka_incarnation
                  AND d.kafka_partition = e.kafka_partition{narrowed})"""
_SETTLED = """coalesce((SELECT s.redriven + s.discarded FROM {ledger}.settled_letters s
                WHERE s.stream = e.stream AND s.kafka_incarnation = e.kafka_incarnation
                  AND s.kafka_partition = e.kafka_partition), 0)"""
_OPEN = _COUNT.replace("{narrowed}", " AND d.status = 'open'")
_ACCOUNTING = _VIEW.replace("{letters}", f"{_OPEN} + {_SETTLED}")
_ACCOUNTING_BEFORE = _VIEW.replace("{letters}", _COUNT.replace("{narrowed}", ""))
