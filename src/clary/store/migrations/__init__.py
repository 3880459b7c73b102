"""Alembic's migrations, run by `clary.store.database` when the store opens. They expand first and contract later."""
