"""The charts of a report as plain data: curves reduced to what can be seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from drytrack.trackers._plot_points import (
    MAX_POINTS,
    Floats,
    find_dots,
    find_odd,
    reduce,
    spread,
)

if TYPE_CHECKING:
    from drytrack._report_contents import Contents
    from drytrack.core._history import Series
    from drytrack.trackers._plot_media import Medium

MAX_ALL_POINTS = 120_000
"""Points of all curves of a page together."""

MIN_POINTS = 100
"""Points that a curve may have however many there are."""

N_BINS = 48
"""Bins of a histogram's history, whose own bins change from step to step."""

_WIDEST = 1e300
"""Half of a histogram's span at most."""

_DIGITS = 9
"""Digits of a value in a page; a screen shows four."""


class Line(NamedTuple):
    """A series, and where it is drawn.

    Attributes:
        model: Name of the model; "" for none.
        axis: What its steps count.
        metric: The panel.
        label: What the legend calls it.
        series: Its points.
    """

    model: str
    axis: str
    metric: str
    label: str
    series: Series


def metric_lines(contents: Mapping[str, Contents]) -> Iterator[Line]:
    """Yield the curves of metrics, run by run.

    Args:
        contents: What to call a run ("" where there is only one) → the run's.
    """
    for name, known in contents.items():
        for key, series in known.series.items():
            label = _join(name, key.source)
            yield Line(key.model, key.axis, key.metric, label, series)


def rate_lines(contents: Mapping[str, Contents]) -> Iterator[Line]:
    """Yield the curves of learning rates; arguments as for `metric_lines`."""
    for name, known in contents.items():
        for model, source, group, series in known.learning_rates():
            label = _join(name, source, f"group {group}" if group else "")
            yield Line(model, "epoch", "learning rate", label, series)


def _join(*parts: str) -> str:
    return " · ".join(filter(None, parts))


def build_charts(lines: Iterable[Line]) -> list[dict[str, Any]]:
    """Return a group of panels for each model and axis, epochs first.

    In a group a label has the same color in all panels.
    """
    found = list(lines)
    limit = MAX_ALL_POINTS // max(len(found), 1)
    limit = min(max(limit, MIN_POINTS), MAX_POINTS)
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    models = {line.model: None for line in found}
    order = [(model, axis) for model in models for axis in _axes(found, model)]
    for key in order:
        groups[key] = {"model": key[0], "axis": key[1], "labels": [], "panels": {}}
    for line in found:
        group = groups[line.model, line.axis]
        if line.label not in group["labels"]:
            group["labels"].append(line.label)
        curve = {
            "color": group["labels"].index(line.label),
            **build_curve(line.series, limit),
        }
        group["panels"].setdefault(line.metric, []).append(curve)
    for group in groups.values():
        group["panels"] = [
            {"metric": metric, "curves": curves}
            for metric, curves in group["panels"].items()
        ]
    return list(groups.values())


def _axes(lines: Sequence[Line], model: str) -> list[str]:
    axes = dict.fromkeys(line.axis for line in lines if line.model == model)
    return sorted(axes, key=lambda axis: (axis != "epoch", axis != "step"))


def build_curve(series: Series, limit: int) -> dict[str, Any]:
    """Return a curve as JSON takes it.

    Args:
        series: The points.
        limit: How many of them at most.

    Returns:
        ``x`` and ``y`` with peaks and gaps kept; ``dots``, the indices of the
        points that no line reaches; ``marks``, kind → the steps of what is not
        finite; and, where points were left out, ``mean``: step, mean and number
        of the finite values of each bucket, from which it is smoothed.
    """
    steps = np.asarray(series.steps, np.float64)
    values = np.asarray(series.values, np.float64)
    finite = np.isfinite(values)
    shown = np.where(finite, values, np.nan)
    keep = reduce(steps, shown, limit=limit)
    curve = {
        "x": _integers(steps[keep]),
        "y": _floats(shown[keep]),
        "dots": find_dots(shown[keep]).tolist(),
        "marks": {
            kind: _integers(spread(steps[where]))
            for kind, where in find_odd(values).items()
            if where.any()
        },
    }
    if len(keep) < len(steps):
        curve["mean"] = _average(steps, shown, finite, limit // 2)
    return curve


def _average(
    steps: Floats, values: Floats, finite: Any, n_buckets: int
) -> list[list[Any]]:
    """Return step, mean and count of each bucket; None for a mean of nothing."""
    begins = np.linspace(0, len(steps), n_buckets, endpoint=False).astype(np.intp)
    count = np.add.reduceat(finite.astype(np.int64), begins)
    # Shares of the mean, since a sum of large values may be none.
    share = np.repeat(np.maximum(count, 1), np.diff([*begins, len(steps)]))
    mean = np.add.reduceat(np.where(finite, values, 0.0) / share, begins)
    middle = np.add.reduceat(steps, begins) / np.diff([*begins, len(steps)])
    mean = np.where(count > 0, mean, np.nan)
    return [_floats(middle), _floats(mean), count.tolist()]


def build_history(medium: Medium) -> dict[str, Any] | None:
    """Return histograms of all steps over the same bins, as shares of each step.

    None where no axis can hold them: nothing can be computed with such a span.
    """
    events = [event for event in medium.events if _is_drawable(event)]
    if not events:
        return None
    lows = [event.bin_edges[0] for event in events]
    highs = [event.bin_edges[-1] for event in events]
    edges = np.linspace(min(lows), max(highs), N_BINS + 1)
    columns = [_rebin(event, edges) for event in events]
    return {
        "steps": [event.step for event in events],
        "edges": _floats(edges),
        "shares": [_floats(column) for column in columns],
        "newest": {
            "edges": _floats(np.asarray(events[-1].bin_edges, np.float64)),
            "counts": _floats(np.asarray(events[-1].counts, np.float64)),
        },
    }


def _is_drawable(event: Any) -> bool:
    edges = event.bin_edges
    return bool(edges[-1] / 2 - edges[0] / 2 < _WIDEST)


def _rebin(event: Any, edges: Floats) -> Floats:
    """Return which share of a histogram's counts falls into each bin."""
    counts = np.asarray(event.counts, np.float64)
    below = np.concatenate([[0.0], np.cumsum(counts)])
    at = np.interp(edges, np.asarray(event.bin_edges, np.float64), below)
    shares: Floats = np.diff(at) / (below[-1] or 1.0)
    return shares


def _integers(values: Floats) -> list[int]:
    return [int(value) for value in values.tolist()]


def _floats(values: Floats) -> list[float | None]:
    return [
        float(f"{value:.{_DIGITS}g}") if value - value == 0 else None
        for value in values.tolist()
    ]
