"""What Alembic runs.

The connection comes from `drytrack.trackers._sql_upgrade`.
"""  # noqa: INP001  # Alembic runs it: no package

from __future__ import annotations

from alembic import context

from drytrack.trackers import _sql_schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=_sql_schema.metadata,
    version_table=_sql_schema.VERSION_TABLE,
    version_table_pk=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
