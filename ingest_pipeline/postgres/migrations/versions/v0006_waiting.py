"""Since when records wait at an unmoved position. Lateness then does not depend on the producers' clocks."""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    column = sa.Column(
        "waiting",
        JSONB,
        comment="partition: its incarnation and next offset, and since when (Unix time) the sensor sees records wait",
    )
    op.add_column("stream_state", column, schema=context.config.attributes["ledger_schema"])


def downgrade() -> None:
    op.drop_column("stream_state", "waiting", schema=context.config.attributes["ledger_schema"])
