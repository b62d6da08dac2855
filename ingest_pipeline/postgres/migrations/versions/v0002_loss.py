"""Losses and limits: what a run found missing, closed incarnations, letters that may pass, and the auditor's view."""

import sqlalchemy as sa
from alembic import context, op

from ingest_pipeline.postgres.sql import in_text

revision = "0002"
down_revision = "0001"

_COUNTERS = ("rows", "dead_letters", "skipped", "absent", "lost")


def upgrade() -> None:
    schema = context.config.attributes["ledger_schema"]
    op.add_column(
        "stream_state",
        sa.Column(
            "letters_allowed",
            sa.BigInteger,
            nullable=False,
            server_default="0",
            comment="so many dead letters may still pass uncounted by the limit",
        ),
        schema=schema,
    )
    op.add_column(
        "stream_state",
        sa.Column(
            "acted_at",
            sa.DateTime(timezone=True),
            comment="when an operator last mended something: runs are tried again",
        ),
        schema=schema,
    )
    op.add_column(
        "dead_letter",
        sa.Column("allowed", sa.Boolean, nullable=False, server_default=sa.false(), comment="uncounted by the limit"),
        schema=schema,
    )
    op.add_column("gap", sa.Column("accepted_by", sa.Text), schema=schema)
    op.create_table(
        "past_position",
        sa.Column("stream", sa.Text, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("kafka_partition", sa.Integer, nullable=False),
        sa.Column("kafka_incarnation", sa.SmallInteger, nullable=False),
        sa.Column("cluster_id", sa.Text),
        sa.Column("topic_id", sa.Text),
        sa.Column("first_offset", sa.BigInteger, nullable=False),
        sa.Column("next_offset", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _COUNTERS),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.PrimaryKeyConstraint("stream", "kafka_partition", "kafka_incarnation", name="past_position_pkey"),
        schema=schema,
        comment="Positions of incarnations that ended: the topic was re-created, or its offsets are used again.",
    )
    op.create_table(
        "loss",
        sa.Column("stream", sa.Text, nullable=False),
        sa.Column("kafka_partition", sa.Integer, nullable=False),
        sa.Column("kafka_incarnation", sa.SmallInteger, nullable=False),
        sa.Column("next_offset", sa.BigInteger, nullable=False),
        sa.Column("low", sa.BigInteger, nullable=False),
        sa.Column("high", sa.BigInteger, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("found_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.PrimaryKeyConstraint("stream", "kafka_partition", name="loss_pkey"),
        schema=schema,
        comment="What Kafka no longer holds, as first seen; until an operator accepts it the stream stands still.",
    )
    op.execute(sa.text(_ACCOUNTING.replace("{ledger}", in_text(schema))))


def downgrade() -> None:
    schema = context.config.attributes["ledger_schema"]
    op.execute(sa.text(f"DROP VIEW {in_text(schema)}.accounting"))
    op.drop_table("loss", schema=schema)
    op.drop_table("past_position", schema=schema)
    op.drop_column("gap", "accepted_by", schema=schema)
    op.drop_column("dead_letter", "allowed", schema=schema)
    op.drop_column("stream_state", "acted_at", schema=schema)
    op.drop_column("stream_state", "letters_allowed", schema=schema)


_ACCOUNTING = """
    CREATE VIEW {ledger}.accounting AS
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
               (SELECT count(*) FROM {ledger}.dead_letter d
                WHERE d.stream = e.stream AND d.kafka_incarnation = e.kafka_incarnation
                  AND d.kafka_partition = e.kafka_partition) AS letters_kept,
               (SELECT coalesce(sum(g.to_offset - g.from_offset), 0)::bigint FROM {ledger}.gap g
                WHERE g.stream = e.stream AND g.kafka_incarnation = e.kafka_incarnation
                  AND g.kafka_partition = e.kafka_partition) AS gaps_kept
        FROM every e)
    SELECT *, unaccounted = 0 AND letters_kept = dead_letters AND gaps_kept = lost AS accounted FROM counted"""
