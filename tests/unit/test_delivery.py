"""How trackers are fed: in the background, sampled, suspended, catching up."""

from __future__ import annotations

import threading
import time
import tracemalloc
import warnings

import numpy as np
import pytest

from drytrack import Experiment, Tracker
from drytrack.core import _bus, _worker, log_events
from drytrack.core.exceptions import (
    DeliveryWarning,
    RequiredTrackerError,
    TrackerExceptionWarning,
)
from drytrack.core.journal import JournalReader
from drytrack.delivery import Background, Inline, Required, Sampled

pytestmark = pytest.mark.usefixtures("no_default_trackers")

FAILED = "ignore::drytrack.core.exceptions.TrackerExceptionWarning"
MISSED = "ignore::drytrack.core.exceptions.DeliveryWarning"


class Keeper(Tracker):
    """Keeps what it gets, and in which thread."""

    notify = Tracker.notify.extend()

    def __init__(self):
        self.seen = []
        self.threads = set()
        self.flushed = []
        self.cleaned = 0

    @notify.register
    def _keep(self, event: log_events.Event) -> None:
        self.check(event)
        self.seen.append(event)
        self.threads.add(threading.current_thread())

    def check(self, event):
        """Fail or wait, in tests that want so."""

    def flush(self):
        self.flushed.append(len(self.seen))

    def clean_up(self):
        self.cleaned += 1

    @property
    def steps(self):
        return [e.step for e in self.seen if isinstance(e, log_events.StepMetricEvent)]

    @property
    def names(self):
        return [type(event).__name__.removesuffix("Event") for event in self.seen]


class Gated(Keeper):
    """Waits at a gate before each event."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()

    def check(self, event):
        assert self.gate.wait(60)


class Broken(Keeper):
    """Fails while it is broken."""

    broken = True

    def check(self, event):
        if self.broken and not isinstance(event, log_events.StartExperimentEvent):
            raise OSError("the server is gone")


class Idempotent(Keeper):
    """Knows what it has kept, and takes nothing twice."""

    def __init__(self):
        super().__init__()
        self.rows = {}

    def check(self, event):
        if isinstance(event, log_events.StepMetricEvent):
            assert event.stamp.seq not in self.rows
            self.rows[event.stamp.seq] = event

    def last_seq(self):
        return max(self.rows, default=0)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(_worker, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(_worker, "POLL_S", 0.002)


@pytest.fixture
def experiment(tmp_path):
    return Experiment({"lr": 0.1}, name="E", par_dir=tmp_path)


def publish(first, last):
    for number in range(first, last + 1):
        log_events.StepMetricEvent("s", number, {"loss": number / 2})


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def journaled(run):
    return [
        event.step
        for event in JournalReader(run.path)
        if isinstance(event, log_events.StepMetricEvent)
    ]


# -- in the background -------------------------------------------------------------


@pytest.mark.parametrize("record", [True, False])
def test_a_background_tracker_gets_everything_in_order_in_one_other_thread(
    experiment, record
):
    tracker = Keeper()
    experiment.trackers.subscribe(Background(tracker))

    with experiment.create_run(record=record) as run:
        publish(1, 1000)
        assert run.flush(30)
        assert tracker.steps == list(range(1, 1001))

    assert tracker.names == [
        "StartExperiment",
        *["StepMetric"] * 1000,
        "StopExperiment",
    ]
    numbers = [event.stamp.seq for event in tracker.seen]
    assert numbers == list(range(numbers[0], numbers[0] + 1002))
    (thread,) = tracker.threads
    assert thread is not threading.main_thread()
    assert tracker.cleaned == 1


def test_the_class_says_and_a_wrapper_overrules(experiment):
    class Slow(Keeper):
        background = True

    here, there = Inline(Slow()), Slow()
    experiment.trackers.subscribe(here, other=there)

    with experiment.create_run():
        publish(1, 3)
        assert here.tracker.steps == [1, 2, 3]

    assert here.tracker.threads == {threading.main_thread()}
    assert threading.main_thread() not in there.threads
    assert there.steps == [1, 2, 3]


def test_the_training_thread_waits_for_no_background_tracker(experiment, monkeypatch):
    monkeypatch.setattr(_bus, "RING_SIZE", 4096)
    tracker = Gated()
    experiment.trackers.subscribe(Background(tracker))

    with experiment.create_run():
        publish(1, 20_000)  # five times what is kept in memory
        assert tracker.steps == []
        tracker.gate.set()

    assert tracker.steps == list(range(1, 20_001))


def test_a_burst_wakes_the_worker_before_the_ring_is_full(experiment, monkeypatch):
    monkeypatch.setattr(_worker, "POLL_S", 3600.0)
    tracker = Keeper()
    experiment.trackers.subscribe(Background(tracker))
    with experiment.create_run():
        deadline = time.monotonic() + 60
        step = 0
        while not tracker.steps and time.monotonic() < deadline:
            step += 1
            log_events.StepMetricEvent("s", step, {"loss": 0.5})
        assert tracker.steps


def test_a_batch_is_flushed_after_it_and_everything_at_the_end(experiment):
    tracker = Keeper()
    experiment.trackers.subscribe(Background(tracker))

    with experiment.create_run() as run:
        publish(1, 10)
        assert run.flush(30)
        assert tracker.flushed[-1] == len(tracker.seen) == 11

    assert tracker.flushed[-1] == len(tracker.seen) == 12


def test_a_run_that_a_background_tracker_stops_ends_with_the_next_event(experiment):
    class Stopper(Keeper):
        def check(self, event):
            if isinstance(event, log_events.StepMetricEvent) and event.step == 3:
                run.stop("failed")

    tracker = Stopper()
    experiment.trackers.subscribe(Background(tracker))
    run = experiment.create_run().start()
    deadline = time.monotonic() + 30
    step = 0
    while run.status == "running" and time.monotonic() < deadline:
        step += 1
        publish(step, step)
        time.sleep(0.005)

    assert run.status == "failed"
    assert tracker.steps == list(range(1, step + 1))
    assert tracker.names[-1] == "StopExperiment"
    assert tracker.cleaned == 1


def test_a_run_that_a_background_tracker_stops_last_ends_as_it_wants(experiment):
    class Stopper(Keeper):
        def check(self, event):
            if isinstance(event, log_events.StepMetricEvent):
                run.stop("failed")

    experiment.trackers.subscribe(Background(Stopper()))
    with experiment.create_run() as run:
        publish(1, 1)
        run.flush()

    assert run.status == "failed"


def test_a_flush_says_when_time_is_up(experiment):
    tracker = Gated()
    experiment.trackers.subscribe(Background(tracker))

    with experiment.create_run() as run:
        publish(1, 10)
        assert not run.flush(0.05)
        tracker.gate.set()
        assert run.flush(30)
        assert tracker.steps == list(range(1, 11))


def test_memory_is_bounded_behind_a_tracker_that_hangs(experiment, monkeypatch):
    monkeypatch.setattr(_bus, "RING_SIZE", 4096)
    tracker = Gated()
    experiment.trackers.subscribe(Background(tracker))

    with experiment.create_run():
        publish(1, 6_000)
        tracemalloc.start()
        try:
            publish(6_001, 30_000)
            grown = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        tracker.gate.set()

    # The ring, full of other events now; 24,000 events are some 20 MB.
    assert grown < 6_000_000
    assert tracker.steps == list(range(1, 30_001))


@pytest.mark.parametrize("record", [True, False])
def test_memory_is_let_go_behind_trackers_that_keep_up(experiment, record):
    class Counter(Tracker):
        notify = Tracker.notify.extend()
        count = 0

        @notify.register
        def _count(self, event: log_events.StepMetricEvent) -> None:
            self.count += 1

    tracker = Counter()
    experiment.trackers.subscribe(Background(tracker))

    with experiment.create_run(record=record) as run:
        publish(1, 1_000)
        run.flush()
        tracemalloc.start()
        try:
            for first in range(1_001, 20_001, 1_000):
                publish(first, first + 999)
                run.flush()
            kept = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

    # At most a thousand events or so, of the 19,000 for which there is room.
    assert kept < 3_000_000
    assert tracker.count == 20_000


def test_events_after_a_blob_come_from_memory(experiment):
    tracker = Keeper()
    experiment.trackers.subscribe(Background(tracker))

    with experiment.create_run() as run:
        log_events.ImageEvent("s", "i", 0, np.zeros((100, 100, 3), np.uint8))
        run.flush()
        event = log_events.StepMetricEvent("s", 1, {"loss": 0.5})
        run.flush()

    # Itself: one that was read from the journal is another object.
    assert any(seen is event for seen in tracker.seen)


def test_images_are_read_back_from_the_journal_not_kept_in_memory(experiment):
    tracker = Gated()
    experiment.trackers.subscribe(Background(tracker))
    image = np.zeros((100, 100, 3), np.uint8)

    with experiment.create_run():
        for number in range(20):
            image[:] = number
            log_events.ImageEvent("s", "i", number, image)
            publish(number, number)
        tracker.gate.set()

    images = [e for e in tracker.seen if isinstance(e, log_events.ImageEvent)]
    assert [int(event.image[0, 0, 0]) for event in images] == list(range(20))
    assert tracker.names[1:-1] == ["Image", "StepMetric"] * 20


def test_an_unrecorded_run_drops_what_a_slow_tracker_cannot_take_and_says_so_once(
    experiment, monkeypatch
):
    monkeypatch.setattr(_bus, "FULL_RING_WAIT_S", 0.05)
    monkeypatch.setattr(_bus, "RING_SIZE", 4096)
    tracker = Gated()
    experiment.trackers.subscribe(Background(tracker))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with experiment.create_run(record=False):
            publish(1, 20_000)
            tracker.gate.set()
    told = [str(entry.message) for entry in caught]

    lost = 20_000 - len(tracker.steps)
    assert lost > 10_000
    assert tracker.steps == sorted(set(tracker.steps))
    assert tracker.steps[-1] == 20_000
    assert [entry.category for entry in caught] == [DeliveryWarning] * 2
    assert "too slow for this run" in told[0]
    assert f"has missed {lost} events. Nothing has kept them." in told[1]


def test_a_flush_that_fails_amid_a_batch_costs_nothing(experiment, monkeypatch):
    monkeypatch.setattr(_worker, "BREATH_NS", 0)
    monkeypatch.setattr(_worker, "FLUSH_EVERY_NS", 0)

    class Forgetful(Gated):
        def __init__(self):
            super().__init__()
            self.gate.set()
            self.kept = []
            self.failed = False

        def flush(self):
            steps, self.seen = self.steps, []
            if 50 in steps and not self.failed:
                self.failed = True
                raise OSError("the server is gone.")
            self.kept += steps

    tracker = Forgetful()
    experiment.trackers.subscribe(Background(tracker))
    lost = pytest.warns(
        TrackerExceptionWarning, match=r"to flush: OSError: the server is gone\.$"
    )
    with lost, experiment.create_run() as run:
        run.flush()
        tracker.gate.clear()
        publish(1, 100)
        tracker.gate.set()

    assert tracker.failed
    assert tracker.kept == list(range(1, 101))


# -- the end of a run --------------------------------------------------------------


def test_one_deadline_holds_for_all_and_what_is_left_comes_with_the_resume(
    experiment, monkeypatch
):
    monkeypatch.setenv("DRYTRACK_EXIT_TIMEOUT_S", "0.2")
    stuck, other = Gated(), Gated()
    good = Keeper()
    experiment.trackers.subscribe(
        good=Background(good), stuck=Background(stuck), other=Background(other)
    )

    with pytest.warns(DeliveryWarning) as caught, experiment.create_run("a") as run:
        publish(1, 50)
        assert run.flush(0.0) is False
    assert good.steps == list(range(1, 51))
    told = sorted(str(entry.message) for entry in caught)
    assert len(told) == 2
    assert "Tracker 'other' has missed 52 events. The journal has them: " in told[0]
    assert f"drytrack replay {run.path} --to stuck" in told[1]
    for tracker in (stuck, other):
        tracker.gate.set()  # a handler that returns after all
        wait_for(lambda tracker=tracker: tracker.cleaned)
    assert stuck.steps == []

    again = Experiment(name="E", par_dir=experiment.par_dir)
    late = Keeper()
    again.trackers.subscribe(stuck=Background(late))
    with again.create_run("a", resume=True):
        publish(51, 60)
    assert late.steps == list(range(1, 61))
    assert late.names[0] == "StartExperiment"
    assert late.seen[0].attempt == 2


def test_a_deadline_that_is_no_number_is_said_and_passed_over(
    experiment, monkeypatch, caplog
):
    monkeypatch.setenv("DRYTRACK_EXIT_TIMEOUT_S", "soon")
    with experiment.create_run():
        pass

    assert "DRYTRACK_EXIT_TIMEOUT_S is 'soon'" in caplog.text


@pytest.mark.parametrize("timeout_s", ["inf", "1e300"])
def test_a_deadline_that_no_clock_knows_ends_a_run_all_the_same(
    experiment, monkeypatch, timeout_s
):
    monkeypatch.setenv("DRYTRACK_EXIT_TIMEOUT_S", timeout_s)
    experiment.trackers.subscribe(Background(Keeper()))
    with experiment.create_run() as run:
        publish(1, 3)
        assert run.flush()

    assert run.status == "completed"


def test_a_resumed_run_feeds_what_was_missed_before_anything_new(experiment):
    first = Idempotent()
    experiment.trackers.subscribe(Inline(first))
    with experiment.create_run("a"):
        publish(1, 5)
    elsewhere = Experiment(name="E", par_dir=experiment.par_dir)
    with elsewhere.create_run("a", resume=True):
        publish(6, 10)  # nobody watches

    with experiment.create_run("a", resume=True):
        publish(11, 15)

    assert first.steps == list(range(1, 16))
    attempts = [e.stamp.attempt for e in first.seen if hasattr(e, "step")]
    assert attempts == [1] * 5 + [2] * 5 + [3] * 5


@pytest.mark.parametrize("wrapper", [Background, Inline])
def test_a_tracker_that_has_more_than_the_journal_gets_all_that_is_new(
    experiment, wrapper
):
    with experiment.create_run("a"):
        publish(1, 5)
    tracker = Keeper()
    tracker.last_seq = lambda: 1_000  # the machine was lost, and its server was not
    experiment.trackers.subscribe(wrapper(tracker))

    with experiment.create_run("a", resume=True):
        publish(6, 10)

    assert tracker.steps == [6, 7, 8, 9, 10]


def test_an_inline_tracker_that_missed_very_much_catches_up_behind_the_run(
    experiment, monkeypatch
):
    monkeypatch.setattr(_bus, "CATCH_UP_INLINE", 100)
    with experiment.create_run("a"):
        publish(1, 1_000)
    tracker = Idempotent()
    experiment.trackers.subscribe(Inline(tracker))

    with experiment.create_run("a", resume=True) as run:
        publish(1_001, 1_100)
        assert run.flush(60)
        wait_for(lambda: run.bus.guests["Idempotent"].worker is None)
        publish(1_101, 1_101)
        assert tracker.steps[-1] == 1_101  # inline again

    assert sorted(set(tracker.steps)) == list(range(1, 1_102))
    assert threading.main_thread() in tracker.threads


@pytest.mark.filterwarnings(MISSED, FAILED)  # its tracker fails by intent
def test_an_inline_tracker_that_stayed_broken_gets_what_it_missed_on_resume(
    experiment,
):
    tracker = Broken()
    experiment.trackers.subscribe(tracker)
    tracker.broken = False
    with experiment.create_run("a"):
        publish(1, 5)
        tracker.broken = True
        publish(6, 20)
    tracker.broken = False

    with experiment.create_run("a", resume=True):
        publish(21, 30)

    assert tracker.steps == list(range(1, 31))
    attempts = [e.stamp.attempt for e in tracker.seen if hasattr(e, "step")]
    assert attempts == [1] * 20 + [2] * 10

    with experiment.create_run("a", resume=True):
        publish(31, 35)

    assert tracker.steps == list(range(1, 36))


# -- trackers that fail ------------------------------------------------------------


@pytest.mark.filterwarnings(FAILED)  # its tracker fails by intent
def test_a_background_tracker_that_recovers_gets_everything(experiment):
    tracker = Broken()
    experiment.trackers.subscribe(Background(tracker))

    with experiment.create_run() as run:
        publish(1, 100)
        wait_for(lambda: run.bus.guests["Broken"].suspended_at is not None)
        tracker.broken = False
        experiment.trackers.resume("Broken")
        assert run.flush(60)
        publish(101, 200)

    assert sorted(set(tracker.steps)) == list(range(1, 201))
    assert [s for s in tracker.steps if s > 100] == list(range(101, 201))


@pytest.mark.filterwarnings(FAILED)  # its tracker fails by intent
def test_an_inline_tracker_that_recovers_catches_up_and_is_inline_again(experiment):
    tracker = Broken()
    experiment.trackers.subscribe(tracker)

    with experiment.create_run() as run:
        publish(1, 50)
        assert tracker.steps == []
        tracker.broken = False
        experiment.trackers.resume("Broken")
        wait_for(lambda: run.bus.guests["Broken"].worker is None)
        assert tracker.steps == list(range(1, 51))
        publish(51, 60)
        assert tracker.steps == list(range(1, 61))


@pytest.mark.filterwarnings(FAILED)  # its tracker fails by intent
def test_a_tracker_that_never_recovers_is_told_at_the_end_with_the_remedy(experiment):
    tracker = Broken()
    experiment.trackers.subscribe(Background(tracker))

    with pytest.warns(DeliveryWarning) as caught, experiment.create_run() as run:
        publish(1, 100)

    (told,) = [entry.message for entry in caught if entry.category is DeliveryWarning]
    assert "Tracker 'Broken' has missed" in str(told)
    assert f"drytrack replay {run.path} --to Broken" in str(told)
    assert journaled(run) == list(range(1, 101))
    assert tracker.cleaned == 1


def test_a_tracker_that_fails_every_third_time_misses_nothing(experiment):
    class Moody(Keeper):
        calls = 0

        def check(self, event):
            self.calls += 1
            if self.calls % 3 == 0:
                raise OSError("try again")

    tracker = Moody()
    experiment.trackers.subscribe(Background(tracker))

    with experiment.create_run():
        publish(1, 100)

    assert tracker.steps == list(range(1, 101))


@pytest.mark.filterwarnings(FAILED)  # its tracker fails by intent
def test_a_failed_flush_brings_the_batch_again(experiment):
    class Database(Keeper):
        failures = 2

        def __init__(self):
            super().__init__()
            self.pending, self.committed = {}, {}

        def check(self, event):
            self.pending[event.stamp.seq] = event

        def flush(self):
            if self.failures:
                self.failures -= 1
                self.pending.clear()  # as a database does that rolls back
                raise OSError("locked")
            self.committed |= self.pending
            self.pending.clear()

    tracker = Database()
    experiment.trackers.subscribe(Background(tracker))

    with experiment.create_run() as run:
        publish(1, 100)
        assert run.flush(60)

    assert sorted(tracker.committed) == list(range(1, 103))


@pytest.mark.filterwarnings(MISSED, FAILED)  # its tracker fails by intent
def test_a_worker_that_dies_costs_the_run_nothing_and_leaves_the_rest(experiment):
    class Deadly(Keeper):
        deadly = True

        def check(self, event):
            if self.deadly and getattr(event, "step", 0) == 5:
                raise SystemExit

    tracker, beside = Deadly(), Keeper()
    experiment.trackers.subscribe(Background(tracker), beside=Background(beside))

    with experiment.create_run("a") as run:
        publish(1, 10)
        wait_for(lambda: tracker.cleaned)
        publish(11, 20)

    assert beside.steps == list(range(1, 21))
    assert tracker.steps == [1, 2, 3, 4]
    tracker.deadly = False
    with experiment.create_run("a", resume=True):
        pass
    assert sorted(set(tracker.steps)) == list(range(1, 21))
    assert journaled(run) == list(range(1, 21))


def test_events_that_wait_for_the_disk_still_reach_a_slow_tracker(experiment):
    tracker = Gated()
    experiment.trackers.subscribe(Background(tracker))

    with experiment.create_run() as run:
        journal = run.bus.journal
        publish(1, 10)
        with run.bus.lock:  # the disk refuses, until there is room again
            good, journal._fd = journal._fd, -1
        with pytest.warns(UserWarning, match="cannot be written from event 12 on"):
            publish(11, 9_000)
        tracker.gate.set()
        wait_for(lambda: 10 in tracker.steps)
        time.sleep(0.1)  # the worker stands before what only memory has
        with run.bus.lock:
            journal._fd = good
        time.sleep(0.25)  # until the disk is tried again
        publish(9_001, 9_020)
        assert run.flush(60)
        assert tracker.steps == list(range(1, 9_021))

    assert journaled(run) == list(range(1, 9_021))


# -- subscribed in mid-run ---------------------------------------------------------


def test_a_late_background_tracker_is_told_start_and_registrations_first(experiment):
    with experiment.create_run() as run:
        run.register_model(object(), "net")
        publish(1, 5)
        tracker = Keeper()
        experiment.trackers.subscribe(Background(tracker))
        publish(6, 10)

    assert tracker.names == [
        "StartExperiment",
        "ModelRegistration",
        *["StepMetric"] * 5,
        "StopExperiment",
    ]
    assert tracker.steps == [6, 7, 8, 9, 10]


def test_a_background_tracker_that_is_removed_is_cleaned_up_and_hears_no_more(
    experiment,
):
    tracker = Keeper()
    experiment.trackers.subscribe(Background(tracker))

    with experiment.create_run() as run:
        publish(1, 5)
        assert run.flush(30)
        experiment.trackers.remove("Keeper")
        publish(6, 10)
        wait_for(lambda: tracker.cleaned)

    assert tracker.steps == [1, 2, 3, 4, 5]
    assert tracker.cleaned == 1


# -- wrappers ----------------------------------------------------------------------


def test_a_sampled_tracker_gets_every_nth_of_each_source_and_all_else(experiment):
    tracker = Keeper()
    experiment.trackers.subscribe(Sampled(tracker, every=3))

    for _ in range(2):  # counted anew in every run
        tracker.seen.clear()
        with experiment.create_run():
            for number in range(1, 8):
                log_events.StepMetricEvent("a", number, {"x": 1.0})
                log_events.StepMetricEvent("b", 10 * number, {"x": 1.0})
                log_events.TextEvent("a", "t", number, "text")
                log_events.MetricEvent("m", "a", number, {"x": 1.0})

        assert [s for s in tracker.steps if s < 10] == [1, 4, 7]
        assert [s for s in tracker.steps if s >= 10] == [10, 40, 70]
        assert tracker.names.count("Text") == 3
        assert tracker.names.count("Metric") == 7
        assert tracker.names[0] == "StartExperiment"
        assert tracker.names[-1] == "StopExperiment"


@pytest.mark.parametrize("every", [0, -1])
def test_every_is_at_least_one(every):
    with pytest.raises(ValueError, match="at least 1"):
        Sampled(Keeper(), every=every)


@pytest.mark.parametrize("wrapper", [Background, Inline, Required])
def test_a_wrapper_wraps_trackers_alone(wrapper):
    with pytest.raises(TypeError, match=f"{wrapper.__name__} wraps a tracker, got str"):
        wrapper("tracker")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: Required(Background(Sampled(t, every=2))),
        lambda t: Sampled(Background(Required(t)), every=2),
        lambda t: Background(Sampled(Required(t), every=2)),
        lambda t: Background(Inline(Sampled(Required(t), every=2))),
    ],
)
def test_wrappers_nest_in_any_order(experiment, wrap):
    tracker = Keeper()
    outer = wrap(tracker)
    experiment.trackers.subscribe(outer)

    with experiment.create_run() as run:
        publish(1, 10)
        assert run.flush(30)
        assert Keeper.get_current() is tracker
        assert Keeper.get_current("Keeper") is tracker

    assert outer.innermost is tracker
    assert tracker.steps == [1, 3, 5, 7, 9]
    assert threading.main_thread() not in tracker.threads - {threading.main_thread()}
    assert (outer.name, outer.background, outer.required) == ("Keeper", True, True)
    assert tracker.cleaned == 1


@pytest.mark.filterwarnings(FAILED)  # its tracker fails by intent
@pytest.mark.parametrize("background", [True, False])
def test_a_required_tracker_that_fails_at_the_start_stops_the_run(
    experiment, background
):
    class Refusing(Keeper):
        def check(self, event):
            raise ConnectionError("no such server")

    tracker = Required(Background(Refusing()) if background else Refusing())
    experiment.trackers.subscribe(tracker)

    with pytest.raises(RequiredTrackerError, match="no such server"):
        experiment.create_run("a").start()

    (record,) = experiment.previous_runs
    assert record.status == "failed"
    assert tracker.innermost.cleaned == 1


def test_one_tracker_watches_two_experiments_at_once(tmp_path):
    tracker = Keeper()
    one, two = (Experiment(name=name, par_dir=tmp_path) for name in ("One", "Two"))
    one.trackers.subscribe(Background(tracker))
    two.trackers.subscribe(Background(tracker))

    class Watched(Keeper):
        pass

    with one.create_run() as run, two.create_run(parent=run):
        publish(1, 3)
    with one.create_run():
        publish(4, 6)

    starts = [e for e in tracker.seen if isinstance(e, log_events.StartExperimentEvent)]
    # Where runs overlap each has a shallow copy, which shares what __init__ made.
    assert sorted(event.exp_name for event in starts) == ["One", "One", "Two"]
    assert tracker.steps == [1, 2, 3, 4, 5, 6]


# -- what it costs -----------------------------------------------------------------


def test_costs_tell_calls_and_times_of_the_journal_and_each_tracker(experiment):
    class Slow(Keeper):
        def check(self, event):
            time.sleep(0.001)

    experiment.trackers.subscribe(Slow(), behind=Background(Slow()), idle=Tracker())

    with experiment.create_run() as run:
        publish(1, 160)
        assert run.flush(60)
        costs = {cost.name: cost for cost in run.costs()}

    assert list(costs) == ["journal", "Slow", "behind", "idle"]
    assert costs["journal"].calls >= 160
    assert costs["journal"].training_s > 0
    assert costs["Slow"].calls == costs["behind"].calls == 161
    assert costs["Slow"].training_s > 0.1 > costs["behind"].training_s == 0
    assert costs["behind"].worker_s > 0.1 > costs["Slow"].worker_s == 0
    assert 0 < costs["Slow"].share <= 1.0
    assert costs["idle"].calls == 0


def test_all_costs_together_are_a_part_of_the_run(experiment):
    class PausesWhenTimed(Keeper):
        def check(self, event):
            if isinstance(event, log_events.StepMetricEvent) and event.step == 8:
                time.sleep(0.05)  # the one of 64 that stands for all

    experiment.trackers.subscribe(PausesWhenTimed())
    with experiment.create_run() as run:
        publish(1, 64)
        costs = run.costs()

    assert 0.5 < sum(cost.share for cost in costs) <= 1.0 + 1e-9


def test_a_run_that_trackers_slowed_down_says_so(experiment, caplog):
    class Slow(Keeper):
        def check(self, event):
            time.sleep(0.001)

    experiment.trackers.subscribe(Slow())
    with caplog.at_level("INFO", "drytrack"), experiment.create_run():
        publish(1, 64)

    assert "% of the run: Slow" in caplog.text


def test_a_failure_in_the_background_is_warned_of_in_the_training_thread(experiment):
    tracker = Broken()
    experiment.trackers.subscribe(Background(tracker))

    with (
        pytest.warns(TrackerExceptionWarning, match="server is gone") as caught,
        pytest.warns(DeliveryWarning),
        experiment.create_run() as run,
    ):
        publish(1, 1)
        wait_for(lambda: run.bus.unsettled)
        publish(2, 2)
        noticed = True

    assert noticed
    assert caught
