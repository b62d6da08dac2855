"""Time of the sensor's last tick. `ingest status` recognizes a switched-off sensor or a stopped daemon by its age."""

import sqlalchemy as sa
from alembic import context, op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    schema = context.config.attributes["ledger_schema"]
    ticked_at = sa.Column(
        "ticked_at", sa.DateTime(timezone=True), comment="when the sensor last looked, written at most once a minute"
    )
    op.add_column("stream_state", ticked_at, schema=schema)


def downgrade() -> None:
    op.drop_column("stream_state", "ticked_at", schema=context.config.attributes["ledger_schema"])
