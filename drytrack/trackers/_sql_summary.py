"""What a database knows of each series without reading its points."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

COLUMNS = (
    "series_id",
    "n",
    "n_finite",
    "first_step",
    "first_value",
    "first_odd",
    "last_step",
    "last_value",
    "last_odd",
    "min_step",
    "min_value",
    "max_step",
    "max_value",
    "mean",
    "stale",
)

_CHUNK = 10_000


def is_odd(value: float) -> bool:
    """Return whether a float is no column's value: NaN, ±inf and -0.0.

    SQLite keeps a float without a fraction as an integer, which has no -0.
    """
    return not math.isfinite(value) or (value == 0 and math.copysign(1, value) < 0)


def split_float(value: float) -> tuple[float | None, str | None]:
    """Return a float as the columns ``value`` and ``odd``."""
    if not is_odd(value):
        return value, None
    return (0.0 if value == 0 else None), repr(value)


def join_float(value: float | None, odd: str | None) -> float:
    """Return the float of the columns ``value`` and ``odd``."""
    if odd is not None:
        return float(odd)
    return math.nan if value is None else value


class Summary:
    """First, last, least, largest and mean value of one series, by the attempt rule.

    The least, the largest and the mean are those of the finite values.

    Attributes:
        series_id: The series.
        n: Points that count.
        n_finite: Those that are neither NaN nor infinite.
        last_step: The largest step; None before the first point.
        stale: Whether points were added that are not in it yet.
        changed: Whether it differs from what the database has.
    """

    __slots__ = (
        "changed",
        "first",
        "largest",
        "last",
        "last_step",
        "least",
        "mean",
        "n",
        "n_finite",
        "series_id",
        "stale",
    )

    def __init__(self, series_id: int) -> None:
        """Start empty."""
        self.series_id = series_id
        self.stale = False
        self.changed = False
        self.clear()

    @classmethod
    def from_row(cls, row: Any) -> Summary:
        """Take over what the database has."""
        summary = cls(row.series_id)
        summary.stale = bool(row.stale)
        summary.n, summary.n_finite = row.n, row.n_finite
        if row.n:
            summary.first = row.first_step, join_float(row.first_value, row.first_odd)
            summary.last = row.last_step, join_float(row.last_value, row.last_odd)
            summary.last_step = row.last_step
        if row.n_finite:
            summary.least = row.min_step, row.min_value
            summary.largest = row.max_step, row.max_value
            summary.mean = row.mean
        return summary

    def clear(self) -> None:
        """Forget all points."""
        self.n = self.n_finite = 0
        self.first: tuple[int, float] = (0, math.nan)
        self.last: tuple[int, float] = (0, math.nan)
        self.last_step: int | None = None
        self.least: tuple[int, float] | None = None
        self.largest: tuple[int, float] | None = None
        self.mean = 0.0

    def extend(self, steps: Sequence[int], values: Sequence[float]) -> None:
        """Add points that follow all others.

        Args:
            steps: Strictly ascending, above `last_step`.
            values: One for each.
        """
        self.changed = True
        if not self.n:
            self.first = steps[0], values[0]
        self.n += len(steps)
        self.last = self.last_step, _ = steps[-1], values[-1]
        if not math.isfinite(sum(values)):
            pairs = zip(steps, values, strict=True)
            finite = [(s, v) for s, v in pairs if math.isfinite(v)]
            if not finite:
                return
            steps, values = zip(*finite, strict=True)
        low, high = min(values), max(values)
        if self.least is None or low < self.least[1]:
            self.least = steps[values.index(low)], low
        if self.largest is None or high > self.largest[1]:
            self.largest = steps[values.index(high)], high
        n, self.n_finite = len(values), self.n_finite + len(values)
        share = n / self.n_finite
        # Shares, not a sum, which the largest floats would overflow.
        self.mean = self.mean * (1 - share) + _mean(values) * share

    def rebuild(
        self,
        points: Iterable[tuple[int, int, float]],
        counts: Callable[[int, int], bool],
    ) -> None:
        """Start anew from all points.

        Args:
            points: Step, seq and value, ordered by step and seq.
            counts: Tells by seq and step whether a point counts.
        """
        self.clear()
        self.stale = False
        self.changed = True
        chosen: dict[int, float] = {}
        for step, seq, value in points:
            if counts(seq, step):
                if len(chosen) >= _CHUNK and step not in chosen:
                    self.extend(list(chosen), list(chosen.values()))
                    chosen.clear()
                chosen[step] = value
        if chosen:
            self.extend(list(chosen), list(chosen.values()))

    def row(self) -> tuple[Any, ...]:
        """Return the values of `COLUMNS`."""
        return (
            self.series_id,
            self.n,
            self.n_finite,
            self.first[0],
            *split_float(self.first[1]),
            self.last[0],
            *split_float(self.last[1]),
            *(self.least or (None, None)),
            *(self.largest or (None, None)),
            self.mean if self.n_finite else None,
            int(self.stale),
        )


def _mean(values: Sequence[float]) -> float:
    total = sum(values)
    if math.isfinite(total):
        return total / len(values)
    return sum(value / len(values) for value in values)


def is_ascending(steps: Sequence[int]) -> bool:
    """Return whether every step is above the one before it."""
    return all(map(operator.lt, steps, itertools.islice(steps, 1, None)))
