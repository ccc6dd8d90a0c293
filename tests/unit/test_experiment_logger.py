"""The high-level logger."""

from __future__ import annotations

import numpy as np
import pytest

from drytrack.core.exceptions import ConfigurationError, MetricValueError
from drytrack.core.experiment import Experiment
from drytrack.core.log_events import (
    ArtifactEvent,
    HistogramEvent,
    ParamsEvent,
    StepMetricEvent,
    StopExperimentEvent,
)
from drytrack.experiment_logger import ExperimentLogger

pytestmark = pytest.mark.usefixtures("no_default_trackers")


def points(recorder, axis="step"):
    return [
        (event.step, dict(event.metrics))
        for event in recorder.events
        if isinstance(event, StepMetricEvent) and event.axis == axis
    ]


def test_every_nth_step_is_logged_and_the_last_before_an_epoch_ends(run, recorder):
    logger = ExperimentLogger(run, log_interval=2)
    for loss in (5.0, 4.0, 3.0):
        logger.log_training_step({"loss": loss})
    logger.log_epoch_end(1, {"val": {"loss": 2.0}})

    assert points(recorder) == [(2, {"loss": 4.0}), (3, {"loss": 3.0})]
    assert points(recorder, "epoch") == [(1, {"val/loss": 2.0})]


def test_the_summary_tells_steps_epochs_time_and_best_values(run):
    logger = ExperimentLogger(run, log_interval=2, better={"odd": "lower"})
    for epoch, loss in enumerate([3.0, 1.0, float("nan"), 2.0], 1):
        logger.log_training_step({"loss": loss})
        logger.log_epoch_end(epoch, {"val_loss": loss, "accuracy": loss, "odd": loss})

    summary = logger.get_training_summary()

    assert (summary["steps"], summary["epochs"]) == (4, 4)
    assert summary["time_s"] > 0
    assert summary["steps_per_s"] == pytest.approx(4 / summary["time_s"])
    assert summary["best"] == {
        "val_loss": {"value": 1.0, "epoch": 2},
        "accuracy": {"value": 3.0, "epoch": 1},
        "odd": {"value": 1.0, "epoch": 2},
    }


def test_finish_stops_the_run_with_the_summary(run, recorder):
    logger = ExperimentLogger(run)
    logger.log_params({"lr": 0.1})
    logger.log_training_step({"loss": 1.0})
    logger.log_epoch_end(1, {"accuracy": 0.5})
    logger.finish()

    stop = next(e for e in recorder.events if isinstance(e, StopExperimentEvent))
    assert stop.summary["best/accuracy"] == 0.5
    assert stop.summary["steps"] == 1
    assert any(isinstance(event, ParamsEvent) for event in recorder.events)


def test_models_are_watched_while_they_train_and_saved_at_the_end_of_an_epoch(
    run, recorder
):
    logger = ExperimentLogger(run, log_interval=1, watch_every=2)
    model = {"w": np.ones(3)}
    for _ in range(2):
        logger.log_training_step({"loss": 1.0}, model=model)
    logger.log_epoch_end(1, {"val_loss": 1.0}, model, model_name="net")

    assert len([e for e in recorder.events if isinstance(e, HistogramEvent)]) == 1
    (artifact,) = [e for e in recorder.events if isinstance(e, ArtifactEvent)]
    assert (artifact.name, artifact.metadata["version"]) == ("net", 1)


def test_steps_go_on_in_a_resumed_run(tmp_path):
    experiment = Experiment(name="Digits", par_dir=tmp_path)
    with experiment.create_run("a") as run:
        logger = ExperimentLogger(run, log_interval=1)
        logger.log_training_step({"loss": 1.0})
    with experiment.create_run("a", resume=True) as run:
        logger = ExperimentLogger(run, log_interval=1)
        logger.log_training_step({"loss": 1.0})

        assert run.last_steps["run"] == 2
        assert logger.get_training_summary()["steps"] == 1


@pytest.mark.needs("psutil")
def test_the_machine_is_measured_at_this_step(run, recorder):
    logger = ExperimentLogger(run, log_interval=1)
    logger.log_training_step({"loss": 1.0})
    logger.log_system_metrics()

    _, (step, metrics) = points(recorder)
    assert step == 1
    assert 0 < metrics["system/memory_percent"] < 100


def test_a_rank_that_does_not_track_runs_the_same_code(tmp_path):
    with Experiment(name="Digits", par_dir=tmp_path).create_run(rank=1) as run:
        logger = ExperimentLogger(run, log_interval=1)
        logger.log_params({"lr": 0.1})
        logger.log_training_step({"loss": 1.0}, model={"w": np.ones(3)})
        logger.log_epoch_end(1, {"val_loss": 0.5}, {"w": np.ones(3)})
        logger.log_system_metrics()
        summary = logger.get_training_summary()
        logger.finish()

    assert (summary["steps"], summary["epochs"]) == (1, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("interval", [0, -1, 1.5, "10", True])
def test_an_interval_that_is_none_is_refused(run, interval):
    with pytest.raises(ConfigurationError, match="log_interval is"):
        ExperimentLogger(run, log_interval=interval)


def test_epoch_metrics_that_are_no_numbers_are_refused(run, recorder):
    logger = ExperimentLogger(run)

    with pytest.raises(MetricValueError, match="'val/loss'"):
        logger.log_epoch_end(1, {"val": {"loss": "low"}})

    assert logger.get_training_summary()["epochs"] == 0
