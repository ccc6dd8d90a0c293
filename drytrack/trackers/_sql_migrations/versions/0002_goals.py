"""Which metrics are better when lower, and which when higher."""  # noqa: INP001  # run by Alembic, no package

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}


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
