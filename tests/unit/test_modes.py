"""Which trackers each mode starts with, and how to change them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

import drytrack
from drytrack import Experiment, Tracker
from drytrack.core.exceptions import (
    DrytrackWarning,
    TrackerNameError,
    TrackerNotFoundError,
    UnknownModeError,
)
from drytrack.trackers.null import NullTracker
from drytrack.trackers.tqdm import TqdmLogger

TRACKERS = {
    "standard": ["builtin_logging", "tqdm", "yaml"],
    "hydra": ["builtin_logging", "tqdm", "yaml"],
    "minimal": ["builtin_logging", "tqdm"],
    "none": [],
}


@pytest.fixture(autouse=True)
def _no_defaults():
    yield
    drytrack.init_trackers("none")


def names(tmp_path):
    return list(Experiment(name="Digits", par_dir=tmp_path).trackers.named_trackers)


def run_fresh(script, *, mode=None, cwd):
    """Run a script in an interpreter of its own, where no mode was chosen."""
    env = dict(os.environ)
    if mode is not None:
        env["DRYTRACK_INIT_MODE"] = mode
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        encoding="utf-8",
        cwd=cwd,
        env=env,
        check=False,
    )


@pytest.mark.parametrize("mode", TRACKERS)
def test_a_mode_chooses_the_trackers_of_later_experiments(mode, tmp_path):
    drytrack.init_trackers("none")
    earlier = Experiment(name="Earlier", par_dir=tmp_path)

    drytrack.init_trackers(mode)

    assert names(tmp_path) == TRACKERS[mode]
    assert not earlier.trackers.named_trackers


def test_without_an_argument_the_mode_is_standard(tmp_path):
    drytrack.init_trackers()

    assert names(tmp_path) == TRACKERS["standard"]


@pytest.mark.parametrize("mode", [*TRACKERS, None, ""])
def test_the_environment_chooses_the_mode_of_a_fresh_interpreter(mode, tmp_path):
    script = """
        from drytrack import Experiment
        print(*Experiment(name="Digits").trackers.named_trackers)
    """
    done = run_fresh(script, mode=mode, cwd=tmp_path)

    assert done.stderr == ""
    assert done.stdout.split() == TRACKERS[mode or "standard"]


def test_a_call_wins_over_the_environment(tmp_path):
    script = """
        import drytrack
        drytrack.init_trackers("minimal")
        print(*drytrack.Experiment(name="Digits").trackers.named_trackers)
    """
    done = run_fresh(script, mode="none", cwd=tmp_path)

    assert done.stdout.split() == TRACKERS["minimal"]


def test_trackers_can_be_added_before_a_mode_was_chosen(tmp_path):
    script = """
        import drytrack
        from drytrack.trackers.null import NullTracker
        drytrack.extend_default_trackers([NullTracker()])
        print(*drytrack.Experiment(name="Digits").trackers.named_trackers)
    """
    done = run_fresh(script, mode="minimal", cwd=tmp_path)

    assert done.stdout.split() == [*TRACKERS["minimal"], "null"]


@pytest.mark.parametrize("mode", ["quiet", "Standard", "", None, 3])
def test_an_unknown_mode_is_refused_with_a_list_and_changes_nothing(mode, tmp_path):
    drytrack.init_trackers("minimal")

    with pytest.raises(UnknownModeError) as caught:
        drytrack.init_trackers(mode)

    assert repr(mode) in str(caught.value)
    assert "'standard', 'hydra', 'minimal', 'none'" in str(caught.value)
    assert names(tmp_path) == TRACKERS["minimal"]


def test_an_unknown_mode_in_the_environment_is_refused_with_a_list(tmp_path):
    script = "import drytrack; drytrack.Experiment(name='Digits')"
    done = run_fresh(script, mode="quiet", cwd=tmp_path)

    assert done.returncode == 1
    assert "no mode 'quiet'" in done.stderr
    assert "'standard', 'hydra', 'minimal', 'none'" in done.stderr


def test_a_mode_starts_from_new_trackers(tmp_path):
    drytrack.init_trackers("minimal")
    drytrack.extend_default_trackers([NullTracker()])

    drytrack.init_trackers("minimal")

    assert names(tmp_path) == TRACKERS["minimal"]


def test_an_added_tracker_watches_later_experiments(tmp_path):
    drytrack.init_trackers("none")
    added = NullTracker()

    drytrack.extend_default_trackers([added])

    experiment = Experiment(name="Digits", par_dir=tmp_path)
    assert experiment.trackers.named_trackers["null"] is added


def test_a_name_that_is_taken_is_refused_and_none_is_added(tmp_path):
    class Other(Tracker):
        pass

    drytrack.init_trackers("minimal")

    with pytest.raises(TrackerNameError, match="remove_default_tracker"):
        drytrack.extend_default_trackers([Other(), TqdmLogger()])

    assert names(tmp_path) == TRACKERS["minimal"]


def test_what_is_no_tracker_is_refused():
    drytrack.init_trackers("none")

    with pytest.raises(TypeError, match="no tracker"):
        drytrack.extend_default_trackers(["CSVDumper"])


def test_a_default_tracker_can_be_removed(tmp_path):
    drytrack.init_trackers("standard")

    drytrack.remove_default_tracker("tqdm")

    assert names(tmp_path) == ["builtin_logging", "yaml"]


def test_a_default_tracker_is_found_by_its_class_as_well(tmp_path):
    class Named(Tracker):
        name = "short"

    drytrack.init_trackers("none")
    drytrack.extend_default_trackers([Named()])

    drytrack.remove_default_tracker("Named")

    assert names(tmp_path) == []


def test_removing_what_is_not_there_names_what_is():
    drytrack.init_trackers("minimal")

    with pytest.raises(TrackerNotFoundError, match="'builtin_logging', 'tqdm'"):
        drytrack.remove_default_tracker("CSVDumper")


def test_all_default_trackers_can_be_removed(tmp_path):
    drytrack.init_trackers("standard")

    drytrack.remove_all_default_trackers()

    assert names(tmp_path) == []


def test_without_tqdm_the_logger_shows_the_metrics(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tqdm", None)

    with pytest.warns(DrytrackWarning, match="pip install tqdm") as caught:
        drytrack.init_trackers("minimal")

    assert len(caught) == 1
    assert caught[0].filename == __file__
    experiment = Experiment(name="Digits", par_dir=tmp_path)
    (logger,) = experiment.trackers.named_trackers.values()
    assert logger.log_metrics


def test_choosing_a_mode_loads_no_tqdm(tmp_path):
    script = """
        import sys
        import drytrack
        drytrack.init_trackers("standard")
        print(*sorted({"tqdm", "sqlalchemy"} & sys.modules.keys()))
    """
    done = run_fresh(script, cwd=tmp_path)

    assert done.stderr == ""
    assert done.stdout.split() == []
