"""Metrics in memory after a resume in a process that had not seen the start."""

from __future__ import annotations

from drytrack import Experiment
from drytrack.core import log_events
from drytrack.delivery import Background
from drytrack.trackers.base import MemoryMetrics


def train(par_dir, tracker, epochs, *, resume):
    experiment = Experiment(None, name="Memory", par_dir=par_dir)
    experiment.trackers.remove_all()
    experiment.trackers.subscribe(tracker)
    with experiment.create_run("run", resume=resume):
        for epoch in epochs:
            log_events.MetricEvent("mlp", "train", epoch, {"loss": epoch / 10})


def test_a_resumed_run_brings_its_history_back(tmp_path):
    train(tmp_path, MemoryMetrics(), [1, 2, 3], resume=False)

    for memory in (MemoryMetrics(), Background(MemoryMetrics())):
        train(tmp_path, memory, [3, 4], resume=True)

        series = memory.innermost.load_metrics("mlp")["train"]["loss"]
        assert series.steps == [1, 2, 3, 4]


def test_one_instance_is_told_only_what_it_has_not_seen(tmp_path):
    memory = MemoryMetrics()
    train(tmp_path, memory, [1, 2], resume=False)
    train(tmp_path, MemoryMetrics(), [3], resume=True)

    train(tmp_path, memory, [4], resume=True)

    assert memory.load_metrics("mlp")["train"]["loss"].steps == [1, 2, 3, 4]
