"""Writing the points of a run: series, points, spans and summaries.

What is known here is what the database has. It is dropped when a transaction
fails, and read again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from drytrack.core._codec import dumps, encode
from drytrack.core._history import Attempt
from drytrack.trackers import _sql_schema, _sql_summary
from drytrack.trackers._sql_curves import AttemptRule
from drytrack.trackers._sql_summary import (
    Summary,
    is_ascending,
    is_odd,
    join_float,
    split_float,
)

if TYPE_CHECKING:
    from drytrack.trackers._sql_insert import Inserter

_FINITE = ("series_id", "step", "seq", "value")
_ODD = ("series_id", "step", "seq", "value", "odd")
_SERIES = (
    "run_id",
    "name_key",
    "metric_key",
    "model",
    "source",
    "axis",
    "metric",
    "context",
)
_SPANS = ("run_id", "name_key", "attempt", "rewind", "model", "axis", "first_step")

QUICK_REBUILD = 2_000
"""Points up to which a summary that cannot be extended is rebuilt at once."""

Group = tuple[str, str, str, str]
"""Model, source, axis and context of metrics that are published together."""

Break = tuple[int, Attempt]
"""First seq of an attempt, and the attempt."""

BreaksOf = Callable[[str], Sequence[Break]]


class Bucket:
    """Metrics of one group, in the order of their publication."""

    __slots__ = ("metrics", "seqs", "steps")

    def __init__(self) -> None:
        """Start empty."""
        self.steps: list[int] = []
        self.seqs: list[int] = []
        self.metrics: list[Mapping[str, float]] = []

    def add(self, step: int, seq: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of an event."""
        if metrics:
            self.steps.append(step)
            self.seqs.append(seq)
            self.metrics.append(metrics)

    def columns(self) -> dict[str, tuple[list[int], list[int], list[float]]]:
        """Return steps, seqs and values of each metric."""
        metrics = self.metrics
        names = list(metrics[0]) if metrics else []
        n = len(names)
        if all(len(each) == n for each in metrics):
            try:
                return {
                    name: (self.steps, self.seqs, [each[name] for each in metrics])
                    for name in names
                }
            except KeyError:  # as many, but others
                pass
        found: dict[str, tuple[list[int], list[int], list[float]]] = {}
        for step, seq, each in zip(self.steps, self.seqs, metrics, strict=True):
            for name, value in each.items():
                if name not in found:
                    found[name] = ([], [], [])
                steps, seqs, values = found[name]
                steps.append(step)
                seqs.append(seq)
                values.append(value)
        return found


def context_text(context: Mapping[str, Any]) -> str:
    """Return the context of a series as text, the same for the same labels."""
    if not context:
        return "{}"
    labels = {key: encode(context[key], bytes.hex) for key in sorted(context)}
    return dumps(labels).decode()


class PointWriter:
    """Writes the points of one run, in a transaction of the caller's."""

    def __init__(self, inserter: Inserter) -> None:
        """Know nothing; see `load`."""
        self._inserter = inserter
        self._run_id = 0
        self._series: dict[Group, dict[str, Summary]] = {}
        self._spans: dict[tuple[str, str], dict[Attempt, int]] = {}
        self._stale: dict[int, tuple[str, str]] = {}

    def load(self, connection: sa.Connection, run_id: int) -> None:
        """Read what the database has of a run; called once."""
        self._run_id = run_id
        spans = _sql_schema.spans
        for row in connection.execute(spans.select().where(spans.c.run_id == run_id)):
            known = self._spans.setdefault((row.model, row.axis), {})
            known[row.attempt, row.rewind] = row.first_step
        series, summaries = _sql_schema.series, _sql_schema.series_summaries
        query = (
            sa.select(series, summaries)
            .join_from(series, summaries, isouter=True)
            .where(series.c.run_id == run_id)
        )
        for row in connection.execute(query):
            fresh = row.series_id is None
            summary = Summary(row.id) if fresh else Summary.from_row(row)
            group = row.model, row.source, row.axis, row.context
            self._series.setdefault(group, {})[row.metric] = summary
            if summary.stale:
                self._stale[summary.series_id] = (row.model, row.axis)

    def write(
        self,
        connection: sa.Connection,
        buckets: Mapping[Group, Bucket],
        attempts: Mapping[str, Attempt],
        breaks: BreaksOf,
        committed: int,
    ) -> None:
        """Write points of one attempt of each model.

        Args:
            connection: Where to.
            buckets: The points.
            attempts: The attempt that is on, by model.
            breaks: Returns all attempts of a model.
            committed: The newest seq that the database has: whatever is not
                behind it may be there already.
        """
        columns = {group: bucket.columns() for group, bucket in buckets.items()}
        self._add_series(connection, columns)
        finite: list[Any] = []
        odd: list[Any] = []
        doubtful: dict[int, Summary] = {}
        for group, metrics in columns.items():
            steps = buckets[group].steps
            if not steps:
                continue
            model, axis = group[0], group[2]
            self._widen(connection, model, axis, attempts[model], min(steps), doubtful)
            ascending = is_ascending(steps)
            for name, (at, seqs, values) in metrics.items():
                summary = self._series[group][name]
                _lay_out(summary.series_id, at, seqs, values, finite, odd)
                follows = summary.last_step is None or at[0] > summary.last_step
                fits = ascending if at is steps else is_ascending(at)
                if follows and fits and seqs[0] > committed and not summary.stale:
                    summary.extend(at, values)
                else:
                    doubtful[summary.series_id] = summary
                    self._stale[summary.series_id] = (model, axis)
        self._inserter.insert_flat(connection, _sql_schema.points, _FINITE, finite)
        if odd:
            self._inserter.insert_flat(connection, _sql_schema.points, _ODD, odd)
        for summary in doubtful.values():
            if summary.n <= QUICK_REBUILD and not summary.stale:
                self._rebuild(connection, summary, breaks)
            elif not summary.stale:
                summary.stale = summary.changed = True

    def save_summaries(
        self,
        connection: sa.Connection,
        breaks: BreaksOf,
        *,
        final: bool,
    ) -> None:
        """Write the summaries that have changed.

        Args:
            connection: Where to.
            breaks: Returns all attempts of a model.
            final: Whether the stale ones are rebuilt, whatever that takes.
        """
        rows = []
        for group in self._series.values():
            for summary in group.values():
                if final and summary.stale:
                    self._rebuild(connection, summary, breaks)
                if summary.changed:
                    rows.append(summary.row())
                    summary.changed = False
        table = _sql_schema.series_summaries
        self._inserter.insert(connection, table, _sql_summary.COLUMNS, rows, "replace")

    # -- inside ------------------------------------------------------------------

    def _add_series(
        self, connection: sa.Connection, columns: Mapping[Group, Mapping[str, Any]]
    ) -> None:
        """Make the series that are not there yet."""
        new: dict[str, tuple[Group, str]] = {}
        for group, metrics in columns.items():
            known = self._series.setdefault(group, {})
            if metrics.keys() <= known.keys():
                continue
            for name in metrics:
                if name not in known:
                    new[_sql_schema.name_key(*group, name)] = group, name
        if not new:
            return
        rows = [
            (
                self._run_id,
                key,
                _sql_schema.name_key(metric),
                *group[:3],
                metric,
                group[3],
            )
            for key, (group, metric) in new.items()
        ]
        table = _sql_schema.series
        self._inserter.insert(connection, table, _SERIES, rows)
        query = sa.select(table.c.id, table.c.name_key)
        query = query.where(table.c.run_id == self._run_id)
        if len(new) <= 100:  # one statement, whatever the limits
            query = query.where(table.c.name_key.in_(list(new)))
        for series_id, key in connection.execute(query):
            if key in new:
                group, metric = new[key]
                self._series[group][metric] = Summary(series_id)

    def _widen(
        self,
        connection: sa.Connection,
        model: str,
        axis: str,
        attempt: Attempt,
        first: int,
        doubtful: dict[int, Summary],
    ) -> None:
        """Note where an attempt begins on an axis, and what it makes void."""
        span = self._spans.setdefault((model, axis), {})
        known = span.get(attempt)
        if known is not None and known <= first:
            return
        span[attempt] = first
        key = _sql_schema.name_key(model, axis)
        row = (self._run_id, key, *attempt, model, axis, first)
        self._inserter.insert(connection, _sql_schema.spans, _SPANS, [row], "replace")
        if len(span) == 1:
            return
        for group, summaries in self._series.items():
            if (group[0], group[2]) == (model, axis):
                for summary in summaries.values():
                    if summary.last_step is not None and summary.last_step >= first:
                        doubtful[summary.series_id] = summary
                        self._stale[summary.series_id] = (model, axis)

    def _rebuild(
        self,
        connection: sa.Connection,
        summary: Summary,
        breaks: BreaksOf,
    ) -> None:
        model, axis = self._stale.pop(summary.series_id)
        table = _sql_schema.points
        query = (
            sa.select(table.c.step, table.c.seq, table.c.value, table.c.odd)
            .where(table.c.series_id == summary.series_id)
            .order_by(table.c.step, table.c.seq)
            .execution_options(yield_per=10_000)
        )
        span = self._spans.get((model, axis), {})
        rule = AttemptRule(breaks(model), span.items())
        found = connection.execute(query)
        points = ((step, seq, join_float(v, odd)) for step, seq, v, odd in found)
        summary.rebuild(points, rule.counts)


def _lay_out(
    series_id: int,
    steps: list[int],
    seqs: list[int],
    values: list[float],
    finite: list[Any],
    odd: list[Any],
) -> None:
    """Append the rows of one series, flat."""
    if not math.isfinite(sum(values)) or 0.0 in values:
        keep = [not is_odd(value) for value in values]
        for step, seq, value, is_kept in zip(steps, seqs, values, keep, strict=True):
            if not is_kept:
                odd += (series_id, step, seq, *split_float(value))
        steps = _choose(steps, keep)
        seqs = _choose(seqs, keep)
        values = _choose(values, keep)
    n = len(values)
    flat: list[Any] = [series_id] * (4 * n)
    flat[1::4] = steps
    flat[2::4] = seqs
    flat[3::4] = values
    finite += flat


def _choose(items: Iterable[Any], keep: Iterable[bool]) -> list[Any]:
    return [item for item, is_kept in zip(items, keep, strict=True) if is_kept]
