"""Tests that fail on faults in core/run.py, core/_bus.py or core/_current.py."""

from __future__ import annotations

import warnings

import pytest

from drytrack.core import log_events
from drytrack.core.exceptions import RequiredTrackerError
from drytrack.core.experiment import Experiment
from drytrack.core.track import Tracker
from drytrack.delivery import Required

pytestmark = pytest.mark.usefixtures("no_default_trackers")


class FailsAtStart(Tracker):
    notify = Tracker.notify.extend()

    @notify.register
    def _fail(self, event: log_events.StartExperimentEvent) -> None:
        raise OSError("no server")


class FailsAtStop(Tracker):
    notify = Tracker.notify.extend()

    @notify.register
    def _fail(self, event: log_events.StopExperimentEvent) -> None:
        raise OSError("no server")


def test_required_error_is_not_replaced_by_a_warning_that_is_an_error(tmp_path):
    experiment = Experiment(name="E", par_dir=tmp_path)
    experiment.trackers.subscribe(Required(FailsAtStart()))
    with warnings.catch_warnings(action="error"), pytest.raises(RequiredTrackerError):
        experiment.create_run().start()


def test_the_users_exception_is_not_replaced_by_a_warning_that_is_an_error(tmp_path):
    experiment = Experiment(name="E", par_dir=tmp_path)
    experiment.trackers.subscribe(FailsAtStop())
    with (
        warnings.catch_warnings(action="error"),
        pytest.raises(ValueError, match="mine"),
        experiment.create_run(),
    ):
        raise ValueError("mine")


def test_a_start_that_a_warning_ends_raises_that_warning_and_not_a_later_one(tmp_path):
    from drytrack.core.exceptions import TrackerExceptionWarning

    experiment = Experiment(name="E", par_dir=tmp_path)
    experiment.trackers.subscribe(FailsAtStart())
    with (
        warnings.catch_warnings(action="error"),
        pytest.raises(TrackerExceptionWarning),
    ):
        experiment.create_run().start()
