"""What Alembic runs around each upgrade: `database.py` hands in the open connection and its transaction."""

from alembic import context

from clary.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
