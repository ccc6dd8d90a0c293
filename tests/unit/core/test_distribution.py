"""Histograms of whatever numbers there are."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from drytrack.core._distribution import count
from drytrack.core.exceptions import EventValueError

floats = st.floats(allow_nan=False, allow_infinity=False)


@example([1.0, -5e-324], 1)
@given(st.lists(floats, min_size=1), st.integers(1, 20))
def test_every_finite_value_is_in_one_bin_between_ascending_edges(values, n_bins):
    for found in (
        count(values, "values", n_bins),
        count(np.array(values), "values", n_bins),
    ):
        assert found is not None
        assert sum(found.counts) == len(values)
        assert len(found.counts) == n_bins
        assert all(a < b for a, b in itertools.pairwise(found.bin_edges))
        assert all(map(math.isfinite, found.bin_edges))
        assert found.bin_edges[0] <= min(values)
        assert max(values) <= found.bin_edges[-1]


def test_an_array_is_counted_as_numpy_does():
    values = np.random.default_rng(0).normal(size=10_000)

    found = count(values, "values", 50)

    counts, edges = np.histogram(values, 50)
    assert np.allclose(found.bin_edges, edges)
    assert np.abs(np.subtract(found.counts, counts)).sum() <= 2  # at an edge


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, -math.inf]])
def test_without_a_finite_value_there_is_no_distribution(values):
    assert count(values, "values") is None
    assert count(np.array(values), "values") is None


@pytest.mark.parametrize(
    "values", ["text", 3, ["a"], np.array(["a"]), np.array([1j]), {"a": 1}]
)
def test_what_holds_no_numbers_is_refused(values):
    with pytest.raises(EventValueError, match="real numbers"):
        count(values, "values")


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "int64", "bool"])
def test_a_tensor_of_any_type_is_counted(dtype):
    import torch

    values = torch.tensor([0, 1, 1, 0, 1]).to(getattr(torch, dtype))

    found = count(values, "values", 2)

    assert found.counts == [2, 3]


@pytest.mark.torch
def test_a_tensor_with_a_gradient_is_counted_as_an_array():
    import torch

    values = torch.tensor([1.0, math.nan, 3.0], requires_grad=True)

    assert count(values, "values", 2).counts == [1, 1]
    assert count(values, "values", 2).n_left_out == 1
