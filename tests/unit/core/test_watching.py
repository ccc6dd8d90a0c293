"""Histograms of a model at intervals."""

from __future__ import annotations

import numpy as np
import pytest

from drytrack.core.exceptions import EventValueError, RunWarning
from drytrack.core.experiment import Experiment
from drytrack.core.log_events import HistogramEvent

pytestmark = pytest.mark.usefixtures("no_default_trackers")


def histograms(recorder):
    return [event for event in recorder.events if isinstance(event, HistogramEvent)]


def test_a_mapping_is_looked_at_every_nth_step(run, recorder):
    run.watch({"w": np.ones(3), "deep": {"b": np.zeros(2)}}, every=2, name="net")
    for step in range(1, 5):
        run.log({"loss": 1.0}, step=step)

    found = [(event.name, event.step) for event in histograms(recorder)]
    assert found == [("net/w", 2), ("net/deep/b", 2), ("net/w", 4), ("net/deep/b", 4)]


def test_a_function_gives_what_is_new(run, recorder):
    params = {"w": np.zeros(4)}
    run.watch(lambda: params, every=1)
    run.log({"loss": 1.0})
    params = {"w": np.full(4, 7.0)}
    run.log({"loss": 1.0})

    first, second = histograms(recorder)
    assert first.bin_edges[0] < 0 < first.bin_edges[-1] < 7
    assert second.bin_edges[0] < 7 < second.bin_edges[-1]


def test_of_a_large_array_a_part_stands_for_all(run, recorder):
    run.watch({"w": np.random.default_rng(0).normal(size=(1_000, 1_000))}, every=1)
    run.log({"loss": 1.0})

    (event,) = histograms(recorder)
    assert sum(event.counts) == pytest.approx(1_000_000, rel=1e-3)


def test_a_watch_that_was_stopped_publishes_nothing(run, recorder):
    run.watch({"w": np.ones(3)}, every=1).stop()
    run.log({"loss": 1.0})

    assert histograms(recorder) == []


def test_where_nobody_keeps_histograms_nothing_is_looked_at(tmp_path):
    class Untouched:
        @property
        def size(self):
            raise AssertionError

    with Experiment(par_dir=tmp_path).create_run(record=False) as run:
        watch = run.watch({"w": Untouched()}, every=1)
        run.log({"loss": 1.0})

        assert watch.counts_steps


def test_a_fault_in_what_is_watched_costs_the_training_nothing(run, recorder):
    run.watch(lambda: {"w": "text"}, every=1)
    with pytest.warns(RunWarning, match="is over"):
        run.log({"loss": 1.0})
    run.log({"loss": 1.0})

    assert histograms(recorder) == []


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (3, {}, "nothing can be watched of int 3"),
        ({}, {"log": "weights"}, "Pass 'gradients', 'parameters' or 'all'"),
        ({}, {"every": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_watched_is_refused(run, model, options, message):
    with pytest.raises(EventValueError, match=message):
        run.watch(model, **options)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("log", "prefixes"),
    [
        ("gradients", {"gradients"}),
        ("parameters", {"parameters"}),
        ("all", {"gradients", "parameters"}),
    ],
)
def test_a_torch_module_is_looked_at_every_nth_training_pass(
    run, recorder, log, prefixes
):
    import torch

    module = torch.nn.Linear(2, 3)
    run.watch(module, log=log, every=2)
    for _ in range(5):
        module(torch.ones(1, 2)).sum().backward()
        module.zero_grad()
        run.log({"loss": 1.0})
    module.eval()
    for _ in range(2):
        module(torch.ones(1, 2))

    found = [(event.name, event.step) for event in histograms(recorder)]
    assert sorted(found) == sorted(
        (f"{prefix}/{name}", step)
        for prefix in prefixes
        for name in ("weight", "bias")
        for step in (2, 4)
    )


@pytest.mark.torch
def test_the_gradients_are_those_of_the_pass(run, recorder):
    import torch

    module = torch.nn.Linear(2, 1, bias=False)
    run.watch(module, every=1)

    module(torch.tensor([[3.0, 3.0]])).sum().backward()

    (event,) = histograms(recorder)
    (index,) = np.flatnonzero(event.counts)
    assert event.bin_edges[index] <= 3.0 <= event.bin_edges[index + 1]


@pytest.mark.torch
def test_a_module_outlives_the_run_without_hooks(tmp_path):
    import torch

    module = torch.nn.Linear(2, 3)
    with Experiment(par_dir=tmp_path).create_run() as run:
        run.watch(module, log="all", every=1)

    module(torch.ones(1, 2)).sum().backward()
    assert not module._forward_pre_hooks
