"""The table of goals.

Which metrics are better when lower, and which when higher.
"""  # noqa: INP001  # Alembic runs it: no package

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from drytrack.trackers._sql_types import ID, OPTIONS, TEXT

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the table of goals."""
    op.create_table(
        "goals",
        sa.Column("experiment_id", ID, autoincrement=False, nullable=False),
        sa.Column("name_key", sa.String(length=32), nullable=False),
        sa.Column("metric", TEXT, nullable=False),
        sa.Column("better", sa.String(length=8), nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id"], ["experiments.id"], ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("experiment_id", "name_key"),
        **OPTIONS,
    )
