"""The machine, measured while a run goes on."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from drytrack.core.exceptions import ConfigurationError, MissingDependencyError
from drytrack.core.log_events import StepMetricEvent, StopExperimentEvent
from drytrack.replay import replay
from drytrack.trackers.system import SystemMonitor, SystemProbe

pytestmark = pytest.mark.needs("psutil")


@pytest.fixture
def experiment(experiment):
    experiment.trackers.subscribe(SystemMonitor(interval_s=0.05))
    return experiment


def measured(recorder):
    return [e for e in recorder.events if isinstance(e, StepMetricEvent)]


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def monitors():
    return [t for t in threading.enumerate() if t.name == "drytrack-system"]


def test_the_machine_is_measured_until_the_run_ends(experiment, recorder):
    with experiment.create_run():
        wait_for(lambda: len(measured(recorder)) >= 3)
    wait_for(lambda: not monitors())

    for event in measured(recorder):
        assert (event.source_name, event.axis) == ("system", "seconds")
        assert event.step >= 0
        assert 0 < event.metrics["memory_percent"] < 100
        assert event.metrics["process_memory_gb"] > 0
        assert event.metrics["cpu_percent"] >= 0
    assert isinstance(recorder.events[-1], StopExperimentEvent)


def test_rates_are_known_from_the_second_reading_on(experiment, recorder):
    with experiment.create_run():
        wait_for(lambda: measured(recorder))

    assert measured(recorder)[0].metrics["network_sent_mb_s"] >= 0


def test_a_resumed_run_counts_its_seconds_on(experiment, recorder):
    with experiment.create_run("a"):
        wait_for(lambda: measured(recorder))
    time.sleep(1.0)
    with experiment.create_run("a", resume=True):
        wait_for(lambda: measured(recorder)[-1].step >= 1)


def test_a_replay_measures_nothing(experiment, tmp_path):
    experiment.trackers.remove_all()
    with experiment.create_run() as run:
        run.log({"loss": 1.0})

    replay(run, SystemMonitor(interval_s=0.05))

    assert not monitors()


def test_another_rank_measures_nothing(experiment):
    with experiment.create_run(rank=1):
        assert not monitors()


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf")])
def test_an_interval_that_is_none_is_refused(interval):
    with pytest.raises(ConfigurationError, match="interval_s is"):
        SystemMonitor(interval_s=interval)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)

    with pytest.raises(MissingDependencyError, match=r"drytrack\[system\]"):
        SystemMonitor()
    with pytest.raises(MissingDependencyError, match=r"drytrack\[system\]"):
        SystemProbe()
