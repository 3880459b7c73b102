"""The tables, as SQLAlchemy Core sees them. `migrations/` makes them; a test holds both to each other.

Times are whole microseconds since the epoch (UTC), JSON is text: both mean the same in SQLite and PostgreSQL.
Every list that a client pages through has an index that ends in what makes its order unique, so that a page is
one range scan however deep it lies.
"""

import sqlalchemy as sa

metadata = sa.MetaData()

resources = sa.Table(
    "resources",
    metadata,
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
    sa.Index("resources_by_name", "account", "region", "kind", "lower_name", unique=True),
    sa.Index("resources_by_creation", "account", "region", "kind", "created_at", "lower_name"),
    sa.Index("resources_by_status", "account", "region", "kind", "status", "created_at", "lower_name"),
    sa.Index("resources_by_parent", "parent", "kind"),
)

tags = sa.Table(
    "tags",
    metadata,
    sa.Column("resource_uid", sa.String(32), primary_key=True),
    sa.Column("key", sa.String(128), primary_key=True),
    sa.Column("value", sa.String(256), nullable=False),
)

work = sa.Table(
    "work",
    metadata,
    sa.Column("kind", sa.String(64), primary_key=True),
    sa.Column("uid", sa.String(32), primary_key=True),
    sa.Column("due_at", sa.BigInteger, nullable=False),
    sa.Column("wishes", sa.Integer, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("lease_token", sa.String(32), nullable=False),
    sa.Column("lease_until", sa.BigInteger, nullable=False),
    sa.Index("work_by_due", "due_at"),
)

instances = sa.Table(
    "instances",
    metadata,
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
    sa.Index("instances_by_resource", "resource_uid"),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("resource_uid", sa.String(32), nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("step", sa.String(64), nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Index("events_by_resource", "resource_uid", "id"),
)

alarm_history = sa.Table(
    "alarm_history",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("account", sa.String(12), nullable=False),
    sa.Column("region", sa.String(32), nullable=False),
    sa.Column("alarm", sa.String(255), nullable=False),
    sa.Column("alarm_type", sa.String(16), nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("type", sa.String(32), nullable=False),
    sa.Column("summary", sa.String(2048), nullable=False),
    sa.Column("data", sa.Text, nullable=False),
    sa.Index("alarm_history_by_alarm", "account", "region", "alarm", "at", "id"),
    sa.Index("alarm_history_by_time", "account", "region", "at", "id"),
)

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("subscription_uid", sa.String(32), nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("due_at", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Index("deliveries_by_subscription", "subscription_uid", "due_at", "id"),
)
