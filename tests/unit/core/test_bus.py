from __future__ import annotations

import inspect
import logging
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import drytrack
from drytrack.core import _bus, log_events
from drytrack.core.exceptions import (
    AccessOutsideScopeError,
    BusBusyError,
    DrytrackWarning,
    RequiredTrackerError,
    TrackerExceptionWarning,
)
from drytrack.core.log_events import (
    ActorRegistrationEvent,
    Event,
    IterateBatchEvent,
    MetricEvent,
    ModelRegistrationEvent,
    StartExperimentEvent,
    StepMetricEvent,
    StopExperimentEvent,
    TextEvent,
)
from drytrack.core.track import Tracker
from drytrack.delivery import Background, Required

pytestmark = pytest.mark.filterwarnings(  # of a failed tracker, as its run stops
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


# -- order ------------------------------------------------------------------------


def test_trackers_are_called_in_the_order_of_subscription(experiment):
    order: list[str] = []
    experiment.trackers.subscribe(
        **{
            name: Reacting(lambda event, name=name: order.append(name))
            for name in "bac"
        }
    )

    with experiment.create_run(record=False):
        publish()

    assert order == ["b", "a", "c"]


def test_when_the_constructor_returns_everyone_has_handled_the_event(experiment):
    recorder = Recorder()
    experiment.trackers.subscribe(recorder)

    with experiment.create_run(record=False):
        for epoch in range(40):
            assert (
                recorder.seen[-1] is publish(epoch) or recorder.seen[-1].epoch == epoch
            )

    assert recorder.names()[0] == "StartExperimentEvent"
    assert recorder.names()[-1] == "StopExperimentEvent"


def test_what_a_handler_publishes_is_queued_in_order(experiment):
    def publish_two(event: MetricEvent) -> None:
        TextEvent("s", "n", event.epoch, "first")
        TextEvent("s", "n", event.epoch, "second")

    recorder = Recorder()
    experiment.trackers.subscribe(Reacting(publish_two), recorder)

    with experiment.create_run(record=False):
        for epoch in range(20):
            publish(epoch)

    told = [
        (type(e).__name__, e.step if isinstance(e, TextEvent) else e.epoch)
        for e in recorder.seen[1:-1]
    ]
    expected = [
        (name, epoch)
        for epoch in range(20)
        for name in ("MetricEvent", "TextEvent", "TextEvent")
    ]
    assert told == expected


def test_events_that_answer_events_are_all_delivered(experiment):
    def count_down(event: MetricEvent) -> None:
        if event.epoch > 0:
            publish(event.epoch - 1)

    recorder = Recorder()
    experiment.trackers.subscribe(Reacting(count_down), recorder)

    with experiment.create_run(record=False):
        publish(2_000)  # deeper than the stack, were it recursion

    assert [event.epoch for event in recorder.of(MetricEvent)] == list(
        range(2_000, -1, -1)
    )


def test_eight_threads_publish_in_one_order_and_nothing_is_lost(experiment):
    first, second = Recorder(), Recorder()
    experiment.trackers.subscribe(first, second=second)

    with experiment.create_run(record=False) as run:

        def work(number: int) -> None:
            for step in range(1_000):
                StepMetricEvent(f"thread {number}", step, {"loss": 1.0})

        errors = run_threads(*(run.bind(lambda n=n: work(n)) for n in range(8)))

    assert errors == []
    assert first.seen == second.seen
    assert len(first.of(StepMetricEvent)) == 8_000
    for number in range(8):
        steps = [
            e.step
            for e in first.of(StepMetricEvent)
            if e.source_name == f"thread {number}"
        ]
        assert steps == list(range(1_000))


def test_eight_threads_and_a_handler_that_publishes_lose_nothing(experiment):
    recorder = Recorder()
    experiment.trackers.subscribe(
        Reacting(lambda event: TextEvent("s", "n", event.epoch, "answer")), recorder
    )

    with experiment.create_run(record=False):
        errors = run_threads(*[lambda: [publish(n) for n in range(200)]] * 8)

    assert errors == []
    assert len(recorder.of(MetricEvent)) == len(recorder.of(TextEvent)) == 1_600


@pytest.mark.parametrize("is_new_type", [False, True])
def test_a_handler_that_waits_for_a_thread_that_publishes_does_not_hang(
    experiment, monkeypatch, is_new_type
):
    monkeypatch.setattr(_bus, "BUSY_TIMEOUT_S", 0.2)
    errors: list[BaseException] = []
    recorder = Recorder()

    def wait_for_thread(event: MetricEvent) -> None:
        errors.extend(run_threads(run.bind(lambda: TextEvent("s", "n", 1, "t"))))

    experiment.trackers.subscribe(Reacting(wait_for_thread), recorder)
    with experiment.create_run(record=False) as run:
        if not is_new_type:
            TextEvent("s", "n", 0, "before")
        publish()
        TextEvent("s", "n", 2, "after")

    assert [type(err) for err in errors] == [BusBusyError]
    assert "TextEvent waited 0.2 s for a handler" in str(errors[0])
    steps = [event.step for event in recorder.of(TextEvent)]
    assert steps == ([2] if is_new_type else [0, 2])


# -- isolation --------------------------------------------------------------------


def test_a_failure_costs_nobody_else_the_event(experiment):
    before, failing, after = Recorder(), Failing(1), Recorder()
    experiment.trackers.subscribe(before, failing, after=after)

    with experiment.create_run(record=False):
        with pytest.warns(TrackerExceptionWarning):
            event = publish()
        assert before.seen[-1] is after.seen[-1] is event


def test_a_failure_is_one_warning_at_the_users_line_with_all_that_is_known(
    experiment, caplog
):
    failing = Failing(12)
    experiment.trackers.subscribe(failing)

    with (
        experiment.create_run(record=False),
        caplog.at_level(logging.DEBUG, "drytrack"),
    ):
        publish(11)
        with pytest.warns(TrackerExceptionWarning) as caught:
            MetricEvent("m", "s", 12, {"loss": inspect.currentframe().f_lineno})

    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert caught[0].lineno == failing.of(MetricEvent)[-1].metrics["loss"]
    said = str(caught[0].message)
    assert said.startswith(
        "Tracker 'Failing' failed on MetricEvent (epoch 12): OSError: disk full at 12. "
    )
    assert "The run goes on" in said
    traced = [record for record in caplog.records if record.exc_info]
    assert "in _fail" in logging.Formatter().formatException(traced[0].exc_info)


def test_the_warning_of_the_first_event_of_a_class_points_at_the_users_line(experiment):
    import dataclasses

    @dataclasses.dataclass(frozen=True)
    class Fresh(Event):
        value: int

    class FailsOnFresh(Tracker):
        notify = Tracker.notify.extend()

        @notify.register(Fresh)
        def _fail(self, event: Fresh) -> None:
            raise ValueError

    experiment.trackers.subscribe(FailsOnFresh())
    with (
        experiment.create_run(record=False),
        pytest.warns(TrackerExceptionWarning) as caught,
    ):
        Fresh(1)

    assert caught[0].filename == __file__


def test_warnings_turned_into_errors_cost_nobody_the_event(experiment):
    recorder = Recorder()
    experiment.trackers.subscribe(Failing(1), two=Failing(1), recorder=recorder)

    with experiment.create_run(record=False), warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TrackerExceptionWarning, match="'Failing' failed") as caught:
            publish(1)
        assert len(recorder.of(MetricEvent)) == 1
        assert isinstance(caught.value.__cause__, OSError)
        publish(2)

    assert len(recorder.of(MetricEvent)) == 2


def test_two_failures_are_two_warnings(experiment):
    experiment.trackers.subscribe(Failing(1), two=Failing(1))

    with (
        experiment.create_run(record=False),
        pytest.warns(TrackerExceptionWarning) as caught,
    ):
        publish(1)

    assert sorted(str(w.message).split()[1] for w in caught) == ["'Failing'", "'two'"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_a_handler_passes_and_leaves_the_bus_usable(experiment, error):
    recorder = Recorder()
    experiment.trackers.subscribe(Failing(1, 3, error=error), recorder)

    with experiment.create_run(record=False):
        with pytest.raises(error):
            publish(1)
        second = publish(2)
        assert recorder.seen[-1] is second
        # Another thread is let in as well.
        errors = run_threads(lambda: TextEvent("s", "n", 1, "t"))
        assert errors == []
        assert isinstance(recorder.seen[-1], TextEvent)


# -- suspension -------------------------------------------------------------------


@pytest.mark.usefixtures("_no_second_try")
def test_three_failures_in_a_row_suspend_a_tracker_that_is_still_cleaned_up(experiment):
    failing, recorder = Failing(*range(1, 99)), Recorder()
    experiment.trackers.subscribe(failing, recorder)

    with (
        warnings.catch_warnings(record=True) as caught,
        experiment.create_run(record=False),
    ):
        warnings.simplefilter("always")
        for epoch in range(1, 7):
            publish(epoch)
        assert [event.epoch for event in failing.of(MetricEvent)] == [1, 2, 3]
        assert failing.cleaned == 0

    failures = [str(w.message) for w in caught if "failed on" in str(w.message)]
    assert len(failures) == 3
    assert "It is suspended" in failures[2]
    assert len(recorder.of(MetricEvent)) == 6
    assert failing.cleaned == 1


def test_a_success_forgives_earlier_failures(experiment):
    failing = Failing(1, 2, 4, 5, 7, 8)
    experiment.trackers.subscribe(failing)

    with experiment.create_run(record=False):
        for epoch in range(1, 10):
            if epoch % 3:
                with pytest.warns(TrackerExceptionWarning, match="The run goes on"):
                    publish(epoch)
            else:
                publish(epoch)

    assert len(failing.of(MetricEvent)) == 9
    assert failing.names()[-1] == "StopExperimentEvent"


@pytest.mark.usefixtures("_no_second_try")
def test_a_failure_at_the_start_suspends_at_once(experiment):
    failing, recorder = Failing(start=True), Recorder()
    experiment.trackers.subscribe(failing, recorder)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with experiment.create_run(record=False):  # in this order
            publish()
            assert failing.names() == ["StartExperimentEvent"]

    assert (
        "'Failing' failed on StartExperimentEvent: OSError: no start. It is suspended"
        in str(caught[0].message)
    )
    assert "MetricEvent" not in failing.names()
    assert failing.cleaned == 1
    assert len(recorder.of(MetricEvent)) == 1


def test_the_next_run_starts_a_suspended_tracker_afresh(experiment):
    failing = Failing(start=True)
    experiment.trackers.subscribe(failing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DrytrackWarning)  # it fails by intent
        with experiment.create_run(record=False):
            pass
    failing.fail_at_start = False

    with experiment.create_run(record=False):
        publish()

    assert failing.names()[-3:] == [
        "StartExperimentEvent",
        "MetricEvent",
        "StopExperimentEvent",
    ]


@pytest.mark.usefixtures("_no_second_try")
def test_contexts_that_a_failed_start_had_entered_are_left(experiment):
    left: list[str] = []
    tries: list[str] = []

    class HalfWay(Tracker):
        notify = Tracker.notify.extend()

        @notify.register
        def _start(self, event: StartExperimentEvent) -> None:
            from contextlib import ExitStack

            stack = ExitStack()
            stack.callback(left.append, "file")
            tries.append(event.run_id)
            self.enter_context(stack)
            raise OSError

    experiment.trackers.subscribe(HalfWay())
    with pytest.warns(TrackerExceptionWarning), experiment.create_run(record=False):
        pass

    # Once for each try: the second one is made at the stop.
    assert left == ["file"] * len(tries)


def test_a_failure_to_clean_up_is_told_and_hurts_nobody(experiment):
    class Messy(Recorder):
        def clean_up(self) -> None:
            msg = "cannot close"
            raise OSError(msg)

    first, last = Recorder(), Recorder()
    experiment.trackers.subscribe(first, Messy(), last=last)

    with (
        pytest.warns(
            TrackerExceptionWarning,
            match="'Messy' failed to clean up: OSError: cannot close",
        ),
        experiment.create_run(record=False),
    ):
        pass

    assert (first.cleaned, last.cleaned) == (1, 1)


def test_a_required_tracker_that_fails_later_is_like_any_other(experiment):
    failing = Failing(1)
    experiment.trackers.subscribe(Required(failing))

    with experiment.create_run(record=False):
        with pytest.warns(TrackerExceptionWarning):
            publish(1)
        publish(2)

    assert len(failing.of(MetricEvent)) == 2


# -- trackers that come and go ----------------------------------------------------


class Net:
    pass


class Trainer:
    pass


def test_a_late_tracker_is_told_the_start_and_the_registrations(experiment):
    recorder = Recorder()

    with experiment.create_run("r", record=False) as run:
        net = run.register_model(Net(), "net")
        run.register_actor(Trainer(), net, "trainer")
        publish(1)
        experiment.trackers.subscribe(recorder)
        assert recorder.start_event.run_id == "r"
        assert Recorder.get_current() is recorder
        publish(2)

    assert recorder.names() == [
        "StartExperimentEvent",
        "ModelRegistrationEvent",
        "ActorRegistrationEvent",
        "MetricEvent",
        "StopExperimentEvent",
    ]
    assert recorder.of(ModelRegistrationEvent)[0].model_name == "net"
    assert recorder.of(ActorRegistrationEvent)[0].actor_name == "trainer"
    assert [event.epoch for event in recorder.of(MetricEvent)] == [2]
    assert recorder.cleaned == 1


@pytest.mark.usefixtures("_no_second_try")
def test_a_late_tracker_that_fails_at_its_start_is_suspended(experiment):
    failing = Failing(start=True)

    with experiment.create_run(record=False):
        with pytest.warns(TrackerExceptionWarning, match="It is suspended") as caught:
            experiment.trackers.subscribe(failing)
        publish()
        assert failing.names() == ["StartExperimentEvent"]

    assert caught[0].filename == __file__
    assert "MetricEvent" not in failing.names()


def test_a_removed_tracker_is_cleaned_up_and_hears_no_more(experiment):
    recorder, other = Recorder(), Recorder()
    experiment.trackers.subscribe(recorder, other=other)

    with experiment.create_run(record=False):
        publish(1)
        experiment.trackers.remove("Recorder")
        assert recorder.cleaned == 1
        publish(2)

    assert recorder.names() == ["StartExperimentEvent", "MetricEvent"]
    assert recorder.cleaned == 1
    assert len(other.of(MetricEvent)) == 2


def test_a_handler_may_subscribe_a_tracker(experiment):
    late = Recorder()
    experiment.trackers.subscribe(
        Reacting(lambda event: event.epoch == 1 and experiment.trackers.subscribe(late))
    )

    with experiment.create_run(record=False):
        publish(1)
        publish(2)

    assert late.names()[0] == "StartExperimentEvent"
    assert [event.epoch for event in late.of(MetricEvent)][-1] == 2
    assert late.names().count("StartExperimentEvent") == 1


def test_a_handler_may_remove_its_own_tracker(experiment):
    heard: list[int] = []

    def leave(event: MetricEvent) -> None:
        heard.append(event.epoch)
        experiment.trackers.remove("leaving")

    recorder = Recorder()
    experiment.trackers.subscribe(leaving=Reacting(leave), recorder=recorder)

    with experiment.create_run(record=False):
        publish(1)
        publish(2)

    assert heard == [1]
    assert len(recorder.of(MetricEvent)) == 2


@pytest.mark.parametrize("record", [True, False])
def test_a_handler_may_stop_the_run_and_all_have_its_event_first(experiment, record):
    def stop(event: MetricEvent) -> None:
        TextEvent("s", "n", event.epoch, "the end")
        run.stop("failed")

    class Open(Recorder):
        notify = Recorder.notify.extend()

        @notify.register
        def _keep_until_cleaned(self, event: Event) -> None:
            assert not self.cleaned
            self.seen.append(event)

    before, behind, after = Open(), Open(), Open()
    experiment.trackers.subscribe(
        before, Reacting(stop), after=after, behind=Background(behind)
    )

    run = experiment.create_run(record=record).start()
    publish(1)

    assert run.status == "failed"
    for tracker in (before, after, behind):
        assert tracker.names() == [
            "StartExperimentEvent",
            "MetricEvent",
            "TextEvent",
            "StopExperimentEvent",
        ]
        assert tracker.cleaned == 1
    with pytest.raises(AccessOutsideScopeError):
        publish(2)


def test_a_handler_of_the_start_may_stop_the_run(experiment):
    class Refuses(Tracker):
        notify = Tracker.notify.extend()

        @notify.register
        def _start(self, event: StartExperimentEvent) -> None:
            run.stop("failed")

    recorder = Recorder()
    experiment.trackers.subscribe(Refuses(), recorder)
    run = experiment.create_run()
    run.start()

    assert run.status == "failed"
    assert recorder.names() == ["StartExperimentEvent", "StopExperimentEvent"]
    assert recorder.cleaned == 1
    assert not any(t.name == "drytrack-record" for t in threading.enumerate())


def test_an_event_type_that_nobody_handles_costs_nothing_and_is_heard_later(experiment):
    recorder = Recorder()

    with experiment.create_run(record=False) as run:
        publish(1)
        assert run.routes[MetricEvent] is None
        experiment.trackers.subscribe(recorder)
        publish(2)

    assert [event.epoch for event in recorder.of(MetricEvent)] == [2]


def test_trackers_come_and_go_while_eight_threads_publish(experiment):
    steady = Recorder()
    experiment.trackers.subscribe(steady)
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            experiment.trackers.subscribe(guest=Recorder())
            experiment.trackers.remove("guest")

    def work() -> None:
        for epoch in range(300):
            publish(epoch)

    with experiment.create_run(record=False):
        coming = threading.Thread(target=come_and_go)
        coming.start()
        errors = run_threads(*[work] * 8)
        over.set()
        coming.join()

    assert errors == []
    assert len(steady.of(MetricEvent)) == 2_400


# -- callbacks of batches ---------------------------------------------------------


def test_callbacks_that_trackers_pushed_are_called_for_each_update(experiment):
    got: list[Any] = []

    class Bar(Tracker):
        notify = Tracker.notify.extend()

        @notify.register
        def _begin(self, event: IterateBatchEvent) -> None:
            event.push_updates.append(
                lambda metrics, n: got.append((metrics["loss"], n))
            )

    experiment.trackers.subscribe(Bar(), second=Bar())
    with experiment.create_run(record=False):
        event = IterateBatchEvent("s", 32, 10, 320)
        event.update({"loss": 0.5})
        event.update({"loss": 0.25}, n_processes=4)

    assert got == [(0.5, 1), (0.5, 1), (0.25, 4), (0.25, 4)]


def test_a_callback_that_fails_is_isolated_and_not_called_again(experiment):
    calls: list[str] = []

    def fail(metrics: Any, n_processes: int) -> None:
        calls.append("failing")
        msg = "terminal gone"
        raise OSError(msg)

    with experiment.create_run(record=False):
        event = IterateBatchEvent("s", 32, 10, 320)
        event.push_updates.extend([fail, lambda metrics, n: calls.append("next")])
        with pytest.warns(
            TrackerExceptionWarning,
            match="fail failed on a batch of 's'.*OSError: terminal gone",
        ) as caught:
            event.update({"loss": 0.5})
        event.update({"loss": 0.5})

    assert caught[0].filename == __file__
    assert calls == ["failing", "next", "next"]


# -- threads that wait ------------------------------------------------------------


def test_a_slow_handler_makes_other_threads_wait_not_fail(experiment):
    recorder = Recorder()
    experiment.trackers.subscribe(Reacting(lambda event: time.sleep(0.01)), recorder)

    with experiment.create_run(record=False):
        errors = run_threads(*[lambda: [publish(n) for n in range(5)]] * 4)

    assert errors == []
    assert len(recorder.of(MetricEvent)) == 20


def test_the_stop_event_is_the_last_and_everyone_gets_it(experiment):
    failing, recorder = Failing(1), Recorder()
    experiment.trackers.subscribe(failing, recorder)

    with (
        pytest.warns(TrackerExceptionWarning),
        experiment.create_run("r", record=False),
    ):
        publish(1)

    for tracker in (failing, recorder):
        assert isinstance(tracker.seen[-1], StopExperimentEvent)
        assert tracker.seen[-1] == log_events.StopExperimentEvent.unpublished("e", "r")


# -- corners ----------------------------------------------------------------------


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
