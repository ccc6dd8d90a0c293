"""Histograms of arrays and tensors, computed where the values are."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from drytrack.core.exceptions import EventValueError

BINS = 64

LARGEST = sys.float_info.max

NARROW = 1e-4
"""A range, relative to its values, that single precision cannot divide."""


class Distribution(NamedTuple):
    """How values are distributed.

    Attributes:
        counts: Values in each bin, shape (n_bins,).
        bin_edges: Edges of the bins, ascending, shape (n_bins + 1,).
        n_left_out: NaN and infinite values, which are in no bin.
    """

    counts: Sequence[float]
    bin_edges: Sequence[float]
    n_left_out: int


def count(values: Any, what: str, n_bins: int = BINS) -> Distribution | None:
    """Count the values of an array, a tensor or a sequence of numbers.

    Args:
        values: The values, of any shape, on any device.
        what: What they are, for the error.
        n_bins: Number of bins, at least 1.

    Returns:
        The distribution; None if there is no finite value.

    Raises:
        EventValueError: If they are no numbers.
    """
    if n_bins < 1:
        msg = f"{what} was asked for in {n_bins} bins. Pass at least 1."
        raise EventValueError(msg)
    torch = sys.modules.get("torch")
    numpy = sys.modules.get("numpy")
    if torch is not None and isinstance(values, torch.Tensor):
        values = _flatten_tensor(torch, values, what)
        if numpy is None or values.device.type != "cpu":
            return _count_tensor(torch, values, n_bins)
        values = values.numpy()
    if numpy is not None and hasattr(values, "__array__"):
        return _count_array(numpy, numpy.asarray(values), what, n_bins)
    return _count_sequence(values, what, n_bins)


def _count_array(numpy: Any, array: Any, what: str, n_bins: int) -> Distribution | None:
    if array.dtype.kind == "V":  # bfloat16 of ml_dtypes
        array = array.astype(numpy.float32)
    if array.dtype.kind not in "biuf":
        raise _type_error(what, f"an array of type {array.dtype}")
    # A longdouble may be more than a float can hold, and is infinite then.
    finite = flat = array.ravel().astype(numpy.float64)
    if not flat.size:
        return None
    low, high = float(flat.min()), float(flat.max())
    if not (math.isfinite(low) and math.isfinite(high)):  # NaN is the minimum, too
        finite = flat[numpy.isfinite(flat)]
        if not finite.size:
            return None
        low, high = float(finite.min()), float(finite.max())
    edges = _edges(low, high, n_bins)
    # Bins of equal width need no search: a tenth of numpy.histogram's time. Both
    # are halved, since the width of a range may be infinite where its ends are not.
    width = edges[-1] / 2 - edges[0] / 2
    places = finite / 2
    places -= edges[0] / 2
    places /= width
    places *= n_bins
    bins = places.astype(numpy.intp)
    numpy.minimum(bins, n_bins - 1, out=bins)
    counts = numpy.bincount(bins, minlength=n_bins)
    return Distribution(
        counts.astype(numpy.float64).tolist(), edges, flat.size - finite.size
    )


def _flatten_tensor(torch: Any, values: Any, what: str) -> Any:
    if values.is_complex() or values.is_quantized:
        raise _type_error(what, f"a tensor of type {values.dtype}")
    values = values.detach()
    if values.layout != torch.strided:
        values = values.to_dense()
    values = values.reshape(-1)
    return values if values.dtype == torch.float64 else values.float()


def _count_tensor(torch: Any, flat: Any, n_bins: int) -> Distribution | None:
    total = flat.numel()
    if not total:
        return None
    low, high = (bound.item() for bound in torch.aminmax(flat))
    if not (math.isfinite(low) and math.isfinite(high)):
        flat = flat[torch.isfinite(flat)]
        if not flat.numel():
            return None
        low, high = (bound.item() for bound in torch.aminmax(flat))
    edges = _edges(low, high, n_bins)
    if edges[-1] - edges[0] < NARROW * max(abs(low), abs(high)):
        flat = flat.double()  # in single precision, all would be in one bin
    counts = torch.histc(flat, n_bins, min=edges[0], max=edges[-1])
    return Distribution(counts.tolist(), edges, total - flat.numel())


def _count_sequence(values: Any, what: str, n_bins: int) -> Distribution | None:
    if not isinstance(values, Iterable) or isinstance(values, (str, bytes)):
        raise _type_error(what, type(values).__name__)
    flat: list[float] = []
    for value in values:
        is_row = isinstance(value, Iterable) and not isinstance(value, (str, bytes))
        try:
            flat += map(float, value if is_row else [value])
        except (TypeError, ValueError):
            raise _type_error(what, f"one of type {type(value).__name__}") from None
    finite = [value for value in flat if math.isfinite(value)]
    if not finite:
        return None
    edges = _edges(min(finite), max(finite), n_bins)
    counts = [0.0] * n_bins
    width = edges[-1] / 2 - edges[0] / 2
    for value in finite:
        place = int((value / 2 - edges[0] / 2) / width * n_bins)
        counts[min(n_bins - 1, place)] += 1
    return Distribution(counts, edges, len(flat) - len(finite))


def _edges(low: float, high: float, n_bins: int) -> list[float]:
    """Return ascending edges around a range, however narrow it is."""
    spread = max(abs(low), abs(high))
    # Closer than this, neighbouring edges would be the same float.
    least = max(spread * n_bins * 1e-14, 1e-300)
    if high - low < least:
        half = max(0.5, least)
        low, high = max(low - half, -LARGEST), min(high + half, LARGEST)
    # Halves, since a range may be wider than the largest float; the ends as they are,
    # since half of the smallest float is 0.
    start, width = low / 2, high / 2 - low / 2
    inner = [2 * (start + width * (i / n_bins)) for i in range(1, n_bins)]
    return [low, *inner, high]


def _type_error(what: str, found: str) -> EventValueError:
    msg = f"{what} must hold real numbers, got {found}. Pass an array of floats."
    return EventValueError(msg)
