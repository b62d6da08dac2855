"""What alerts said about each stream, and who posts them. When an operator acknowledged refused records."""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    schema = context.config.attributes["ledger_schema"]
    op.create_table(
        "alert",
        sa.Column("stream", sa.Text, primary_key=True),
        sa.Column("poster", sa.Text, nullable=False, comment="the process that posts about the stream"),
        sa.Column("renewed_at", sa.DateTime(timezone=True), nullable=False, comment="when it last looked"),
        sa.Column(
            "problems",
            JSONB,
            nullable=False,
            server_default="{}",
            comment="problem: since when (Unix time), and whether it was posted",
        ),
        schema=schema,
        comment="Alerts about each stream.",
    )
    acknowledged_at = sa.Column(
        "acknowledged_at", sa.DateTime(timezone=True), comment="when an operator acknowledged the open dead letters"
    )
    op.add_column("stream_state", acknowledged_at, schema=schema)


def downgrade() -> None:
    schema = context.config.attributes["ledger_schema"]
    op.drop_column("stream_state", "acknowledged_at", schema=schema)
    op.drop_table("alert", schema=schema)
