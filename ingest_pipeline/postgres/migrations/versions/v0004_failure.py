"""Why the newest failed run failed. `ingest status` shows the reason without asking Dagster."""

import sqlalchemy as sa
from alembic import context, op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    schema = context.config.attributes["ledger_schema"]
    for column in (
        sa.Column("failed_at", sa.DateTime(timezone=True), comment="when a run failed last"),
        sa.Column("failure", sa.Text, comment="why, in one line"),
        sa.Column("failure_stops", sa.Boolean, comment="trying again cannot help: somebody has to act"),
    ):
        op.add_column("stream_state", column, schema=schema)


def downgrade() -> None:
    for name in ("failure_stops", "failure", "failed_at"):
        op.drop_column("stream_state", name, schema=context.config.attributes["ledger_schema"])
