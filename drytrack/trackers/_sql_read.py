"""Reading the metrics of one run by the attempt rule."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from drytrack.core import _codec
from drytrack.core._history import Axis, series_name
from drytrack.core.exceptions import RunNotFoundError
from drytrack.trackers import _sql_schema as schema
from drytrack.trackers._sql_progress import attempt_at, find_breaks
from drytrack.trackers._sql_summary import join_float
from drytrack.trackers.base import SourcedMetrics, resolve_axis


def find_uuid(connection: sa.Connection, exp_name: str, run_id: str) -> str:
    """Return the UUID of a run.

    Raises:
        RunNotFoundError: If there is none of that name, or several.
    """
    runs, experiments = schema.runs, schema.experiments
    query = (
        sa.select(runs.c.uuid)
        .join_from(runs, experiments)
        .where(experiments.c.name_key == schema.name_key(exp_name))
        .where(runs.c.name == run_id)
        .order_by(runs.c.id)
    )
    found = connection.execute(query).scalars().all()
    where = schema.describe(connection.engine)
    if not found:
        msg = (
            f"{where} has no run {run_id!r} of experiment {exp_name!r}. Look for its "
            f"names in the tables runs and experiments."
        )
        raise RunNotFoundError(msg)
    if len(found) > 1:
        msg = (
            f"{where} has {len(found)} runs {run_id!r} of experiment {exp_name!r}. Say "
            f"which by its uuid: {', '.join(found)}."
        )
        raise RunNotFoundError(msg)
    return str(found[0])


def load_metrics(
    connection: sa.Connection, uuid: str, model_name: str, max_step: int, axis: str
) -> SourcedMetrics:
    """Return source → metric → steps and values; see `MetricLoader`."""
    series, points = schema.series, schema.points
    run_id = connection.execute(
        sa.select(schema.runs.c.id).where(schema.runs.c.uuid == uuid)
    ).scalar_one_or_none()
    if run_id is None:
        return {}
    found = connection.execute(
        series.select()
        .where(series.c.run_id == run_id)
        .where(series.c.model == model_name)
        .where(series.c.axis == axis)
    ).all()
    keys = {
        row.id: (
            row.source,
            series_name(row.metric, _read_context(row.context)),
        )
        for row in found
    }
    attempts, rewinds = schema.attempts, schema.rewinds
    starts = connection.execute(
        sa.select(attempts.c.number, attempts.c.first_seq).where(
            attempts.c.run_id == run_id
        )
    ).all()
    loads = connection.execute(
        sa.select(rewinds.c.seq, rewinds.c.attempt, rewinds.c.model).where(
            rewinds.c.run_id == run_id
        )
    ).all()
    breaks = find_breaks(starts, map(tuple, loads), model_name)
    query = (
        sa.select(points)
        .join_from(points, series, points.c.series_id == series.c.id)
        .where(series.c.run_id == run_id)
        .where(series.c.model == model_name)
        .where(series.c.axis == axis)
        .order_by(points.c.seq)
        .execution_options(yield_per=10_000)
    )
    history = Axis()
    for series_id, step, seq, value, odd in connection.execute(query):
        attempt = attempt_at(breaks, seq)
        history.add(keys[series_id], attempt, step, join_float(value, odd))
    return resolve_axis(history, max_step)


def _read_context(text: str) -> dict[str, Any]:
    """Return what `drytrack.trackers._sql_points.context_text` was given."""
    blobs = _codec.Blobs(bytes.fromhex, limit=1 << 20)
    return {key: _codec.decode(item, blobs) for key, item in json.loads(text).items()}
