"""The contract suite passes good trackers and fails each kind of bad one."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import threading

import pytest

from drytrack.core import _defaults, log_events
from drytrack.core._history import Axis
from drytrack.core.exceptions import RequiredTrackerError
from drytrack.core.experiment import Experiment
from drytrack.core.track import Tracker
from drytrack.delivery import Required
from drytrack.testing import Recorder, TrackerContract, capture_events
from drytrack.trackers.base import Dumper, MemoryMetrics, SourcedMetrics, resolve_axis
from drytrack.trackers.null import NullTracker

pytestmark = pytest.mark.usefixtures("no_default_trackers")

HERE = pathlib.Path(__file__)


class Lines(Dumper):
    """Writes a line for each metric; a correct tracker, to be broken below."""

    mode = "a"
    notify = Dumper.notify.extend()

    @notify.register
    def _open_lines(self, event: log_events.StartExperimentEvent) -> None:
        path = self.run_dir / "metrics.jsonl"
        self._file = self.enter_context(path.open(self.mode, buffering=1))
        self._attempt = event.attempt

    @notify.register
    def _add_line(self, event: log_events.MetricEvent) -> None:
        key = [event.model_name, event.source_name, self._attempt, event.epoch]
        self._file.write(json.dumps([*key, dict(event.metrics)]) + "\n")

    def load(self, start, model_name) -> SourcedMetrics:
        axis = Axis()
        path = self.find_run_dir(start) / "metrics.jsonl"
        for line in path.read_text().splitlines() if path.exists() else ():
            model, source, attempt, epoch, metrics = json.loads(line)
            if model == model_name:
                for name, value in metrics.items():
                    axis.add((source, name), (attempt, 0), epoch, value)
        return resolve_axis(axis)


class LinesContract(TrackerContract):
    tracker_class = Lines

    def make_tracker(self, tmp_path):
        return self.tracker_class(tmp_path / "store")

    def read_back(self, tracker, start, model_name):
        return tracker.load(start, model_name)


class TestLines(LinesContract):
    pass


class TestMemoryMetrics(TrackerContract):
    keeps_history = False

    def make_tracker(self, tmp_path):
        return MemoryMetrics()


class InTheBackground(MemoryMetrics):
    background = True


class TestMemoryInTheBackground(TestMemoryMetrics):
    def make_tracker(self, tmp_path):
        return InTheBackground()


class LinesInTheBackground(Lines):
    background = True


class TestLinesInTheBackground(LinesContract):
    tracker_class = LinesInTheBackground


class TestNullTracker(TrackerContract):
    def make_tracker(self, tmp_path):
        return NullTracker()


class TestRequired(LinesContract):
    """A wrapped tracker, whose failure at the start is the run's."""

    def make_tracker(self, tmp_path):
        return Required(Lines(tmp_path / "store"))

    def test_a_failure_at_the_start_is_survived(self, tmp_path):
        with pytest.raises(RequiredTrackerError):
            super().test_a_failure_at_the_start_is_survived(tmp_path)


class TestRecorder(TrackerContract):
    """Nothing can be read back from it, so it need only not fail."""

    def make_tracker(self, tmp_path):
        return Recorder()


class TestClassicForm(TrackerContract):
    """A tracker that takes part by an overridden notify alone."""

    def make_tracker(self, tmp_path):
        return Classic()


class Classic(Tracker):
    def notify(self, event: log_events.Event) -> None:
        self.last = event


class KeepsTheFirstRun(MemoryMetrics):
    notify = MemoryMetrics.notify.extend()

    @notify.register
    def _begin_memory(self, event: log_events.StartExperimentEvent) -> None:
        self._attempts.see(event)


class MixesModels(Lines):
    def load(self, start, model_name):
        axis = Axis()
        path = self.find_run_dir(start) / "metrics.jsonl"
        for line in path.read_text().splitlines():
            _, source, attempt, epoch, metrics = json.loads(line)
            for name, value in metrics.items():
                axis.add((source, name), (attempt, 0), epoch, value)
        return resolve_axis(axis)


class KeepsTheFirstHeader(Lines):
    notify = Lines.notify.extend()

    @notify.register
    def _open_lines(self, event: log_events.StartExperimentEvent) -> None:
        super()._open_lines(event)
        self._names = None

    @notify.register
    def _add_line(self, event: log_events.MetricEvent) -> None:
        self._names = self._names or set(event.metrics)
        kept = {name: event.metrics.get(name, 0.0) for name in self._names}
        key = [event.model_name, event.source_name, self._attempt, event.epoch]
        self._file.write(json.dumps([*key, kept]) + "\n")


class DropsNan(Lines):
    notify = Lines.notify.extend()

    @notify.register
    def _add_line(self, event: log_events.MetricEvent) -> None:
        if event.metrics["loss"] == event.metrics["loss"]:
            super()._add_line(event)


class StartsOver(Lines):
    mode = "w"


class WritesAtTheEnd(Lines):
    notify = Lines.notify.extend()

    @notify.register
    def _open_lines(self, event: log_events.StartExperimentEvent) -> None:
        super()._open_lines(event)
        self._late = []

    @notify.register
    def _add_line(self, event: log_events.MetricEvent) -> None:
        self._late.append(event)

    @notify.register
    def _write_lines(self, event: log_events.StopExperimentEvent) -> None:
        for late in self._late:
            super()._add_line(late)


class CleansUpWhatItNeverMade(Lines):
    def clean_up(self):
        self._file.flush()


class StaysOpenWithoutAStopEvent(Lines):
    notify = Lines.notify.extend()

    @notify.register
    def _open_lines(self, event: log_events.StartExperimentEvent) -> None:
        if vars(self).get("opened"):
            raise RuntimeError("opened twice")
        self.opened = True
        super()._open_lines(event)

    @notify.register
    def _close_lines(self, event: log_events.StopExperimentEvent) -> None:
        self.opened = False


class SharesItsMemory(MemoryMetrics):
    """Its runs write to one dictionary, made before they began."""

    notify = MemoryMetrics.notify.extend()

    @notify.register
    def _begin_memory(self, event: log_events.StartExperimentEvent) -> None:
        if not event.resumed:
            self._axes.clear()
        self._attempts.see(event)


class Raises(Lines):
    notify = Lines.notify.extend()

    @notify.register
    def _fail(self, event: log_events.StepMetricEvent) -> None:
        raise ValueError("no steps here")


class KeepsTheFirstRunContract(TrackerContract):
    keeps_history = False

    def make_tracker(self, tmp_path):
        return KeepsTheFirstRun()


class SharesItsMemoryContract(KeepsTheFirstRunContract):
    def make_tracker(self, tmp_path):
        return SharesItsMemory()


class MixesModelsContract(LinesContract):
    tracker_class = MixesModels


class KeepsTheFirstHeaderContract(LinesContract):
    tracker_class = KeepsTheFirstHeader


class DropsNanContract(LinesContract):
    tracker_class = DropsNan


class StartsOverContract(LinesContract):
    tracker_class = StartsOver


class WritesAtTheEndContract(LinesContract):
    tracker_class = WritesAtTheEnd


class CleansUpWhatItNeverMadeContract(LinesContract):
    tracker_class = CleansUpWhatItNeverMade


class StaysOpenContract(LinesContract):
    tracker_class = StaysOpenWithoutAStopEvent


class RaisesContract(LinesContract):
    tracker_class = Raises


class FailsElsewhereContract(LinesContract):
    def make_tracker(self, tmp_path):
        raise RuntimeError("no tracker for this process")


BROKEN = [
    (KeepsTheFirstRunContract, "test_one_instance_watches_two_runs", "epochs"),
    (MixesModelsContract, "test_two_models_share_a_source", "reads back as"),
    (KeepsTheFirstHeaderContract, "test_a_metric_may_appear_late", "'loss'"),
    (DropsNanContract, "test_nan_and_infinity_are_values", "were published"),
    (StartsOverContract, "test_a_run_is_resumed_in_the_same_process", "read back"),
    (StartsOverContract, "test_a_run_is_resumed_in_a_new_process", "read back"),
    (StartsOverContract, "test_a_killed_run_is_resumed", "read back"),
    (WritesAtTheEndContract, "test_a_killed_run_is_resumed", "read back"),
    (
        CleansUpWhatItNeverMadeContract,
        "test_a_failure_at_the_start_is_survived",
        "failed to clean up",
    ),
    (StaysOpenContract, "test_a_failure_in_the_middle_is_survived", "opened twice"),
    (SharesItsMemoryContract, "test_overlapping_runs_are_kept_apart", "reads back as"),
    (RaisesContract, "test_one_instance_watches_two_runs", "no steps here"),
    (FailsElsewhereContract, "test_a_killed_run_is_resumed", "no tracker for this"),
]


@pytest.mark.parametrize(
    ("contract", "test", "message"),
    BROKEN,
    ids=[f"{contract.__name__}-{test}" for contract, test, _ in BROKEN],
)
def test_the_contract_fails_a_broken_tracker(contract, test, message, tmp_path):
    with pytest.raises(AssertionError) as failure:
        getattr(contract(), test)(tmp_path)

    assert message in str(failure.value)


def test_every_test_of_the_contract_is_failed_by_some_broken_tracker():
    tests = {name for name in dir(TrackerContract) if name.startswith("test_")}

    assert {test for _, test, _ in BROKEN} == tests


def test_a_contract_that_makes_no_tracker_says_what_to_override(tmp_path):
    with pytest.raises(NotImplementedError, match="Override make_tracker"):
        TrackerContract().test_one_instance_watches_two_runs(tmp_path)


def test_a_contract_inside_a_function_says_where_to_put_it(tmp_path):
    class Local(LinesContract):
        pass

    with pytest.raises(TypeError, match="top level of its module"):
        Local().test_a_killed_run_is_resumed(tmp_path)


def test_a_tolerance_forgives_what_single_precision_costs(tmp_path):
    class Rounded(LinesContract):
        rel_tolerance = 1e-6

        def read_back(self, tracker, start, model_name):
            found = tracker.load(start, model_name)
            for series in found.get("trainer", {}).values():
                series.values[:] = [value * (1 + 1e-8) for value in series.values]
            return found

    Rounded().test_nan_and_infinity_are_values(tmp_path / "tolerant")

    Rounded.rel_tolerance = 0.0
    with pytest.raises(AssertionError, match="reads back as"):
        Rounded().test_nan_and_infinity_are_values(tmp_path / "exact")


def test_a_real_fault_can_take_the_place_of_the_raised_one(tmp_path):
    class Closed(LinesContract):
        """Its file is truly closed under the tracker."""

        def break_tracker(self, tracker):
            import contextlib

            @contextlib.contextmanager
            def closed():
                tracker._file.close()
                yield

            return closed()

    Closed().test_a_failure_in_the_middle_is_survived(tmp_path)


def test_pytest_collects_a_users_contract(tmp_path):
    (tmp_path / "test_mine.py").write_text(
        "from drytrack.testing import Recorder, TrackerContract\n"
        "class TestMine(TrackerContract):\n"
        "    def make_tracker(self, tmp_path):\n"
        "        return Recorder()\n"
    )

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "test_mine.py",
        ],
        cwd=tmp_path,
        env={"DRYTRACK_INIT_MODE": "none", "PYTHONPATH": str(HERE.parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "10 passed" in done.stdout, done.stdout + done.stderr


def test_the_module_loads_without_pytest():
    code = "import sys, drytrack.testing; sys.exit('pytest' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_captured_events_come_in_the_order_of_publication(tmp_path):
    experiment = Experiment(name="E", par_dir=tmp_path)

    with capture_events(experiment) as events, experiment.create_run():
        log_events.MetricEvent("m", "s", 1, {"loss": 1.0})

    assert [type(event).__name__ for event in events] == [
        "StartExperimentEvent",
        "MetricEvent",
        "StopExperimentEvent",
    ]


def test_experiments_made_inside_the_block_are_captured(tmp_path):
    def script():
        with Experiment(name="Hidden", par_dir=tmp_path).create_run():
            log_events.MetricEvent("m", "s", 1, {"loss": 1.0})

    with capture_events() as events:
        script()
    script()

    names = [event.exp_name for event in events if hasattr(event, "exp_name")]
    assert names == ["Hidden", "Hidden"]
    assert _defaults.trackers == {}


def test_capturing_inside_a_run_begins_with_its_start(tmp_path):
    experiment = Experiment(name="E", par_dir=tmp_path)

    with experiment.create_run() as run:
        run.register_model(object(), "net")
        log_events.MetricEvent("net", "s", 1, {"loss": 1.0})
        with capture_events() as events:
            log_events.MetricEvent("net", "s", 2, {"loss": 0.5})
        log_events.MetricEvent("net", "s", 3, {"loss": 0.25})

    assert [type(event).__name__ for event in events] == [
        "StartExperimentEvent",
        "ModelRegistrationEvent",
        "MetricEvent",
    ]
    assert events[-1].epoch == 2


def test_captures_may_be_nested_and_trackers_removed(tmp_path):
    experiment = Experiment(name="E", par_dir=tmp_path)

    with capture_events(experiment) as outer, capture_events(experiment) as inner:
        with experiment.create_run():
            pass
        experiment.trackers.remove_all()
        with experiment.create_run():
            pass

    assert len(outer) == len(inner) == 2


def test_events_of_overlapping_runs_are_captured_in_one_list(tmp_path):
    experiment = Experiment(name="E", par_dir=tmp_path)

    def other():
        with experiment.create_run("second"):
            log_events.MetricEvent("m", "s", 2, {"loss": 1.0})

    with capture_events(experiment) as events, experiment.create_run("first"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        log_events.MetricEvent("m", "s", 1, {"loss": 1.0})

    epochs = [e.epoch for e in events if isinstance(e, log_events.MetricEvent)]
    assert epochs == [2, 1]


def test_a_recorder_can_be_subscribed_as_any_tracker(tmp_path):
    recorder = Recorder()
    experiment = Experiment(name="E", par_dir=tmp_path)
    experiment.trackers.subscribe(recorder)

    with experiment.create_run():
        assert Recorder.get_current() is recorder

    assert len(recorder.events) == 2
