"""Histograms of arrays and tensors, computed where the values are."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from drytrack.core.exceptions import EventValueError

BINS = 64

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
    if torch is not None and isinstance(values, torch.Tensor):
        return _count_tensor(torch, values, what, n_bins)
    numpy = sys.modules.get("numpy")
    if numpy is not None and hasattr(values, "__array__"):
        array = numpy.asarray(values)
        if array.dtype.kind == "V":  # bfloat16 of ml_dtypes
            array = array.astype(numpy.float32)
        if array.dtype.kind not in "biuf":
            raise _type_error(what, f"an array of type {array.dtype}")
        array = array.ravel()
        finite = array[numpy.isfinite(array)]
        left_out = array.size - finite.size
        if not finite.size:
            return None
        edges = _edges(float(finite.min()), float(finite.max()), n_bins)
        counts, _ = numpy.histogram(finite.astype(numpy.float64), edges)
        return Distribution(counts.tolist(), edges, left_out)
    return _count_sequence(values, what, n_bins)


def _count_tensor(
    torch: Any, values: Any, what: str, n_bins: int
) -> Distribution | None:
    flat = values.detach().reshape(-1)
    if flat.is_complex() or flat.is_quantized:
        raise _type_error(what, f"a tensor of type {flat.dtype}")
    if flat.is_sparse or flat.layout != torch.strided:
        flat = flat.to_dense().reshape(-1)
    flat = flat.float()
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
        if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
            flat += [float(item) for item in value]
            continue
        try:
            flat.append(float(value))
        except (TypeError, ValueError):
            raise _type_error(what, f"one of type {type(value).__name__}") from None
    finite = [value for value in flat if math.isfinite(value)]
    if not finite:
        return None
    edges = _edges(min(finite), max(finite), n_bins)
    counts = [0] * n_bins
    width = edges[-1] - edges[0]
    for value in finite:
        counts[min(n_bins - 1, int((value - edges[0]) / width * n_bins))] += 1
    return Distribution(counts, edges, len(flat) - len(finite))


def _edges(low: float, high: float, n_bins: int) -> list[float]:
    """Return ascending edges around a range, however narrow it is."""
    spread = max(abs(low), abs(high), 1e-300)
    # Closer than this, neighbouring edges would be the same float.
    least = spread * n_bins * 1e-14
    if high - low < least:
        middle = low / 2 + high / 2
        half = 0.5 if spread < 1e12 else least
        low, high = middle - half, middle + half
    if math.isinf(high - low):
        low, high = low / 2, high / 2
        return [2 * (low + (high - low) * (i / n_bins)) for i in range(n_bins)] + [
            2 * high
        ]
    return [low + (high - low) * (i / n_bins) for i in range(n_bins)] + [high]


def _type_error(what: str, found: str) -> EventValueError:
    msg = f"{what} must hold real numbers, got {found}. Pass an array of floats."
    return EventValueError(msg)
