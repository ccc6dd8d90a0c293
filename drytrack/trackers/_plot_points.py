"""Curves as points: smoothed, and reduced to what can be seen."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

MAX_POINTS = 2_000
"""Points of a curve at most: more than any screen has columns for."""

MAX_MARKS = 200
"""Marks of one kind on a curve at most."""

MAX_DOTTED = 30
"""Points of a curve up to which each has a dot."""

_MARGIN = 0.05


def smooth(steps: Floats, values: Floats, *, half_life: float) -> Floats:
    """Smooth a metric with a bias-corrected exponential moving average.

    Steps may be unevenly spaced: a value counts half after ``half_life`` epochs
    or steps, however many values there are in between.

    Args:
        steps: Ascending, shape (n,).
        values: One for each, shape (n,). NaN stays NaN and counts for nothing.
        half_life: In the unit of ``steps``; > 0.

    Returns:
        Smoothed values, shape (n,), in the unit of ``values``.

    Source:
        Bias correction as in Kingma and Ba, "Adam", ICLR 2015, section 3: the
        weighted sum over the sum of its weights. Uneven spacing as in Eckner,
        "Algorithms for Unevenly Spaced Time Series: Moving Averages and Other
        Rolling Operators", 2019.
    """
    total = weight = last = gap = 0.0
    decay = 1.0
    smoothed = []
    for step, value in zip(steps.tolist(), values.tolist(), strict=True):
        if step - last != gap:  # mostly it is the same one again
            gap = step - last
            decay = 0.5 ** (gap / half_life)
        last = step
        total *= decay
        weight *= decay
        if value == value:  # no NaN
            total += value
            weight += 1.0
            smoothed.append(total / weight)
        else:
            smoothed.append(value)
    return np.array(smoothed, np.float64)


def reduce(steps: Floats, *series: Floats, limit: int = MAX_POINTS) -> Indices:
    """Choose the points to draw, so that every peak and every gap is among them.

    Args:
        steps: Ascending, shape (n,).
        *series: Values over these steps, shape (n,) each; NaN is a gap, and the
            first one says where.
        limit: How many points to choose at most.

    Returns:
        Indices, ascending; all of them where there are no more than ``limit``.

    Source:
        Minimum and maximum of buckets, the first step of M4: Jugel et al., "M4:
        A Visualization-Oriented Time Series Data Aggregation", VLDB 2014.
    """
    if len(steps) <= limit:
        return np.arange(len(steps))
    finite = np.isfinite(series[0])
    places = np.flatnonzero(finite)
    if not len(places):
        return np.array([0, len(steps) - 1])
    # Between any two chosen points there may have to be a gap.
    room = limit if len(places) == len(steps) else limit // 2
    ends = places[[0, -1]]
    if len(places) <= room:
        chosen = places
    else:
        from tsdownsample import MinMaxDownsampler

        share = (room - 2) // len(series) // 2 * 2  # it takes even numbers alone
        found = [
            MinMaxDownsampler().downsample(steps[places], values[places], n_out=share)
            for values in series
        ]
        picked = places[np.concatenate(found).astype(np.intp)]
        chosen = np.unique(np.concatenate([ends, picked]))
    n_bad = np.cumsum(~finite)
    before = chosen[:-1][np.diff(n_bad[chosen]) > 0]
    # The first bad point behind each chosen one that is followed by a gap.
    bad = np.flatnonzero(~finite)
    gaps = bad[np.searchsorted(bad, before)]
    return np.union1d(chosen, gaps)


def find_odd(values: Floats) -> dict[str, NDArray[np.bool_]]:
    """Return, for each kind of value that is not finite, where there is one."""
    return {
        "nan": np.isnan(values),
        "inf": np.isposinf(values),
        "-inf": np.isneginf(values),
    }


def find_dots(values: Floats) -> Indices:
    """Return the points that a line alone would not show, or all of a few."""
    finite = np.isfinite(values)
    if finite.sum() <= MAX_DOTTED:
        return np.flatnonzero(finite)
    beside = np.zeros(len(values) + 2, bool)
    beside[1:-1] = finite
    return np.flatnonzero(finite & ~beside[:-2] & ~beside[2:])


def spread(steps: Floats) -> Floats:
    """Return at most `MAX_MARKS` of the steps, the first of each bucket."""
    if len(steps) <= MAX_MARKS:
        return steps
    share = (steps - steps[0]) / (steps[-1] - steps[0])
    buckets = (share * (MAX_MARKS - 1)).astype(np.intp)
    return steps[np.unique(buckets, return_index=True)[1]]


def pad(values: Floats, *, log: bool) -> tuple[float, float]:
    """Return the ends of an axis that holds all values, with a margin."""
    values = values[np.isfinite(values)]
    if not len(values):
        return (0.1, 10.0) if log else (0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    if log:
        bottom, top = math.log10(low), math.log10(high)
        margin = _MARGIN * max(top - bottom, 0.2)
        return 10 ** max(bottom - margin, -307.0), 10 ** min(top + margin, 308.0)
    # In halves, for what is near the largest float.
    span = high / 2 - low / 2
    margin = 2 * _MARGIN * span if span > 0 else max(abs(low) * _MARGIN, 0.5)
    largest = float(np.finfo(np.float64).max)
    return max(low - margin, -largest), min(high + margin, largest)
