"""The first tables: runs, their series and points, and all that belongs to them."""  # noqa: INP001  # run by Alembic, no package

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
BYTES = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "experiments",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("name_key", sa.String(length=32), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("created", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name_key", name="uq_experiments_name_key"),
        **OPTIONS,
    )
    op.create_table(
        "media",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("format", sa.String(length=16), nullable=False),
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("path", TEXT, nullable=True),
        sa.Column("content", BYTES, nullable=True),
        sa.PrimaryKeyConstraint("hash"),
        **OPTIONS,
    )
    op.create_table(
        "points",
        sa.Column("series_id", ID, autoincrement=False, nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("odd", sa.String(length=4), nullable=True),
        sa.PrimaryKeyConstraint("series_id", "step", "seq"),
        sqlite_with_rowid=False,
        **OPTIONS,
    )
    op.create_table(
        "runs",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("experiment_id", ID, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("parent_uuid", sa.String(length=36), nullable=True),
        sa.Column("description", TEXT, nullable=True),
        sa.Column("par_dir", TEXT, nullable=True),
        sa.Column("created", sa.Double(), nullable=True),
        sa.Column("started", sa.Double(), nullable=True),
        sa.Column("ended", sa.Double(), nullable=True),
        sa.Column("config", TEXT, nullable=True),
        sa.Column("error", TEXT, nullable=True),
        sa.Column("record", TEXT, nullable=True),
        sa.Column("last_seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("progress", TEXT, nullable=True),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiments.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("uuid", name="uq_runs_uuid"),
        **OPTIONS,
    )
    op.create_index(
        "ix_runs_experiment_id_name", "runs", ["experiment_id", "name"], unique=False
    )
    op.create_table(
        "artifacts",
        sa.Column("run_id", ID, autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("path", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("artifact_path", TEXT, nullable=True),
        sa.Column("metadata", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "seq"),
        **OPTIONS,
    )
    op.create_table(
        "attempts",
        sa.Column("run_id", ID, autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("first_seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("started", sa.Double(), nullable=True),
        sa.Column("ended", sa.Double(), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "number"),
        **OPTIONS,
    )
    op.create_table(
        "checkpoints",
        sa.Column("run_id", ID, autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("definition", TEXT, nullable=False),
        sa.Column("location", TEXT, nullable=False),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "seq"),
        **OPTIONS,
    )
    op.create_table(
        "data_tables",
        sa.Column("run_id", ID, autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("header", TEXT, nullable=False),
        sa.Column("cells", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "seq"),
        **OPTIONS,
    )
    op.create_table(
        "events",
        sa.Column("run_id", ID, autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("time", sa.Double(), nullable=True),
        sa.Column("type", TEXT, nullable=False),
        sa.Column("fields", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "seq"),
        **OPTIONS,
    )
    op.create_table(
        "histograms",
        sa.Column("run_id", ID, autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("context", TEXT, nullable=False),
        sa.Column("counts", TEXT, nullable=False),
        sa.Column("bin_edges", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "seq"),
        **OPTIONS,
    )
    op.create_table(
        "images",
        sa.Column("run_id", ID, autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("caption", TEXT, nullable=True),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "seq"),
        **OPTIONS,
    )
    op.create_table(
        "learning_rates",
        sa.Column("run_id", ID, autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("param_group", TEXT, nullable=False),
        sa.Column("lr", sa.Double(), nullable=True),
        sa.Column("odd", sa.String(length=4), nullable=True),
        sa.Column("scheduler", TEXT, nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "seq", "position"),
        **OPTIONS,
    )
    op.create_table(
        "models",
        sa.Column("run_id", ID, autoincrement=False, nullable=False),
        sa.Column("name_key", sa.String(length=32), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("registered", TEXT, nullable=True),
        sa.Column("architecture", TEXT, nullable=True),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "name_key"),
        **OPTIONS,
    )
    op.create_table(
        "params",
        sa.Column("run_id", ID, autoincrement=False, nullable=False),
        sa.Column("name_key", sa.String(length=32), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("value", TEXT, nullable=False),
        sa.Column("number", sa.Double(), nullable=True),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "name_key"),
        **OPTIONS,
    )
    op.create_index(
        "ix_params_name_key_number", "params", ["name_key", "number"], unique=False
    )
    op.create_table(
        "rewinds",
        sa.Column("run_id", ID, autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "seq"),
        **OPTIONS,
    )
    op.create_table(
        "series",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("run_id", ID, autoincrement=False, nullable=False),
        sa.Column("name_key", sa.String(length=32), nullable=False),
        sa.Column("metric_key", sa.String(length=32), nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("axis", TEXT, nullable=False),
        sa.Column("metric", TEXT, nullable=False),
        sa.Column("context", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("run_id", "name_key", name="uq_series_run_id_name_key"),
        **OPTIONS,
    )
    op.create_index(
        "ix_series_metric_key_run_id", "series", ["metric_key", "run_id"], unique=False
    )
    op.create_table(
        "sources",
        sa.Column("run_id", ID, autoincrement=False, nullable=False),
        sa.Column("name_key", sa.String(length=32), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("registered", TEXT, nullable=True),
        sa.Column("metadata", TEXT, nullable=True),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "name_key"),
        **OPTIONS,
    )
    op.create_table(
        "spans",
        sa.Column("run_id", ID, autoincrement=False, nullable=False),
        sa.Column("name_key", sa.String(length=32), nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("rewind", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("axis", TEXT, nullable=False),
        sa.Column("first_step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "name_key", "attempt", "rewind"),
        **OPTIONS,
    )
    op.create_table(
        "summary_values",
        sa.Column("run_id", ID, autoincrement=False, nullable=False),
        sa.Column("name_key", sa.String(length=32), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("value", TEXT, nullable=False),
        sa.Column("number", sa.Double(), nullable=True),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "name_key"),
        **OPTIONS,
    )
    op.create_index(
        "ix_summary_values_name_key_number",
        "summary_values",
        ["name_key", "number"],
        unique=False,
    )
    op.create_table(
        "tags",
        sa.Column("run_id", ID, autoincrement=False, nullable=False),
        sa.Column("name_key", sa.String(length=32), nullable=False),
        sa.Column("tag", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "name_key"),
        **OPTIONS,
    )
    op.create_index("ix_tags_name_key", "tags", ["name_key"], unique=False)
    op.create_table(
        "texts",
        sa.Column("run_id", ID, autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("content", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "seq"),
        **OPTIONS,
    )
    op.create_table(
        "series_summaries",
        sa.Column("series_id", ID, autoincrement=False, nullable=False),
        sa.Column("n", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("n_finite", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("first_step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("first_value", sa.Double(), nullable=True),
        sa.Column("first_odd", sa.String(length=4), nullable=True),
        sa.Column("last_step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last_value", sa.Double(), nullable=True),
        sa.Column("last_odd", sa.String(length=4), nullable=True),
        sa.Column("min_step", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.Column("min_value", sa.Double(), nullable=True),
        sa.Column("max_step", sa.BigInteger(), autoincrement=False, nullable=True),
        sa.Column("max_value", sa.Double(), nullable=True),
        sa.Column("mean", sa.Double(), nullable=True),
        sa.Column("stale", sa.SmallInteger(), nullable=False),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("series_id"),
        **OPTIONS,
    )
