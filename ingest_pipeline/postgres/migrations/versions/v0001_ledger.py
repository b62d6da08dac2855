"""The ledger: positions, dead letters, gaps, stream state, incarnations, and the ledger's own id."""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.postgresql import JSONB

from ingest_pipeline.postgres.sql import in_text

revision = "0001"
down_revision = None


def _now() -> sa.TextClause:
    return sa.text("now()")


def upgrade() -> None:
    schema = context.config.attributes["ledger_schema"]
    op.create_table(
        "ledger",
        sa.Column("id", sa.Uuid, primary_key=True, server_default=sa.text("gen_random_uuid()")),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_now()),
        schema=schema,
        comment="One row: the mark that our group commits in Kafka carry.",
    )
    op.execute(sa.text(f"INSERT INTO {in_text(schema)}.ledger DEFAULT VALUES"))
    op.create_table(
        "position",
        sa.Column("stream", sa.Text, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("kafka_partition", sa.Integer, nullable=False),
        sa.Column("kafka_incarnation", sa.SmallInteger, nullable=False),
        sa.Column("cluster_id", sa.Text),
        sa.Column("topic_id", sa.Text),
        sa.Column("first_offset", sa.BigInteger, nullable=False),
        sa.Column("next_offset", sa.BigInteger, nullable=False),
        sa.Column("leader_epoch", sa.Integer),
        *(
            sa.Column(name, sa.BigInteger, nullable=False, server_default="0")
            for name in ("rows", "dead_letters", "skipped", "absent", "lost")
        ),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=_now()),
        sa.Column("run_id", sa.Text),
        sa.PrimaryKeyConstraint("stream", "kafka_partition", name="position_pkey"),
        sa.CheckConstraint(
            'next_offset - first_offset = "rows" + dead_letters + skipped + absent + lost', name="accounted_for"
        ),
        schema=schema,
        postgresql_with={"fillfactor": "50"},
        comment="The truth about what was ingested: every offset below next_offset is accounted for.",
    )
    op.create_table(
        "dead_letter",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("stream", sa.Text, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("kafka_incarnation", sa.SmallInteger, nullable=False),
        sa.Column("kafka_partition", sa.Integer, nullable=False),
        sa.Column("kafka_offset", sa.BigInteger, nullable=False),
        sa.Column("kafka_timestamp_ms", sa.BigInteger),
        sa.Column("key", sa.LargeBinary),
        sa.Column("value", sa.LargeBinary),
        sa.Column("value_bytes", sa.BigInteger, nullable=False),
        sa.Column("value_sha256", sa.LargeBinary, nullable=False),
        sa.Column("truncated", sa.Boolean, nullable=False),
        sa.Column("headers", JSONB, comment="list of [key, base64 of the value]; keys may repeat"),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("sqlstate", sa.Text),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=False, server_default=_now()),
        sa.Column("status", sa.Text, nullable=False, server_default="open"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="1"),
        sa.Column("resolved_at", sa.DateTime(timezone=True)),
        sa.UniqueConstraint(
            "stream", "kafka_incarnation", "kafka_partition", "kafka_offset", name="dead_letter_coordinates"
        ),
        sa.CheckConstraint("status IN ('open', 'redriven', 'discarded')", name="known_status"),
        schema=schema,
        comment="Records that could not become a row, with their bytes and the reason.",
    )
    op.create_table(
        "gap",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("stream", sa.Text, nullable=False),
        sa.Column("kafka_partition", sa.Integer, nullable=False),
        sa.Column("kafka_incarnation", sa.SmallInteger, nullable=False),
        sa.Column("from_offset", sa.BigInteger, nullable=False),
        sa.Column("to_offset", sa.BigInteger, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("detected_at", sa.DateTime(timezone=True), nullable=False, server_default=_now()),
        sa.Column("run_id", sa.Text),
        schema=schema,
        comment="Ranges an operator accepted as lost: from_offset inclusive, to_offset exclusive.",
    )
    op.create_table(
        "stream_state",
        sa.Column("stream", sa.Text, primary_key=True),
        sa.Column("paused", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("reason", sa.Text),
        sa.Column("paused_by", sa.Text),
        sa.Column("since", sa.DateTime(timezone=True)),
        sa.Column("awaited_since", sa.DateTime(timezone=True), comment="the topic did not exist when first looked for"),
        schema=schema,
        comment="What an operator asks of whoever drains.",
    )
    op.create_table(
        "incarnation",
        sa.Column("event_table", sa.Text, primary_key=True),
        sa.Column("last", sa.SmallInteger, nullable=False),
        schema=schema,
        comment="The newest kafka_incarnation allotted for an event table.",
    )


def downgrade() -> None:
    schema = context.config.attributes["ledger_schema"]
    for table in ("incarnation", "stream_state", "gap", "dead_letter", "position", "ledger"):
        op.drop_table(table, schema=schema)
