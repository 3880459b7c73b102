"""The first tables: resources, their tags, the work on them, their instances and what happened to them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "resources",
        sa.Column("uid", sa.String(32), primary_key=True),
        sa.Column("account", sa.String(12), nullable=False),
        sa.Column("region", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("arn", sa.String(2048), nullable=False),
        sa.Column("parent", sa.String(2048), nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("lower_name", sa.String(256), nullable=False),
        sa.Column("status", sa.String(64), nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("modified_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "tags",
        sa.Column("resource_uid", sa.String(32), primary_key=True),
        sa.Column("key", sa.String(128), primary_key=True),
        sa.Column("value", sa.String(256), nullable=False),
    )
    op.create_table(
        "work",
        sa.Column("kind", sa.String(64), primary_key=True),
        sa.Column("uid", sa.String(32), primary_key=True),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("wishes", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("lease_token", sa.String(32), nullable=False),
        sa.Column("lease_until", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "instances",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("resource_uid", sa.String(32), nullable=False),
        sa.Column("fleet", sa.String(32), nullable=False),
        sa.Column("variant", sa.String(64), nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("incarnation", sa.Integer, nullable=False),
        sa.Column("desired", sa.String(8), nullable=False),
        sa.Column("handle", sa.Text, nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("start_at", sa.BigInteger, nullable=False),
        sa.Column("gone_at", sa.BigInteger, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("resource_uid", sa.String(32), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("step", sa.String(64), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
    op.create_index(
        "resources_by_name", "resources", ["account", "region", "kind", "lower_name"], unique=True
    )
    op.create_index(
        "resources_by_creation", "resources", ["account", "region", "kind", "created_at", "lower_name"]
    )
    op.create_index(
        "resources_by_status",
        "resources",
        ["account", "region", "kind", "status", "created_at", "lower_name"],
    )
    op.create_index("resources_by_parent", "resources", ["parent", "kind"])
    op.create_index("work_by_due", "work", ["due_at"])
    op.create_index("instances_by_resource", "instances", ["resource_uid"])
    op.create_index("events_by_resource", "events", ["resource_uid", "id"])
