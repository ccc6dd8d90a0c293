"""CSVDumper and a real kill: the journal fills what it misses, once."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys

import pytest

from drytrack import Experiment
from drytrack.core import log_events
from drytrack.core.journal import JournalReader
from drytrack.replay import replay
from drytrack.trackers.csv import CSVDumper

CHILD = """
import os, signal, sys
import drytrack
from drytrack import Experiment
from drytrack.core import log_events
from drytrack.trackers.csv import CSVDumper

class DiesAt(CSVDumper):
    notify = CSVDumper.notify.extend()

    @notify.register
    def _add_step(self, event: log_events.StepMetricEvent) -> None:
        if event.step == int(sys.argv[2]):  # in the journal, and not in the file
            os.kill(os.getpid(), signal.SIGKILL)
        super()._add_step(event)

drytrack.init_trackers("none")
experiment = Experiment(None, name="Killed", par_dir=sys.argv[1])
experiment.trackers.subscribe(csv=DiesAt())
with experiment.create_run("run"):
    for step in range(100):
        log_events.StepMetricEvent("train", step, {"loss": 1 / (step + 1)})
"""


@pytest.fixture
def killed(tmp_path):
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), "40"], check=False, timeout=60
    )
    assert child.returncode == -signal.SIGKILL
    experiment = Experiment(None, name="Killed", par_dir=tmp_path)
    experiment.trackers.remove_all()
    return experiment


def rows(par_dir):
    with (par_dir / "csv" / "Killed" / "run" / "train-steps.csv").open() as file:
        return [(int(row["seq"]), int(row["step"])) for row in csv.DictReader(file)]


def test_a_row_that_a_kill_cost_is_written_when_the_run_is_resumed(killed, tmp_path):
    assert [step for _, step in rows(tmp_path)] == list(range(40))

    killed.trackers.subscribe(CSVDumper())
    with killed.create_run("run", resume=True):
        for step in range(41, 45):
            log_events.StepMetricEvent("train", step, {"loss": 0.0})

    assert [step for _, step in rows(tmp_path)] == list(range(45))
    seqs = [seq for seq, _ in rows(tmp_path)]
    assert seqs == sorted(set(seqs))
    series = CSVDumper.from_folder(tmp_path / "csv" / "Killed" / "run")
    loaded = series.load_metrics("", axis="step")["train"]["loss"]
    assert loaded.steps == list(range(45))
    assert loaded.values[40] == 1 / 41


def test_replaying_into_the_same_files_adds_nothing(killed, tmp_path):
    folder = killed.previous_runs[0].path
    replay(folder, CSVDumper(par_dir=tmp_path))
    once = rows(tmp_path)

    replay(folder, CSVDumper(par_dir=tmp_path))

    assert rows(tmp_path) == once
    assert [step for _, step in once] == list(range(41))


def test_a_replayed_run_reads_as_the_live_one(killed, tmp_path):
    killed.trackers.subscribe(CSVDumper())
    with killed.create_run("run", resume=True) as run:
        for step in (30, 31):  # a checkpoint ago
            log_events.StepMetricEvent("train", step, {"loss": -1.0})
    there = CSVDumper.from_folder(tmp_path / "csv" / "Killed" / "run")

    replay(run, CSVDumper(par_dir=tmp_path / "copy"))

    copy = CSVDumper.from_folder(tmp_path / "copy" / "csv" / "Killed" / "run")
    expected = there.load_metrics("", axis="step")
    assert copy.load_metrics("", axis="step") == expected
    assert expected["train"]["loss"].steps == list(range(32))
    assert len(list(JournalReader(run.path))) == 1 + 41 + 1 + 2 + 1
