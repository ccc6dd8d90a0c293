"""What tests of backends share: how they train, and what every backend must pass."""

from __future__ import annotations

import importlib.util
import inspect
import os
import pathlib
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import ClassVar

import pytest

from drytrack import Experiment
from drytrack.core import log_events
from drytrack.core.exceptions import DeliveryWarning, TrackerExceptionWarning
from drytrack.core.journal import JournalReader
from drytrack.core.track import Tracker
from drytrack.replay import replay
from drytrack.testing import TrackerContract
from drytrack.trackers.base import Series

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PORT = 8200 + 100 * WORKER
"""First of a hundred ports, of which no other worker and no connection takes one."""

# Epochs that a child has delivered before what becomes of it, and those after it.
DELIVERED, AFTER = range(1, 21), range(21, 221)

UNTIDY = (
    "DeprecationWarning",
    "ResourceWarning",
    "pytest.PytestUnraisableExceptionWarning",  # a ResourceWarning, when it is an error
)
"""What backends raise that call old functions, and leave files open."""


def backend(*modules, noise=()):
    """Return the marks of a backend's tests.

    Args:
        modules: What the tests cannot do without.
        noise: Warnings of the backend's own code and of its dependencies.
    """
    ignored = [f"ignore::{category}" for category in noise]
    return [
        pytest.mark.backend,
        pytest.mark.needs(*modules),
        *map(pytest.mark.filterwarnings, ignored),  # a vendor's code, not ours to mend
    ]


def experiment_with(tracker, tmp_path, config=None, name="Vision", **options):
    experiment = Experiment(config, name=name, par_dir=tmp_path, **options)
    experiment.trackers.remove_all()
    experiment.trackers.subscribe(tracker)
    return experiment


def publish_losses(epochs):
    for epoch in epochs:
        log_events.MetricEvent("mlp", "train", epoch, {"loss": epoch / 10})


def train(experiment, epochs, run_id="run", **options):
    with experiment.create_run(run_id, **options) as run:
        publish_losses(epochs)
    return run


def train_and_fail(experiment, run_id="run"):
    def fail():
        with experiment.create_run(run_id):
            raise ValueError("no data")

    with pytest.raises(ValueError, match="no data"):
        fail()


def count_metrics(folder):
    """Return how many events with metrics the journal of a run has."""
    events = JournalReader(folder).read()
    return sum(isinstance(event, log_events.MetricEvent) for event in events)


class BackendCases(TrackerContract):
    """The contract, and what every backend keeps of more than one process.

    A subclass names its tracker, and says in `points` what the backend's own reader
    finds of what it wrote. A test that does not fit one is overridden there.
    """

    tracker_class: ClassVar[type[Tracker]]
    options: ClassVar[dict[str, object]] = {}
    end_forked: ClassVar[Callable[[int], object]] = sys.exit
    """How a forked child ends: inside of the run, as a script may."""

    def make_tracker(self, tmp_path):
        return self.tracker_class(par_dir=tmp_path, **self.options)

    def make_untold(self, tmp_path):
        """Return a tracker that writes to the experiment's folder, ``tmp_path``."""
        return self.tracker_class(**self.options)

    def points(self, place, name, run_id="run", experiment="Vision"):
        """Return the steps and values of a metric, once for every time it is stored.

        They are in order, of several for a step the newest last.

        Args:
            place: The folder of the tracker.
            name: The metric, with model and source.
            run_id: Whose metric.
            experiment: The name of its experiment.
        """
        raise NotImplementedError

    def read_back(self, tracker, start, model_name):
        # The first model that is registered adds nothing to its names.
        prefix = "" if model_name == "model" else f"{model_name}/"
        where = (start.run_id, start.exp_name)
        found = {}
        for metric in ("loss", "accuracy"):
            name = f"{prefix}trainer/{metric}"
            points = dict(self.points(tracker.par_dir, name, *where))
            found[metric] = Series(list(points), list(points.values()))
        return {"trainer": found}

    def check_losses(self, place, epochs, run_id="run"):
        """Demand what `publish_losses` has published, each value once."""
        found = self.points(place, "train/loss", run_id)
        assert [epoch for epoch, _ in found] == list(epochs)
        expected = [epoch / 10 for epoch in epochs]
        same = pytest.approx(expected, rel=self.rel_tolerance, abs=0)
        assert [value for _, value in found] == same

    # -- one process after the other ---------------------------------------------------

    def test_a_resumed_run_repeats_nothing(self, tmp_path):
        train(experiment_with(self.make_untold(tmp_path), tmp_path), [1, 2])
        again = experiment_with(self.make_untold(tmp_path), tmp_path)
        train(again, [3], resume=True)

        self.check_losses(tmp_path, [1, 2, 3])

    def test_a_replay_writes_nothing_twice(self, tmp_path):
        run = train(experiment_with(self.make_untold(tmp_path), tmp_path), [1, 2])
        replay(run, self.make_untold(tmp_path))
        for _ in range(2):
            replay(run, self.make_tracker(tmp_path / "copy"))

        for place in (tmp_path, tmp_path / "copy"):
            self.check_losses(place, [1, 2])

    def test_a_folder_that_cannot_be_written_costs_the_run_nothing(self, tmp_path):
        blocked = tmp_path / "blocked"
        blocked.write_text("a file where a folder should be")
        tracker = self.make_tracker(blocked)
        with (
            pytest.warns(DeliveryWarning, match="missed"),
            pytest.warns(TrackerExceptionWarning, match=f"'{tracker.name}'"),
        ):
            run = train(experiment_with(tracker, tmp_path), range(5))

        assert count_metrics(run.path) == 5
        replay(run, self.make_tracker(tmp_path / "later"))
        self.check_losses(tmp_path / "later", range(5))

    # -- processes of their own --------------------------------------------------------

    def child(self, tmp_path, run_id, mode="go", *said, variables=None, **options):
        """Start a process that trains as `train_as_child` does."""
        suite = type(self)
        return subprocess.Popen(
            [
                *(sys.executable, "-c", _CHILD),
                *(inspect.getfile(suite), suite.__name__),
                *(str(tmp_path), run_id, mode, *said),
            ],
            env={
                **os.environ,
                "DRYTRACK_INIT_MODE": "none",
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                **(variables or {}),
            },
            **options,
        )

    def test_a_killed_run_has_every_value_once_after_a_resume(self, tmp_path):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with self.child(tmp_path, "run", "wait", **pipes) as process:
            # A backend may say things there, too.
            assert any(line.strip() == b"ready" for line in process.stdout)
            process.kill()
        again = experiment_with(self.make_untold(tmp_path), tmp_path)
        train(again, [AFTER.stop], resume=True)

        self.check_losses(tmp_path, range(DELIVERED.start, AFTER.stop + 1))

    def test_two_processes_write_their_runs_side_by_side(self, tmp_path):
        names = ("left", "right")
        children = [self.child(tmp_path, name) for name in names]
        assert [process.wait(300) for process in children] == [0, 0]

        for name in names:
            self.check_losses(tmp_path, [*DELIVERED, *AFTER], name)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_a_forked_child_leaves_the_run_alone(self, tmp_path):
        assert self.child(tmp_path, "run", "fork").wait(300) == 0

        self.check_losses(tmp_path, [*DELIVERED, *AFTER])


_CHILD = "import sys, backend_cases; backend_cases.train_as_child(*sys.argv[1:])"


def train_as_child(file, suite_name, folder, run_id, mode, *said):
    """Train in this process, watched by the tracker of a suite.

    Args:
        file: The module of the suite.
        suite_name: The name of its class.
        folder: Where to write.
        run_id: The run.
        mode: What happens in the middle: "fork" a child that logs and exits, "print"
            what is ``said``, or nothing; with "wait" the run does not end.
        said: What to print.
    """
    spec = importlib.util.spec_from_file_location("suite", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    par_dir = pathlib.Path(folder)
    suite = getattr(module, suite_name)()
    tracker = suite.make_untold(par_dir)
    with experiment_with(tracker, par_dir).create_run(run_id) as run:
        publish_losses(DELIVERED)
        assert run.flush(60)
        if mode == "print":
            print(*said)
        if mode == "fork":
            _fork(suite.end_forked)
        publish_losses(AFTER)
        if mode == "wait":
            print("ready", flush=True)
            sys.stdin.read()


def _fork(end):
    """Log in a forked child, and end it there."""
    child = os.fork()
    if child == 0:
        warnings.simplefilter("ignore")  # it is told that it does not track
        publish_losses([99])
        end(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
