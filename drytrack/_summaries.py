"""Summaries of series, kept up to date point by point."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

Better = Literal["lower", "higher"]
"""Which of two values of a metric is the better one."""


class SeriesKey(NamedTuple):
    """What a series is the series of.

    Attributes:
        model: The model, or "" where it has no name.
        source: Who measured.
        axis: ``epoch``, ``step``, or another axis of step metrics.
        metric: The metric, with its context where it has one.
    """

    model: str
    source: str
    axis: str
    metric: str


class Checkpoint(NamedTuple):
    """A saved model.

    Attributes:
        model: Name of the model.
        definition: What was saved, such as ``checkpoint`` or ``weights``.
        location: The file, folder or address.
        epoch: The epoch that it was saved after, or None.
    """

    model: str
    definition: str
    location: str
    epoch: int | None


@dataclasses.dataclass(slots=True)
class SeriesSummary:
    """What a series comes to, by the attempt rule.

    NaN and ±inf count as points, and may be first or last; minimum, maximum
    and mean are of the finite values, and None where there are none.

    Attributes:
        key: Which series.
        count: Number of points.
        n_finite: Number of those with a finite value.
        first: The first value.
        first_at: Its step or epoch.
        last: The last value.
        last_at: Its step or epoch.
        min: The lowest value, first met.
        min_at: Its step or epoch.
        max: The highest value, first met.
        max_at: Its step or epoch.
        mean: The mean.
        better: Which values are better, if declared.
        checkpoint: The checkpoint of the best epoch, on the axis of epochs.
    """

    key: SeriesKey
    count: int = 0
    n_finite: int = 0
    first: float = math.nan
    first_at: int = 0
    last: float = math.nan
    last_at: int = 0
    min: float | None = None
    min_at: int | None = None
    max: float | None = None
    max_at: int | None = None
    mean: float | None = None
    better: Better | None = None
    checkpoint: Checkpoint | None = None

    def add(self, step: int, value: float) -> None:
        """Count the next point; its step lies behind all others."""
        if not self.count:
            self.first, self.first_at = value, step
        self.count += 1
        self.last, self.last_at = value, step
        if not math.isfinite(value):
            return
        self.n_finite += 1
        if self.min is None or self.max is None or self.mean is None:
            self.min = self.max = self.mean = value
            self.min_at = self.max_at = step
            return
        if value < self.min:
            self.min, self.min_at = value, step
        if value > self.max:
            self.max, self.max_at = value, step
        # Two terms, since their difference could exceed the largest float.
        n = self.n_finite
        self.mean += value / n - self.mean / n

    @property
    def best(self) -> float | None:
        """The best value; None where nothing says which is better."""
        return {"lower": self.min, "higher": self.max, None: None}[self.better]

    @property
    def best_at(self) -> int | None:
        """The step or epoch of the best value."""
        return {"lower": self.min_at, "higher": self.max_at, None: None}[self.better]

    def to_list(self) -> list[Any]:
        """Return what has been counted, as `from_list` takes it."""
        return [*self.key, *(getattr(self, name) for name in _COUNTED)]

    @classmethod
    def from_list(cls, data: list[Any]) -> SeriesSummary:
        """Return a summary from what `to_list` has made."""
        key = SeriesKey(*data[:4])
        return cls(key, **dict(zip(_COUNTED, data[4:], strict=True)))


_COUNTED = [
    field.name
    for field in dataclasses.fields(SeriesSummary)
    if field.name not in ("key", "better", "checkpoint")
]


def leaves(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield what nested parameters hold, as ``optimizer.lr`` and its value.

    Lists and empty mappings are values. What is no mapping is ``config``.
    """
    if not isinstance(value, Mapping):
        if value is not None:
            yield "config", value
        return
    for key, item in value.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(item, Mapping) and item:
            yield from leaves(item, name)
        else:
            yield name, item


def flatten(value: object) -> dict[str, Any]:
    """Return the `leaves` of nested parameters as JSON can hold them."""
    return {name: to_json(leaf) for name, leaf in leaves(value)}


def to_json(value: object) -> Any:
    """Return what JSON can hold of a value from a journal."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_json(item) for item in value]
    if hasattr(value, "tolist"):
        return to_json(value.tolist())
    return str(value)
