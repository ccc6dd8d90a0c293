"""What a plot is asked to show: which curves, of which runs, and how."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, TypedDict

from drytrack.core.exceptions import ConfigurationError
from drytrack.trackers.base import MetricLoader, Series, SourcedMetrics

Runs = Sequence[MetricLoader] | Mapping[str, MetricLoader | Sequence[MetricLoader]]
"""Runs to draw as one mean, or label → the runs of one mean."""


class PlotOptions(TypedDict, total=False):
    """What a plot shows; see `drytrack.trackers.base.BasePlotter`."""

    sources: str | Collection[str]
    metrics: str | Collection[str]
    first: int
    axis: str | None
    log_scale: bool | str | Collection[str]
    half_life: float | None
    band: Literal["std", "range"]
    units: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is to be shown, and how; see `drytrack.trackers.base.BasePlotter`.

    Attributes:
        sources: Names of the sources, in this order; empty for all.
        metrics: Names of the metrics, in this order; empty for all.
        first: First epoch or step; negative for the last ones.
        axis: What is on the x-axis; None for epochs where there are any.
        log_scale: Whether the y-axis is logarithmic, or for which metrics.
        half_life: Of the smoothing, in epochs or steps; None for none.
        band: What the band around a mean shows.
        units: Metric → its unit.
    """

    sources: Sequence[str] = ()
    metrics: Sequence[str] = ()
    first: int = 0
    axis: str | None = None
    log_scale: bool | Collection[str] = False
    half_life: float | None = None
    band: Literal["std", "range"] = "std"
    units: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def is_log(self, metric: str) -> bool:
        """Return whether a metric's y-axis is to be logarithmic."""
        if isinstance(self.log_scale, bool):
            return self.log_scale
        return metric in self.log_scale


def make_view(*options: PlotOptions) -> View:
    """Return what is to be shown by options, the later ones first.

    Raises:
        ConfigurationError: If an option cannot be.
    """
    chosen: dict[str, Any] = {}
    for given in options:
        chosen.update(given)
    for key in ("sources", "metrics"):
        chosen[key] = names(chosen.get(key, ()))
    log_scale = chosen.get("log_scale", False)
    if not isinstance(log_scale, bool):
        chosen["log_scale"] = names(log_scale)
    half_life = chosen.get("half_life")
    if half_life is not None and not half_life > 0:
        msg = f"half_life is {half_life!r}. Pass a number above 0, or None."
        raise ConfigurationError(msg)
    band = chosen.get("band", "std")
    if band not in ("std", "range"):
        msg = f"There is no band {band!r}. Pass 'std' or 'range'."
        raise ConfigurationError(msg)
    return View(**chosen)


def names(given: str | Collection[str]) -> tuple[str, ...]:
    """Return one name, or several, as several."""
    return (given,) if isinstance(given, str) else tuple(given)


def group(runs: Runs) -> dict[str, list[MetricLoader]]:
    """Return the runs of each label."""
    labelled = runs if isinstance(runs, Mapping) else {"": runs}
    return {
        label: [given] if isinstance(given, MetricLoader) else list(given)
        for label, given in labelled.items()
    }


def join(stored: SourcedMetrics, own: SourcedMetrics) -> SourcedMetrics:
    """Put a stored run before one that went on, by the attempt rule."""
    firsts = [s.steps[0] for metrics in own.values() for s in metrics.values()]
    limit = min(firsts, default=None)
    joined: SourcedMetrics = {}
    for source, metrics in stored.items():
        for name, series in metrics.items():
            points = zip(*series, strict=True)
            kept = [point for point in points if limit is None or point[0] < limit]
            if kept:
                steps, values = (list(column) for column in zip(*kept, strict=True))
                joined.setdefault(source, {})[name] = Series(steps, values)
    for source, metrics in own.items():
        for name, series in metrics.items():
            before = joined.setdefault(source, {}).get(name)
            if before is not None:
                steps = before.steps + series.steps
                values = before.values + series.values
                joined[source][name] = Series(steps, values)
            else:
                joined[source][name] = series
    return joined
