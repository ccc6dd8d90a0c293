"""What a plot shows, whatever draws it: curves, their gaps, bands, and few points."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from drytrack.trackers._plot_points import (
    Floats,
    Indices,
    find_dots,
    find_odd,
    pad,
    reduce,
    smooth,
    spread,
)

if TYPE_CHECKING:
    from drytrack.trackers._plot_view import View
    from drytrack.trackers.base import Series, SourcedMetrics


# As parts of a panel's height.
_MARK_EDGE, _MARK_STEP, _MARK_SLOTS = 0.02, 0.045, 6


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """Steps at which a curve has a value that no line can show.

    Attributes:
        kind: ``"nan"``, ``"inf"``, ``"-inf"``, or ``"<= 0"`` on a log scale.
        steps: Where, ascending, at most 200 of them, evenly spread.
    """

    kind: str
    steps: Floats


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One line of a panel, reduced to what can be seen.

    Attributes:
        label: What the legend calls it.
        color: Its place in the palette; the same in all panels of a figure.
        steps: Epochs or steps, ascending, shape (n,).
        values: One value for each, shape (n,); NaN breaks the line.
        dots: Indices of the points to draw as dots: all of a short curve, and
            those that no line reaches.
        low: Lower edge of the band, shape (n,), or None.
        high: Upper edge of the band, shape (n,), or None.
        raw: Steps and values before smoothing, or None.
        marks: Values that are not finite, or that the scale cannot show.
    """

    label: str
    color: int
    steps: Floats
    values: Floats
    dots: Indices
    low: Floats | None = None
    high: Floats | None = None
    raw: tuple[Floats, Floats] | None = None
    marks: tuple[Marks, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """One metric of one model.

    Attributes:
        model: Name of the model; "" for metrics without one.
        metric: Name of the metric.
        metrics: All metrics of the figure, in the order of their panels.
        title: What the figure is called.
        axis: What the x-axis counts: ``"epoch"``, ``"step"`` or another axis.
        unit: The metric's unit, or "".
        log: Whether the y-axis is logarithmic.
        curves: The lines.
    """

    model: str
    metric: str
    metrics: tuple[str, ...]
    title: str
    axis: str
    unit: str
    log: bool
    curves: tuple[Curve, ...]

    @property
    def number(self) -> int:
        """The panel's place in its figure, from 0."""
        return self.metrics.index(self.metric)

    @property
    def x_range(self) -> tuple[float, float]:
        """The ends of the x-axis, with a margin."""
        steps = [curve.steps for curve in self.curves]
        steps += [marks.steps for curve in self.curves for marks in curve.marks]
        return pad(np.concatenate(steps or [np.empty(0)]), log=False)

    @property
    def y_range(self) -> tuple[float, float]:
        """The ends of the y-axis, with a margin."""
        return pad(self._all_values(), log=self.log)

    def mark_height(self, kind: str, color: int) -> float:
        """Return the value at which the marks of a curve can stand.

        Those of +inf are at the top and the others at the bottom, each curve's
        further inward than those of the one before.
        """
        low, high = self.y_range
        share = _MARK_EDGE + _MARK_STEP * (color % _MARK_SLOTS)
        share = 1 - share if kind == "inf" else share
        if self.log:
            return float(low ** (1 - share) * high**share)
        return low * (1 - share) + high * share

    def _all_values(self) -> Floats:
        shown = [np.empty(0)]
        for curve in self.curves:
            shown += [curve.values]
            shown += [edge for edge in (curve.low, curve.high) if edge is not None]
            if curve.raw is not None:
                shown.append(curve.raw[1])
        return np.concatenate(shown)


def build_panels(
    model: str,
    groups: Mapping[str, Sequence[SourcedMetrics]],
    view: View,
    *,
    axis: str,
    title: str,
) -> list[Panel]:
    """Return the panels of a model's figure.

    Args:
        model: Name of the model.
        groups: Label → the runs that are one curve together; "" where there is
            no need for a label.
        view: What is to be shown.
        axis: What the steps count.
        title: What the figure is called.
    """
    lines: dict[tuple[str, str], int] = {}
    found: dict[str, dict[tuple[str, str], list[Series]]] = {}
    newest = 0
    for group, runs in groups.items():
        for loaded in runs:
            for source, metrics in loaded.items():
                if view.sources and source not in view.sources:
                    continue
                for metric, series in metrics.items():
                    if view.metrics and metric not in view.metrics:
                        continue
                    key = group, source
                    lines.setdefault(key, len(lines))
                    found.setdefault(metric, {}).setdefault(key, []).append(series)
                    newest = max(newest, series.steps[-1] if series.steps else 0)
    if view.sources:
        in_order = sorted(lines, key=lambda key: list(view.sources).index(key[1]))
        lines = {key: number for number, key in enumerate(in_order)}
    names = tuple(sorted(found, key=list(view.metrics or found).index))
    first = view.first if view.first >= 0 else newest + view.first + 1
    panels = []
    for metric in names:
        log = view.is_log(metric) and _has_positive(found[metric].values(), first)
        curves = tuple(
            _build_curve(
                _label(key, len(groups[key[0]])),
                lines[key],
                found[metric][key],
                view,
                first=first,
                log=log,
            )
            for key in lines
            if key in found[metric]
        )
        unit = view.units.get(metric, "")
        panels.append(Panel(model, metric, names, title, axis, unit, log, curves))
    return panels


def _label(key: tuple[str, str], n_runs: int) -> str:
    group, source = key
    label = f"{group} · {source}" if group else source
    return f"{label} (mean of {n_runs})" if n_runs > 1 else label


def _has_positive(metric: Collection[list[Series]], first: int) -> bool:
    return any(
        value > 0 and step >= first
        for runs in metric
        for series in runs
        for step, value in zip(*series, strict=True)
    )


def _build_curve(
    label: str,
    color: int,
    runs: Sequence[Series],
    view: View,
    *,
    first: int,
    log: bool,
) -> Curve:
    """Return the curve of one run, or the mean of several."""
    drawn: list[tuple[Floats, Floats]] = []
    kinds: dict[str, list[Floats]] = {}
    for series in runs:
        steps = np.asarray(series.steps, np.float64)
        values = np.asarray(series.values, np.float64)
        values = _take_out(steps, values, kinds, first=first, log=log)
        drawn.append((steps, values))
    raw = None
    if view.half_life is not None:
        if len(drawn) == 1:
            raw = _cut(*drawn[0], first=first)
            raw = _pick(*raw, keep=reduce(*raw))
        drawn = [(x, smooth(x, y, half_life=view.half_life)) for x, y in drawn]
    drawn = [_cut(steps, values, first=first) for steps, values in drawn]
    marks = tuple(
        Marks(kind, spread(np.unique(np.concatenate(steps))))
        for kind, steps in kinds.items()
    )
    if len(drawn) == 1:
        steps, values = drawn[0]
        steps, values = _pick(steps, values, keep=reduce(steps, values))
        dots = find_dots(values)
        return Curve(label, color, steps, values, dots, raw=raw, marks=marks)
    steps, mean, low, high = _average(drawn, view.band, log=log)
    keep = reduce(steps, mean, low, high)
    gaps = _pick(steps, mean, keep=keep)
    return Curve(
        label,
        color,
        *gaps,
        find_dots(gaps[1]),
        low=low[keep],
        high=high[keep],
        marks=marks,
    )


def _take_out(
    steps: Floats,
    values: Floats,
    kinds: dict[str, list[Floats]],
    *,
    first: int,
    log: bool,
) -> Floats:
    """Return the values with NaN for what no line can show, and note where."""
    shown = steps >= first
    bad = find_odd(values)
    if log:
        bad["<= 0"] = np.isfinite(values) & (values <= 0)
    for kind, where in bad.items():
        if (where & shown).any():
            kinds.setdefault(kind, []).append(steps[where & shown])
    return np.where(np.logical_or.reduce(list(bad.values())), np.nan, values)


def _cut(steps: Floats, values: Floats, *, first: int) -> tuple[Floats, Floats]:
    begin = int(np.searchsorted(steps, first))
    return steps[begin:], values[begin:]


def _average(
    runs: Sequence[tuple[Floats, Floats]], band: str, *, log: bool
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return steps, mean, lower and upper edge of the band.

    At each step the runs count that have a finite value there.
    """
    steps = np.unique(np.concatenate([steps for steps, _ in runs]))
    table = np.full((len(runs), len(steps)), np.nan)
    for row, (own, values) in zip(table, runs, strict=True):
        row[np.searchsorted(steps, own)] = values
    count = np.isfinite(table).sum(axis=0)
    known = np.maximum(count, 1)
    # Not nanmean and its kin, which warn of a step that no run has.
    mean = np.where(count > 0, np.nansum(table, axis=0) / known, np.nan)
    lowest, highest = np.fmin.reduce(table), np.fmax.reduce(table)
    if band == "range":
        return steps, mean, lowest, highest
    squares = np.nansum((table - mean) ** 2, axis=0)
    spread = np.sqrt(squares / np.maximum(count - 1, 1))
    low = mean - spread
    if log:  # there is no zero to go down to
        low = np.where(low > 0, low, lowest)
    return steps, mean, low, mean + spread


def _pick(steps: Floats, values: Floats, *, keep: Indices) -> tuple[Floats, Floats]:
    return steps[keep], values[keep]
