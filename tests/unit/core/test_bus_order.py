"""Order, locks and isolation of the bus in the corners."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import drytrack
from drytrack.core import _bus
from drytrack.core.exceptions import (
    BusBusyError,
    RequiredTrackerError,
    TrackerExceptionWarning,
)
from drytrack.core.log_events import (
    Event,
    MetricEvent,
    StartExperimentEvent,
    TextEvent,
)
from drytrack.core.track import Tracker
from drytrack.delivery import Required

# What a failing tracker has missed is told once more when its run stops.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Tracker '.*' has missed:drytrack.core.exceptions.DeliveryWarning"
)


class Recorder(Tracker):
    """Keeps every event of the run that it watches."""

    notify = Tracker.notify.extend()

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Event] = []
        self.cleaned = 0

    @notify.register
    def _keep(self, event: Event) -> None:
        self.seen.append(event)

    def clean_up(self) -> None:
        self.cleaned += 1

    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.seen]

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.seen if isinstance(event, kind)]


class Failing(Recorder):
    """Fails on the metric events whose epoch it is told, and on the start if told."""

    notify = Recorder.notify.extend()

    def __init__(self, *epochs: int, start: bool = False, error: Any = OSError) -> None:
        super().__init__()
        self.epochs = epochs
        self.fail_at_start = start
        self.error = error

    @notify.register
    def _start(self, event: StartExperimentEvent) -> None:
        self.seen.append(event)
        if self.fail_at_start:
            msg = "no start"
            raise self.error(msg)

    @notify.register
    def _fail(self, event: MetricEvent) -> None:
        self.seen.append(event)
        if event.epoch in self.epochs:
            msg = f"disk full at {event.epoch}"
            raise self.error(msg)


class Reacting(Tracker):
    """Does in its handler of metric events what the test tells it."""

    notify = Tracker.notify.extend()

    def __init__(self, reaction: Callable[[MetricEvent], object]) -> None:
        super().__init__()
        self.reaction = reaction

    @notify.register
    def _react(self, event: MetricEvent) -> None:
        self.reaction(event)


@pytest.fixture
def _no_second_try(monkeypatch):
    """Let a suspended tracker be tried again at the stop of the run alone."""
    monkeypatch.setattr("drytrack.core._worker.FIRST_PAUSE_S", 300.0)


@pytest.fixture
def experiment(tmp_path):
    drytrack.init_trackers("none")
    return drytrack.Experiment(name="e", par_dir=tmp_path)


def publish(epoch: int = 1) -> MetricEvent:
    return MetricEvent("m", "s", epoch, {"loss": 1.0})


def run_threads(*targets: Callable[[], object]) -> list[BaseException]:
    errors: list[BaseException] = []

    def guarded(target: Callable[[], object]) -> None:
        try:
            target()
        except BaseException as err:  # noqa: BLE001  # returned
            errors.append(err)

    threads = [
        threading.Thread(target=guarded, args=(t,), daemon=True) for t in targets
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return errors


def test_an_event_published_at_the_start_comes_after_the_start(experiment):
    class Eager(Tracker):
        notify = Tracker.notify.extend()

        @notify.register
        def _start(self, event: StartExperimentEvent) -> None:
            TextEvent("s", "n", 1, "early")

    recorder = Recorder()
    experiment.trackers.subscribe(Eager(), recorder)

    with experiment.create_run(record=False):
        pass

    assert recorder.names() == [
        "StartExperimentEvent",
        "TextEvent",
        "StopExperimentEvent",
    ]


def test_an_error_that_cannot_be_told_does_no_harm(experiment):
    class Speechless(Exception):  # noqa: N818  # its name does not matter
        def __str__(self) -> str:
            raise RuntimeError

    recorder = Recorder()
    experiment.trackers.subscribe(Failing(1, error=Speechless), recorder)

    with experiment.create_run(record=False):
        with pytest.warns(TrackerExceptionWarning, match="Speechless"):
            publish(1)
        publish(2)

    assert len(recorder.of(MetricEvent)) == 2


def test_a_required_tracker_that_fails_at_the_start_stops_the_run(experiment):
    recorder, failing = Recorder(), Failing(start=True)
    experiment.trackers.subscribe(recorder, Required(failing))
    run = experiment.create_run(record=False)

    with pytest.raises(
        RequiredTrackerError, match=r"needs its tracker 'Failing'\..*no start"
    ) as caught:
        run.start()

    assert isinstance(caught.value.__cause__, OSError)
    assert run.status == "failed"
    assert (recorder.cleaned, failing.cleaned) == (1, 1)
    assert recorder.names() == ["StartExperimentEvent", "StopExperimentEvent"]
    failing.fail_at_start = False
    with experiment.create_run(record=False):  # no run is left behind
        publish()


def test_a_handler_that_waits_for_a_thread_that_publishes_does_not_hang_on_a_new_type(
    experiment, monkeypatch
):
    monkeypatch.setattr(_bus, "BUSY_TIMEOUT_S", 0.2)
    errors: list[BaseException] = []
    recorder = Recorder()

    def wait_for_thread(event: MetricEvent) -> None:
        errors.extend(run_threads(run.bind(lambda: TextEvent("s", "n", 1, "t"))))

    experiment.trackers.subscribe(Reacting(wait_for_thread), recorder)
    with experiment.create_run(record=False) as run:
        publish()
        TextEvent("s", "n", 2, "after")

    assert [type(err) for err in errors] == [BusBusyError]
    assert "TextEvent waited 0.2 s for a handler" in str(errors[0])
    assert [event.step for event in recorder.of(TextEvent)] == [2]


def test_a_tracker_that_a_handler_removed_is_not_called_any_more(experiment):
    class Closed(Recorder):
        notify = Recorder.notify.extend()

        @notify.register
        def _use(self, event: MetricEvent) -> None:
            assert not self.cleaned, "called after clean_up"
            self.seen.append(event)

    experiment.trackers.subscribe(
        Reacting(lambda event: experiment.trackers.remove("Closed")),
        Closed(),
    )

    with experiment.create_run(record=False):
        publish()


def test_a_handler_that_waits_for_the_main_thread_to_publish_does_not_hang(
    experiment, monkeypatch
):
    monkeypatch.setattr(_bus, "BUSY_TIMEOUT_S", 0.2)
    inside, proceed = threading.Event(), threading.Event()

    def wait(event: MetricEvent) -> None:
        inside.set()
        assert proceed.wait(10)

    recorder = Recorder()
    experiment.trackers.subscribe(Reacting(wait), recorder)
    with experiment.create_run(record=False) as run:
        TextEvent("s", "n", 0, "before")
        thread = threading.Thread(target=run.bind(publish))
        thread.start()
        inside.wait(10)
        try:
            with pytest.raises(BusBusyError):
                TextEvent("s", "n", 1, "t")
        finally:
            proceed.set()
            thread.join()
