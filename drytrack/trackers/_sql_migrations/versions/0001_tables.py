"""The first tables.

Runs, their series and points, and all that belongs to them.
"""  # noqa: INP001  # Alembic runs it: no package

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from drytrack.trackers._sql_types import BYTES, ID, OPTIONS, TEXT

revision = "0001"
down_revision = None


def _whole(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), autoincrement=False, nullable=nullable)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, TEXT, nullable=nullable)


def _label(name: str, length: int, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=length), nullable=nullable)


def _float(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Double(), nullable=True)


def _at_step() -> list[sa.Column[Any]]:
    return [_whole("seq"), _text("source"), _text("name"), _whole("step")]


def _of_run(
    name: str, *columns: sa.Column[Any], key: tuple[str, ...] = ("seq",)
) -> None:
    """Create a table whose rows go with their run; by default one for an event."""
    op.create_table(
        name,
        sa.Column("run_id", ID, autoincrement=False, nullable=False),
        *columns,
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", *key),
        **OPTIONS,
    )


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "experiments",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        _label("name_key", 32),
        _text("name"),
        _float("created"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name_key", name="uq_experiments_name_key"),
        **OPTIONS,
    )
    op.create_table(
        "media",
        _label("hash", 64),
        _label("format", 16),
        _whole("size"),
        _text("path", nullable=True),
        sa.Column("content", BYTES, nullable=True),
        sa.PrimaryKeyConstraint("hash"),
        **OPTIONS,
    )
    op.create_table(
        "points",
        sa.Column("series_id", ID, autoincrement=False, nullable=False),
        _whole("step"),
        _whole("seq"),
        _float("value"),
        _label("odd", 4, nullable=True),
        sa.PrimaryKeyConstraint("series_id", "step", "seq"),
        sqlite_with_rowid=False,
        **OPTIONS,
    )
    op.create_table(
        "runs",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        _label("uuid", 36),
        sa.Column("experiment_id", ID, nullable=False),
        _label("name", 255),
        _label("status", 16),
        sa.Column("attempt", sa.Integer(), nullable=False),
        _label("parent_uuid", 36, nullable=True),
        _text("description", nullable=True),
        _text("par_dir", nullable=True),
        _float("created"),
        _float("started"),
        _float("ended"),
        _text("config", nullable=True),
        _text("error", nullable=True),
        _text("record", nullable=True),
        _whole("last_seq"),
        _text("progress", nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("uuid", name="uq_runs_uuid"),
        sa.ForeignKeyConstraint(["experiment_id"], ["experiments.id"]),
        **OPTIONS,
    )
    op.create_index(
        "ix_runs_experiment_id_name", "runs", ["experiment_id", "name"], unique=False
    )
    _of_run(
        "artifacts",
        _whole("seq"),
        _text("name"),
        _text("path"),
        _text("kind"),
        _text("artifact_path", nullable=True),
        _text("metadata"),
    )
    _of_run(
        "attempts",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        _whole("first_seq"),
        _float("started"),
        _float("ended"),
        _label("status", 16, nullable=True),
        key=("number",),
    )
    _of_run(
        "checkpoints",
        _whole("seq"),
        _label("kind", 8),
        _text("model"),
        _text("definition"),
        _text("location"),
        _whole("epoch", nullable=True),
    )
    _of_run(
        "data_tables",
        *_at_step(),
        _text("header"),
        _text("cells"),
    )
    _of_run(
        "events",
        _whole("seq"),
        sa.Column("attempt", sa.Integer(), nullable=False),
        _float("time"),
        _text("type"),
        _text("fields"),
    )
    _of_run(
        "histograms",
        *_at_step(),
        _text("context"),
        _text("counts"),
        _text("bin_edges"),
    )
    _of_run(
        "images",
        *_at_step(),
        _label("kind", 8),
        _text("caption", nullable=True),
        _label("hash", 64),
    )
    _of_run(
        "learning_rates",
        _whole("seq"),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        _text("model"),
        _text("source"),
        _whole("epoch"),
        _text("param_group"),
        _float("lr"),
        _label("odd", 4, nullable=True),
        _text("scheduler", nullable=True),
        key=("seq", "position"),
    )
    _of_run(
        "models",
        _label("name_key", 32),
        _text("name"),
        _text("registered", nullable=True),
        _text("architecture", nullable=True),
        _whole("seq"),
        key=("name_key",),
    )
    for name in ("params", "summary_values"):
        _of_run(
            name,
            _label("name_key", 32),
            _text("name"),
            _text("value"),
            _float("number"),
            _whole("seq"),
            key=("name_key",),
        )
        columns = ["name_key", "number"]
        op.create_index(f"ix_{name}_name_key_number", name, columns, unique=False)
    _of_run(
        "rewinds",
        _whole("seq"),
        sa.Column("attempt", sa.Integer(), nullable=False),
        _text("model"),
        _whole("epoch"),
    )
    op.create_table(
        "series",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("run_id", ID, autoincrement=False, nullable=False),
        _label("name_key", 32),
        _label("metric_key", 32),
        _text("model"),
        _text("source"),
        _text("axis"),
        _text("metric"),
        _text("context"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("run_id", "name_key", name="uq_series_run_id_name_key"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
        **OPTIONS,
    )
    op.create_index(
        "ix_series_metric_key_run_id", "series", ["metric_key", "run_id"], unique=False
    )
    _of_run(
        "sources",
        _label("name_key", 32),
        _text("name"),
        _text("model"),
        _text("registered", nullable=True),
        _text("metadata", nullable=True),
        _whole("seq"),
        key=("name_key",),
    )
    _of_run(
        "spans",
        _label("name_key", 32),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("rewind", sa.Integer(), autoincrement=False, nullable=False),
        _text("model"),
        _text("axis"),
        _whole("first_step"),
        key=("name_key", "attempt", "rewind"),
    )
    _of_run(
        "tags",
        _label("name_key", 32),
        _text("tag"),
        key=("name_key",),
    )
    op.create_index("ix_tags_name_key", "tags", ["name_key"], unique=False)
    _of_run(
        "texts",
        *_at_step(),
        _text("content"),
    )
    op.create_table(
        "series_summaries",
        sa.Column("series_id", ID, autoincrement=False, nullable=False),
        _whole("n"),
        _whole("n_finite"),
        _whole("first_step"),
        _float("first_value"),
        _label("first_odd", 4, nullable=True),
        _whole("last_step"),
        _float("last_value"),
        _label("last_odd", 4, nullable=True),
        _whole("min_step", nullable=True),
        _float("min_value"),
        _whole("max_step", nullable=True),
        _float("max_value"),
        _float("mean"),
        sa.Column("stale", sa.SmallInteger(), nullable=False),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("series_id"),
        **OPTIONS,
    )
