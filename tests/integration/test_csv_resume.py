"""A run that is watched by `CSVDumper` goes on in another process."""

from __future__ import annotations

import json
import subprocess
import sys

import pandas as pd
import pytest

from drytrack.trackers.base import Series
from drytrack.trackers.csv import CSVDumper

SCRIPT = """
import os, signal, sys
from drytrack import Experiment, TrainingLoop
from drytrack.core import log_events
from drytrack.trackers.csv import CSVDumper

par_dir, first, last, value, end = sys.argv[1:6]
experiment = Experiment({"value": value}, name="Digits", par_dir=par_dir)
experiment.trackers.remove_all()
experiment.trackers.subscribe(CSVDumper())

with experiment.create_run("run", resume="auto") as run:
    model = run.register_model(object(), name="mlp")
    loop = TrainingLoop(model, name="trainer")
    n = int(last) - int(first) + 1
    for epoch in loop.epochs(n, start=int(first)):
        for step in loop.batches(range(3 * epoch, 3 * epoch + 3)):
            metrics = {"loss": float(value)}
            log_events.StepMetricEvent("trainer", step, metrics, model_name="mlp")
        metrics = {"loss": float(value)}
        if int(value) > 1:
            metrics["late"] = epoch / 3
        loop.log_metrics(metrics)
    if end == "kill":
        # With half a row, as by a write that was cut short.
        path = CSVDumper.get_current().run_dir / "mlp" / "trainer.csv"
        with path.open("ab") as file:
            file.write(b"9,1,0,0.12")
        sys.stdout.flush()
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    if end == "raise":
        raise RuntimeError("the job failed")
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "csv" / "Digits" / "run"


@pytest.fixture
def train(tmp_path):
    def run_process(first, last, value, end="stop"):
        arguments = [str(tmp_path), *map(str, (first, last, value)), end]
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", SCRIPT, *arguments],
            capture_output=True,
            text=True,
            check=False,
        )

    return run_process


def test_a_run_that_ended_goes_on_in_the_same_files(train, folder):
    assert train(1, 3, 1).returncode == 0
    assert train(4, 5, 2).returncode == 0

    loaded = CSVDumper.from_folder(folder).load_metrics("mlp")["trainer"]
    assert loaded == {
        "loss": Series([1, 2, 3, 4, 5], [1, 1, 1, 2, 2]),
        "late": Series([4, 5], [4 / 3, 5 / 3]),
    }
    steps = CSVDumper.from_folder(folder).load_metrics("mlp", axis="step")
    assert steps["trainer"]["loss"] == Series(list(range(3, 18)), [1] * 9 + [2] * 6)


@pytest.mark.parametrize("end", ["kill", "raise"])
def test_a_run_that_died_loses_no_row_and_goes_on(train, folder, end):
    assert train(1, 5, 1, end).returncode != 0
    before = CSVDumper.from_folder(folder).load_metrics("mlp")["trainer"]["loss"]
    assert before == Series([1, 2, 3, 4, 5], [1] * 5)

    done = train(3, 4, 2)

    assert done.returncode == 0, done.stderr
    loaded = CSVDumper.from_folder(folder).load_metrics("mlp")["trainer"]
    assert loaded["loss"] == Series([1, 2, 3, 4], [1, 1, 2, 2])
    table = pd.read_csv(folder / "mlp" / "trainer.csv")
    assert table["epoch"].tolist() == [1, 2, 3, 4, 5, 3, 4]
    assert table["attempt"].tolist() == [1] * 5 + [2] * 2
    assert table["late"].isna().tolist() == [True] * 5 + [False] * 2


def test_each_attempt_keeps_its_configuration(train, folder):
    for attempt in (1, 2, 3):
        assert train(attempt, attempt, attempt).returncode == 0

    names = ["config.json", "config_2.json", "config_3.json"]
    found = [json.loads((folder / name).read_bytes())["value"] for name in names]
    assert found == ["1", "2", "3"]
