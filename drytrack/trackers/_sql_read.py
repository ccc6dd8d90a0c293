"""Reading the metrics of one run by the attempt rule."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from drytrack.core import _codec
from drytrack.core._history import Series, series_name
from drytrack.core.exceptions import RunNotFoundError
from drytrack.trackers import _sql_schema as schema
from drytrack.trackers._sql_curves import AttemptRule, read_curves
from drytrack.trackers._sql_progress import find_breaks

if TYPE_CHECKING:
    from drytrack.trackers.base import SourcedMetrics


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
        .where(sa.or_(runs.c.name == run_id, runs.c.uuid == run_id))
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
    run_id = connection.execute(
        sa.select(schema.runs.c.id).where(schema.runs.c.uuid == uuid)
    ).scalar_one_or_none()
    if run_id is None:
        return {}
    series = schema.series
    found = connection.execute(
        series.select()
        .where(series.c.run_id == run_id)
        .where(series.c.model == model_name)
        .where(series.c.axis == axis)
        .order_by(series.c.id)
    ).all()
    rows = {row.id: row for row in found}
    loaded: SourcedMetrics = {}
    rule = _find_rule(connection, run_id, model_name, axis)
    curves = read_curves(connection, list(rows), rule, max_step)
    for series_id, steps, values in curves:
        row = rows[series_id]
        metric = series_name(row.metric, read_context(row.context))
        of_source = loaded.setdefault(row.source, {})
        curve = of_source.setdefault(metric, Series([], []))
        curve.steps.extend(steps)
        curve.values.extend(values)
    return loaded


def _find_rule(
    connection: sa.Connection, run_id: int, model: str, axis: str
) -> AttemptRule:
    attempts, rewinds, spans = schema.attempts, schema.rewinds, schema.spans
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
    firsts = connection.execute(
        spans.select()
        .where(spans.c.run_id == run_id)
        .where(spans.c.name_key == schema.name_key(model, axis))
    ).all()
    return AttemptRule(
        find_breaks(map(tuple, starts), map(tuple, loads), model),
        [((row.attempt, row.rewind), row.first_step) for row in firsts],
    )


def read_context(text: str) -> dict[str, Any]:
    """Return what `drytrack.trackers._sql_points.context_text` was given."""
    blobs = _codec.Blobs(bytes.fromhex, limit=1 << 20)
    return {key: _codec.decode(item, blobs) for key, item in json.loads(text).items()}
