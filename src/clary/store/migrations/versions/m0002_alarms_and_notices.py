"""What alarms did, and notices on their way to subscribers."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "alarm_history",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("account", sa.String(12), nullable=False),
        sa.Column("region", sa.String(32), nullable=False),
        sa.Column("alarm", sa.String(255), nullable=False),
        sa.Column("alarm_type", sa.String(16), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("summary", sa.String(2048), nullable=False),
        sa.Column("data", sa.Text, nullable=False),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("subscription_uid", sa.String(32), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_index("alarm_history_by_alarm", "alarm_history", ["account", "region", "alarm", "at", "id"])
    op.create_index("alarm_history_by_time", "alarm_history", ["account", "region", "at", "id"])
    op.create_index("deliveries_by_subscription", "deliveries", ["subscription_uid", "due_at", "id"])
