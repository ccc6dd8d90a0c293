from __future__ import annotations

import threading
from typing import Any
from unittest import mock

import pytest

import drytrack
from drytrack.core import log_events
from drytrack.core.exceptions import (
    AccessOutsideScopeError,
    HandlerError,
    TrackerNameError,
    TrackerNotFoundError,
)
from drytrack.core.log_events import Event, MetricEvent, StartExperimentEvent
from drytrack.core.track import EventDispatcher, Tracker
from drytrack.delivery import Required


class Recorder(Tracker):
    notify = Tracker.notify.extend()

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[list[str]] = []
        self.cleaned = 0

    @notify.register
    def _begin(self, event: StartExperimentEvent) -> None:
        self.runs.append([])
        self.run = self.runs[-1]

    @notify.register
    def _keep(self, event: Event) -> None:
        self.run.append(type(event).__name__)

    def clean_up(self) -> None:
        self.cleaned += 1


class Derived(Recorder):
    notify = Recorder.notify.extend()


class Named(Recorder):
    name = "by hand"
    notify = Recorder.notify.extend()


@pytest.fixture
def experiment(tmp_path):
    drytrack.init_trackers("none")
    return drytrack.Experiment(name="e", par_dir=tmp_path)


def publish() -> MetricEvent:
    return MetricEvent("m", "s", 1, {"loss": 1.0})


# -- names -------------------------------------------------------------------------


def test_a_tracker_goes_by_its_name_or_by_that_of_its_class(experiment):
    recorder, derived, named = Recorder(), Derived(), Named()

    experiment.trackers.subscribe(recorder, derived, named, other=Recorder())

    assert list(experiment.trackers.named_trackers) == [
        "Recorder",
        "Derived",
        "by hand",
        "other",
    ]
    assert experiment.trackers.named_trackers["by hand"] is named


def test_a_second_tracker_of_a_name_needs_one_of_its_own(experiment):
    experiment.trackers.subscribe(Recorder())

    for more in ([Recorder()], [Derived(), Recorder()]):
        with pytest.raises(TrackerNameError, match=r"second_Recorder=Recorder\("):
            experiment.trackers.subscribe(*more)
    with pytest.raises(TrackerNameError, match="'Recorder' is subscribed"):
        experiment.trackers.subscribe(Derived(), Recorder=Derived())
    assert list(experiment.trackers.named_trackers) == ["Recorder"]


@pytest.mark.parametrize(
    "wrong", [None, 3, "csv", Recorder, object(), lambda event: None]
)
def test_what_is_no_tracker_is_refused(experiment, wrong):
    with pytest.raises(TypeError, match="subscribe takes trackers, got"):
        experiment.trackers.subscribe(Recorder(), wrong)

    assert not experiment.trackers.named_trackers


def test_what_is_no_tracker_is_refused_under_a_name_too(experiment):
    with pytest.raises(TypeError, match="subscribe takes trackers, got int"):
        experiment.trackers.subscribe(Recorder(), wrong=3)

    assert not experiment.trackers.named_trackers


def test_the_named_trackers_cannot_be_changed(experiment):
    with pytest.raises(TypeError):
        experiment.trackers.named_trackers["x"] = Recorder()


def test_a_tracker_is_removed_by_its_name_or_its_class(experiment):
    experiment.trackers.subscribe(Named(), other=Derived())

    experiment.trackers.remove("Derived")
    assert list(experiment.trackers.named_trackers) == ["by hand"]
    experiment.trackers.remove("by hand")
    assert not experiment.trackers.named_trackers


def test_removing_or_resuming_what_is_not_there_tells_what_is(experiment):
    experiment.trackers.subscribe(Recorder(), one=Derived(), two=Derived())

    for name in ("Csv", "Derived"):  # not there; not to be told apart
        with pytest.raises(
            TrackerNotFoundError, match="Subscribed: 'Recorder', 'one', 'two'"
        ):
            experiment.trackers.remove(name)
    with pytest.raises(TrackerNotFoundError, match="No tracker is named 'Csv'"):
        experiment.trackers.resume("Csv")
    experiment.trackers.remove_all()
    with pytest.raises(TrackerNotFoundError, match="Subscribed: none"):
        experiment.trackers.remove("Recorder")


# -- get_current -------------------------------------------------------------------


def test_the_current_tracker_is_found_from_every_class_of_its_line(experiment):
    derived = Derived()
    experiment.trackers.subscribe(derived)

    with experiment.create_run(record=False):
        assert Derived.get_current() is derived
        assert Recorder.get_current() is derived
        assert Tracker.get_current() is derived
        with pytest.raises(
            TrackerNotFoundError, match=r"of class Named watches.*subscribe\(Named"
        ):
            Named.get_current()


def test_one_of_several_trackers_is_found_by_name(experiment):
    first, second = Recorder(), Derived()
    experiment.trackers.subscribe(first, second=second)

    with experiment.create_run(record=False):
        assert Derived.get_current() is second
        assert Recorder.get_current("second") is second
        assert Recorder.get_current("Recorder") is first
        with pytest.raises(
            TrackerNameError,
            match=r"^2 trackers .*'second'.*: Recorder\.get_current\('Recorder'\)",
        ):
            Recorder.get_current()
        with pytest.raises(TrackerNotFoundError, match="named 'third'"):
            Recorder.get_current("third")


def test_outside_a_run_there_is_no_current_tracker():
    with pytest.raises(AccessOutsideScopeError):
        Recorder.get_current()


def test_a_wrapper_is_transparent(experiment):
    recorder = Recorder()
    experiment.trackers.subscribe(Required(Required(recorder)))

    assert list(experiment.trackers.named_trackers) == ["Recorder"]
    with experiment.create_run(record=False):
        publish()
        assert Recorder.get_current() is recorder
    assert recorder.runs == [["MetricEvent", "StopExperimentEvent"]]
    experiment.trackers.remove("Recorder")


@pytest.mark.parametrize("wrong", [None, Recorder, "csv"])
def test_a_wrapper_wraps_trackers_alone(wrong):
    with pytest.raises(TypeError, match="Required wraps a tracker, got"):
        Required(wrong)


# -- one run after the other, and at once --------------------------------------------


def test_one_instance_watches_runs_one_after_the_other(experiment):
    recorder = Recorder()
    experiment.trackers.subscribe(recorder)

    for _ in range(2):
        with experiment.create_run(record=False):
            publish()
            assert Recorder.get_current() is recorder

    assert recorder.runs == [["MetricEvent", "StopExperimentEvent"]] * 2
    assert recorder.cleaned == 2


def test_runs_that_overlap_each_have_a_copy(experiment):
    recorder = Recorder()
    experiment.trackers.subscribe(recorder, required=Required(Derived()))

    with experiment.create_run("outer", record=False) as outer:
        with experiment.create_run("inner", record=False, parent=outer):
            inner_tracker = Recorder.get_current("Recorder")
            inner_wrapped = Derived.get_current()
            assert inner_tracker.start_event.run_id == "inner"
            assert inner_wrapped.start_event.run_id == "inner"
        assert inner_tracker is not recorder
        assert Recorder.get_current("Recorder") is recorder
        assert Derived.get_current() is not inner_wrapped
        assert recorder.start_event.run_id == "outer"
        publish()

    assert "MetricEvent" in recorder.run
    assert "MetricEvent" not in inner_tracker.run


def test_an_instance_under_two_names_is_two_trackers(experiment):
    recorder = Recorder()
    experiment.trackers.subscribe(recorder, again=recorder)

    with experiment.create_run(record=False):
        first, second = Recorder.get_current("Recorder"), Recorder.get_current("again")

    assert {first is recorder, second is recorder} == {True, False}


def test_eight_runs_that_start_at_once_each_have_a_tracker_of_their_own(experiment):
    experiment.trackers.subscribe(Recorder())
    barrier = threading.Barrier(8)
    found: list[tuple[str, Tracker, str]] = []
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(5):
                run_id = f"{number} {turn}"
                barrier.wait()
                with experiment.create_run(run_id, record=False):
                    tracker = Recorder.get_current()
                    barrier.wait()
                    publish()
                    found.append((run_id, tracker, tracker.start_event.run_id))
        except BaseException as err:  # noqa: BLE001  # reported below
            errors.append(err)
            barrier.abort()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert len(found) == 40
    assert all(run_id == watched for run_id, _, watched in found)


def test_a_tracker_has_no_run_outside_one():
    recorder = Recorder()

    for access in (
        lambda: recorder.start_event,
        lambda: recorder.state,
        lambda: recorder.enter_context(mock.MagicMock()),
    ):
        with pytest.raises(
            AccessOutsideScopeError, match=r"'Recorder' watches no run\. Subscribe"
        ):
            access()


def test_contexts_are_left_in_reverse_order_when_the_run_ends(experiment):
    left: list[str] = []

    class Opener(Tracker):
        notify = Tracker.notify.extend()

        @notify.register
        def _open_all(self, event: StartExperimentEvent) -> None:
            for name in ("first", "second"):
                context = mock.MagicMock()
                context.__exit__.side_effect = lambda *_, name=name: left.append(name)
                self.enter_context(context)

        @notify.register
        def _stop(self, event: log_events.StopExperimentEvent) -> None:
            left.append("stop")

        def clean_up(self) -> None:
            left.append("clean up")

    experiment.trackers.subscribe(Opener())
    with experiment.create_run(record=False):
        pass

    assert left == ["stop", "clean up", "second", "first"]


# -- mocks and patches ---------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: mock.create_autospec(Tracker, instance=True),
        lambda: mock.MagicMock(spec=Tracker),
        lambda: mock.create_autospec(Recorder, instance=True),
    ],
)
def test_a_mock_is_called_through_its_notify(experiment, make):
    tracker = make()
    experiment.trackers.subscribe(mocked=tracker)

    with experiment.create_run(record=False):
        event = publish()
        assert Tracker.get_current() is tracker

    seen = [type(call.args[0]).__name__ for call in tracker.notify.call_args_list]
    assert seen == ["StartExperimentEvent", "MetricEvent", "StopExperimentEvent"]
    assert tracker.notify.call_args_list[1].args[0] is event
    tracker.clean_up.assert_called_once_with()
    experiment.trackers.remove("mocked")


def test_a_patched_instance_is_called_through_its_notify(experiment):
    recorder = Recorder()
    experiment.trackers.subscribe(recorder)

    with (
        mock.patch.object(recorder, "notify") as notify,
        experiment.create_run(record=False),
    ):
        publish()

    assert notify.call_count == 3
    assert recorder.runs == []


def test_a_patched_class_is_called_through_its_notify(experiment):
    experiment.trackers.subscribe(Derived())

    with (
        mock.patch.object(Derived, "notify") as notify,
        experiment.create_run(record=False),
    ):
        publish()

    assert notify.call_count == 3


def test_a_handler_that_is_patched_is_called(experiment):
    recorder, derived = Recorder(), Derived()
    experiment.trackers.subscribe(recorder, derived)

    with (
        mock.patch.object(Recorder, "_keep", autospec=True) as of_class,
        mock.patch.object(derived, "_keep") as of_instance,
        experiment.create_run(record=False),
    ):
        event = publish()

    assert mock.call(recorder, event) in of_class.call_args_list
    assert mock.call(event) in of_instance.call_args_list
    assert recorder.run == derived.run == []


# -- publishing through the dispatcher -------------------------------------------------


@pytest.mark.parametrize("name", ["clean_up", "flush", "last_seq", "_enter_run"])
def test_a_handler_may_not_hide_what_the_bus_calls(name):
    def handler(self: Tracker, event: MetricEvent) -> None:
        raise AssertionError

    notify = Tracker.notify.extend()
    notify.register(MetricEvent, handler)
    with pytest.raises(HandlerError, match=rf"Hiding\.{name} .* another name"):
        type("Hiding", (Tracker,), {"notify": notify, name: handler})


def test_a_handler_may_have_any_other_name(experiment):
    class Opener(Tracker):
        notify = Tracker.notify.extend()

        @notify.register
        def _open(self, event: log_events.StartExperimentEvent) -> None:
            self.opened = True

        @notify.register
        def _close(self, event: log_events.StopExperimentEvent) -> None:
            self.opened = False

    tracker = Opener()
    experiment.trackers.subscribe(tracker)
    with experiment.create_run():
        assert tracker.opened
    assert not tracker.opened


def test_an_event_that_was_built_silently_can_be_published(experiment):
    recorder = Recorder()
    experiment.trackers.subscribe(recorder)
    event = MetricEvent.unpublished("m", "s", 1, {"loss": 1.0})

    with pytest.raises(AccessOutsideScopeError, match="0 active runs"):
        experiment.trackers.publish(event)
    with experiment.create_run(record=False):
        experiment.trackers.publish(event)

    assert recorder.run == ["MetricEvent", "StopExperimentEvent"]


def test_an_event_goes_to_the_run_of_the_context(experiment):
    recorder = Recorder()
    experiment.trackers.subscribe(recorder)
    event = MetricEvent.unpublished("m", "s", 1, {"loss": 1.0})
    errors: list[Any] = []

    def in_no_run() -> None:
        try:
            experiment.trackers.publish(event)
        except AccessOutsideScopeError as err:
            errors.append(err)

    with (
        experiment.create_run("outer", record=False) as outer,
        experiment.create_run("inner", record=False, parent=outer),
    ):
        experiment.trackers.publish(event)
        inner = Recorder.get_current()
        thread = threading.Thread(target=in_no_run)
        thread.start()
        thread.join()

    assert "MetricEvent" in inner.run
    assert "MetricEvent" not in recorder.run
    assert "2 active runs" in str(errors[0])


def test_a_dispatcher_starts_without_trackers():
    assert dict(EventDispatcher().named_trackers) == {}
