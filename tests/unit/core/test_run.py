"""A run's life: start, stop, status, error, nesting, and what it leaves behind."""

from __future__ import annotations

import json
import pathlib
import signal
import threading
import warnings
from typing import TYPE_CHECKING

import pytest

from drytrack.core import log_events
from drytrack.core.exceptions import (
    AccessOutsideScopeError,
    DrytrackWarning,
    NestedRunError,
    RankError,
    RegistrationError,
    RequiredTrackerError,
    RunStateError,
    RunWarning,
    TrackerExceptionWarning,
)
from drytrack.core.experiment import Experiment
from drytrack.core.track import Tracker
from drytrack.delivery import Required
from drytrack.testing import Recorder, capture_events
from drytrack.trackers.base import Dumper

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("no_default_trackers")


@pytest.fixture
def experiment(tmp_path):
    return Experiment({"lr": 0.1}, name="Digits", par_dir=tmp_path / "store")


def record_of(run):
    return json.loads((run.path / "record.json").read_text())


def stop_event(events):
    return next(e for e in events if isinstance(e, log_events.StopExperimentEvent))


# -- status ------------------------------------------------------------------------


def test_a_run_is_created_then_running_then_completed(experiment):
    run = experiment.create_run()
    seen = [(run.status, record_of(run)["status"])]
    with run:
        seen.append((run.status, record_of(run)["status"]))
    seen.append((run.status, record_of(run)["status"]))

    assert seen == [(s, s) for s in ("created", "running", "completed")]


def test_the_record_is_written_before_the_first_event(experiment):
    class Looks(Tracker):
        notify = Tracker.notify.extend()

        @notify.register
        def _look(self, event: log_events.StartExperimentEvent) -> None:
            folder = event.par_dir / ".drytrack" / event.exp_name / event.run_id
            self.seen = json.loads((folder / "record.json").read_text())

    looks = Looks()
    experiment.trackers.subscribe(looks)

    with experiment.create_run() as run:
        pass

    assert looks.seen["status"] == "running"
    assert looks.seen["uuid"] == run.uuid


def test_an_exception_is_in_the_record_and_in_the_stop_event(experiment):
    with (
        capture_events(experiment) as events,
        pytest.raises(ValueError, match="bad batch"),
        experiment.create_run() as run,
    ):
        raise ValueError("bad batch")

    error = stop_event(events).error
    assert run.status == stop_event(events).status == "failed"
    assert (error["type"], error["message"]) == ("ValueError", "bad batch")
    assert 'raise ValueError("bad batch")' in error["traceback"]
    assert record_of(run)["error"] == error
    assert record_of(run)["attempts"][0]["error"] == error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (SystemExit(0), "completed"),
        (SystemExit(None), "completed"),
        (SystemExit(3), "failed"),
        (SystemExit("message"), "failed"),
        (SystemExit(143), "interrupted"),
        (GeneratorExit(), "interrupted"),
        (MemoryError(), "failed"),
    ],
    ids=repr,
)
def test_what_leaves_the_block_decides_the_status(experiment, error, status):
    with (
        capture_events(experiment) as events,
        pytest.raises(type(error)),
        experiment.create_run() as run,
    ):
        raise error

    assert run.status == stop_event(events).status == record_of(run)["status"] == status


def test_an_exception_that_cannot_be_printed_is_recorded(experiment):
    class MuteError(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    with pytest.raises(MuteError), experiment.create_run() as run:
        raise MuteError

    assert record_of(run)["error"]["type"].endswith("MuteError")


def test_a_resumed_run_forgets_the_earlier_error_and_keeps_it_with_its_attempt(
    experiment,
):
    with pytest.raises(ValueError, match="x"), experiment.create_run("a"):
        raise ValueError("x")
    with experiment.create_run("a", resume=True) as run:
        assert record_of(run)["error"] is None

    attempts = record_of(run)["attempts"]
    assert record_of(run)["status"] == "completed"
    assert [attempt["status"] for attempt in attempts] == ["failed", "completed"]
    assert attempts[0]["error"]["message"] == "x"
    assert attempts[1]["error"] is None


def test_a_run_can_be_stopped_with_a_status(experiment):
    run = experiment.create_run().start()
    run.stop("failed")

    assert run.status == record_of(run)["status"] == "failed"


# -- start and stop --------------------------------------------------------------


def test_the_next_cell_of_a_notebook_sees_the_run(experiment):
    with capture_events(experiment) as events:
        run = experiment.create_run().start()
        log_events.MetricEvent("m", "s", 1, {"loss": 1.0})
        assert Experiment.get_current() is experiment
        run.stop()

    assert any(isinstance(event, log_events.MetricEvent) for event in events)
    assert stop_event(events).status == "completed"


@pytest.mark.parametrize("record", [True, False])
def test_starting_a_started_run_finishes_it_and_begins_its_next_attempt(
    experiment, record
):
    recorder = Recorder()
    experiment.trackers.subscribe(recorder)
    run = experiment.create_run("a", record=record).start()
    run.log({"loss": 2.0})

    with pytest.warns(RunWarning, match="'a' was running, and is finished now"):
        run.start()
    run.log({"loss": 1.0})
    run.finish()

    kinds = [type(event).__name__ for event in recorder.events]
    one = ["StartExperimentEvent", "StepMetricEvent", "StopExperimentEvent"]
    assert kinds == [*one, *one]
    assert recorder.events[3].attempt == 2
    assert stop_event(recorder.events).status == "completed"
    assert (run.attempt, run.status) == (2, "completed")


def test_an_ended_run_is_not_started_again(experiment):
    with experiment.create_run("a") as run:
        pass

    with pytest.raises(RunStateError, match=r"create_run\('a', resume=True\)"):
        run.start()


def test_stopping_before_the_start_is_an_error(experiment):
    with pytest.raises(RunStateError, match=r"Call run.start\(\) first"):
        experiment.create_run().stop()


def test_stopping_twice_warns_and_tells_nobody_again(experiment):
    with capture_events(experiment) as events:
        run = experiment.create_run().start()
        run.stop()
        with pytest.warns(RunWarning, match="has ended"):
            run.stop()

    assert len(events) == 2


def test_a_block_may_stop_its_run_itself(experiment):
    with capture_events(experiment) as events, experiment.create_run() as run:
        run.stop("failed")

    assert len(events) == 2
    assert run.status == "failed"


def test_trackers_are_cleaned_up_once_however_the_run_ends(experiment):
    class Counts(Tracker):
        cleaned = 0

        def clean_up(self):
            self.cleaned += 1

    counts = Counts()
    experiment.trackers.subscribe(counts)

    with experiment.create_run():
        pass
    assert counts.cleaned == 1
    with pytest.raises(ValueError, match="x"), experiment.create_run():
        raise ValueError("x")
    assert counts.cleaned == 2


def test_eight_threads_that_stop_a_run_stop_it_once(experiment):
    with capture_events(experiment) as events:
        run = experiment.create_run().start()
        together = threading.Barrier(8)

        def stop():
            together.wait()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RunWarning)  # of all but one
                run.stop()

        threads = [threading.Thread(target=stop) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    stops = [e for e in events if isinstance(e, log_events.StopExperimentEvent)]
    assert len(stops) == 1


class StopsTheRun(Tracker):
    """Stops a run that is ending already."""

    notify = Tracker.notify.extend()
    stop: Callable[[], object]

    @notify.register
    def _at_the_end(self, event: log_events.StopExperimentEvent) -> None:
        self.stop()

    def clean_up(self) -> None:
        self.stop()


def test_a_tracker_that_stops_a_run_that_ends_changes_nothing(experiment):
    tracker = StopsTheRun()
    experiment.trackers.subscribe(tracker)
    with capture_events(experiment) as events:
        run = experiment.create_run().start()
        tracker.stop = run.stop
        run.stop("failed")

    assert len(events) == 2
    assert run.status == record_of(run)["status"] == "failed"


class FailsAtStart(Tracker):
    notify = Tracker.notify.extend()

    @notify.register
    def _fail(self, event: log_events.StartExperimentEvent) -> None:
        raise OSError("no server")


def test_a_tracker_that_fails_at_the_start_costs_the_run_nothing(experiment):
    experiment.trackers.subscribe(FailsAtStart())

    with (
        warnings.catch_warnings(record=True, action="always") as caught,
        capture_events(experiment) as events,
        experiment.create_run() as run,
    ):
        log_events.MetricEvent("m", "s", 1, {"loss": 1.0})

    assert caught[0].category is TrackerExceptionWarning
    assert "no server" in str(caught[0].message)
    assert run.status == "completed"
    assert len(events) == 3


def test_a_required_tracker_that_fails_stops_the_run_and_leaves_it_ended(experiment):
    experiment.trackers.subscribe(Required(FailsAtStart()))
    run = experiment.create_run()

    with (
        warnings.catch_warnings(action="ignore"),
        pytest.raises(RequiredTrackerError, match="no server") as caught,
    ):
        run.start()

    assert isinstance(caught.value.__cause__, OSError)
    assert run.status == record_of(run)["status"] == "failed"
    with pytest.raises(AccessOutsideScopeError):
        Experiment.get_current()
    experiment.trackers.remove_all()
    with experiment.create_run():
        pass


def test_a_warning_that_is_an_error_ends_a_start_in_order(experiment):
    recorder = Recorder()
    experiment.trackers.subscribe(FailsAtStart(), recorder)
    run = experiment.create_run()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DrytrackWarning):
            run.start()

    assert [type(event).__name__ for event in recorder.events] == [
        "StartExperimentEvent",
        "StopExperimentEvent",
    ]
    assert run.status != "running"
    with pytest.raises(AccessOutsideScopeError):
        Experiment.get_current()


def test_an_interrupt_in_a_start_handler_ends_the_run(experiment):
    class Interrupts(Tracker):
        notify = Tracker.notify.extend()

        @notify.register
        def _interrupt(self, event: log_events.StartExperimentEvent) -> None:
            raise KeyboardInterrupt

    experiment.trackers.subscribe(Interrupts())
    run = experiment.create_run()

    with pytest.raises(KeyboardInterrupt):
        run.start()

    assert run.status == record_of(run)["status"] == "interrupted"


# -- nesting ---------------------------------------------------------------------


def test_a_run_inside_another_is_refused_with_both_remedies(experiment, tmp_path):
    inner = Experiment(name="Inner", par_dir=tmp_path)
    with experiment.create_run("outer"), pytest.raises(NestedRunError) as caught:
        inner.create_run("inner").start()

    for word in ("'inner'", "'outer'", "'Digits'", "Stop that one", "parent=run"):
        assert word in str(caught.value)


def test_a_refused_run_can_be_started_afterwards(experiment):
    with experiment.create_run("outer"):
        inner = experiment.create_run("inner")
        with pytest.raises(NestedRunError):
            inner.start()

    with inner:
        pass

    assert (inner.status, inner.attempt) == ("completed", 1)


def test_a_child_run_names_its_parent_and_gives_way_to_it(experiment, tmp_path):
    trials = Experiment(name="Trials", par_dir=tmp_path)
    with (
        capture_events(experiment) as outer,
        capture_events(trials) as inner,
        experiment.create_run() as parent,
    ):
        with trials.create_run(parent=parent) as child:
            assert Experiment.get_current() is trials
            log_events.TextEvent("s", "where", 1, "inside")
        assert Experiment.get_current() is experiment
        log_events.TextEvent("s", "where", 1, "outside")

    assert child.parent is parent
    assert record_of(child)["parent"] == {"id": parent.id, "uuid": parent.uuid}
    assert [e.text for e in outer if isinstance(e, log_events.TextEvent)] == ["outside"]
    assert [e.text for e in inner if isinstance(e, log_events.TextEvent)] == ["inside"]


def test_one_tracker_may_watch_parent_and_child(experiment):
    class Keeps(Tracker):
        notify = Tracker.notify.extend()

        @notify.register
        def _begin(self, event: log_events.StartExperimentEvent) -> None:
            self.epochs = []

        @notify.register
        def _keep(self, event: log_events.MetricEvent) -> None:
            self.epochs.append(event.epoch)

    experiment.trackers.subscribe(Keeps())
    with experiment.create_run("parent") as parent:
        log_events.MetricEvent("m", "s", 1, {"loss": 1.0})
        with experiment.create_run("child", parent=parent):
            log_events.MetricEvent("m", "s", 2, {"loss": 1.0})
            assert Keeps.get_current().epochs == [2]
        log_events.MetricEvent("m", "s", 3, {"loss": 1.0})
        assert Keeps.get_current().epochs == [1, 3]


def test_a_parent_that_is_not_running_is_refused(experiment):
    parent = experiment.create_run("parent")
    with pytest.raises(RunStateError, match="is created, not running"):
        experiment.create_run(parent=parent).start()

    with parent:
        pass
    with pytest.raises(RunStateError, match="is completed, not running"):
        experiment.create_run(parent=parent).start()


def test_a_parent_that_ends_first_leaves_the_child_current(experiment):
    parent = experiment.create_run("parent").start()
    child = experiment.create_run("child", parent=parent).start()
    parent.stop()

    log_events.TextEvent("s", "t", 1, "still")
    child.stop()

    with pytest.raises(AccessOutsideScopeError):
        log_events.TextEvent("s", "t", 1, "no more")


# -- ranks -----------------------------------------------------------------------


def test_a_rank_above_zero_tracks_nothing_and_runs_the_same_code(
    experiment, tmp_path, monkeypatch
):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    recorder = Recorder()
    experiment.trackers.subscribe(recorder)

    with experiment.create_run("a", resume=True) as run:
        run.register_model(object(), "net")
        log_events.MetricEvent("net", "s", 1, {"loss": 1.0})

    assert (run.rank, run.is_main, run.path) == (1, False, None)
    assert recorder.events == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rank", [0, 2])
def test_an_explicit_rank_wins(experiment, monkeypatch, rank):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")

    run = experiment.create_run(rank=rank)

    assert (run.rank, run.is_main) == (rank, rank == 0)


def test_a_rank_alone_in_its_world_tracks(experiment, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "1")

    assert experiment.create_run().is_main


@pytest.mark.parametrize("rank", [-1, 1.5, "0", True])
def test_a_rank_that_is_none_is_refused(experiment, rank):
    with pytest.raises(RankError, match="integer of at least 0"):
        experiment.create_run(rank=rank)


def test_a_tracker_for_every_rank_writes_to_a_folder_of_its_own(experiment):
    class Notes(Dumper):
        every_rank = True
        folder_name = "notes"
        notify = Dumper.notify.extend()

        @notify.register
        def _write(self, event: log_events.MetricEvent) -> None:
            (self.run_dir / "note").write_text(str(event.epoch))

    experiment.trackers.subscribe(Notes())
    for rank in (0, 1, 2):
        with experiment.create_run(f"run {rank}", rank=rank):
            log_events.MetricEvent("m", "s", rank, {"loss": 1.0})

    found = {
        path.relative_to(experiment.par_dir).as_posix(): path.read_text()
        for path in experiment.par_dir.rglob("note")
    }
    assert found == {
        "notes/Digits/run 0/note": "0",
        "rank_1/notes/Digits/run 1/note": "1",
        "rank_2/notes/Digits/run 2/note": "2",
    }


def test_a_rank_that_does_not_track_registers_models_all_the_same(experiment):
    with experiment.create_run(rank=1) as run:
        net = run.register_model(object(), "net")
        with pytest.raises(RegistrationError):
            run.register_model(net, "net")


# -- signals ---------------------------------------------------------------------


def test_sigterm_is_given_back_at_the_end(experiment):
    before = signal.getsignal(signal.SIGTERM)
    with experiment.create_run():
        assert signal.getsignal(signal.SIGTERM) != before

    assert signal.getsignal(signal.SIGTERM) == before


def test_sigterm_ends_the_block_as_interrupted(experiment):
    with pytest.raises(SystemExit) as caught, experiment.create_run() as run:
        signal.raise_signal(signal.SIGTERM)

    assert caught.value.code == 143
    assert run.status == record_of(run)["status"] == "interrupted"


def test_a_users_handler_is_called_and_the_run_only_marked(experiment):
    called = []
    before = signal.signal(signal.SIGTERM, lambda *_: called.append(True))
    try:
        with experiment.create_run() as run:
            signal.raise_signal(signal.SIGTERM)
            assert run.status == "running"
            log_events.TextEvent("s", "t", 1, "still here")
    finally:
        signal.signal(signal.SIGTERM, before)

    assert called == [True]
    assert run.status == "interrupted"


def test_an_ignored_sigterm_stays_ignored(experiment):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with experiment.create_run() as run:
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
            signal.raise_signal(signal.SIGTERM)
        assert run.status == "completed"
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_handler_that_the_user_installs_in_the_run_stays(experiment):
    before = signal.getsignal(signal.SIGTERM)

    def mine(*_):
        pass

    try:
        with experiment.create_run():
            signal.signal(signal.SIGTERM, mine)
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_nested_runs_give_the_signal_back_in_order(experiment):
    before = signal.getsignal(signal.SIGTERM)
    with (
        pytest.raises(SystemExit),
        experiment.create_run("p") as parent,
        experiment.create_run("c", parent=parent) as child,
    ):
        signal.raise_signal(signal.SIGTERM)

    assert (parent.status, child.status) == ("interrupted", "interrupted")
    assert signal.getsignal(signal.SIGTERM) == before


def test_runs_that_end_out_of_order_give_the_signal_back(experiment):
    before = signal.getsignal(signal.SIGTERM)
    parent = experiment.create_run("p").start()
    child = experiment.create_run("c", parent=parent).start()
    parent.stop()
    child.stop()
    try:
        with pytest.raises(SystemExit), experiment.create_run() as run:
            signal.raise_signal(signal.SIGTERM)
        assert run.status == "interrupted"
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_run_in_a_thread_leaves_the_signal_alone(experiment):
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        with experiment.create_run():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert seen == [before]


# -- what a run holds ------------------------------------------------------------


def test_a_run_leaves_no_thread_and_no_open_file(experiment):
    fds = pathlib.Path("/proc/self/fd")
    before = set(threading.enumerate())
    for _ in range(3):
        with experiment.create_run():
            pass
    count = len(list(fds.iterdir())) if fds.is_dir() else 0
    for _ in range(5):
        with experiment.create_run():
            pass

    assert set(threading.enumerate()) == before
    if count:
        assert len(list(fds.iterdir())) == count


def test_what_a_tracker_keeps_in_its_state_comes_back_on_resume(experiment):
    class Remote(Tracker):
        notify = Tracker.notify.extend()

        @notify.register
        def _attach(self, event: log_events.StartExperimentEvent) -> None:
            self.state.setdefault("remote_id", f"id-{event.attempt}")

    experiment.trackers.subscribe(Remote())
    with experiment.create_run("a"):
        pass
    with experiment.create_run("a", resume=True):
        assert Remote.get_current().state["remote_id"] == "id-1"
    with experiment.create_run("b"):
        assert Remote.get_current().state["remote_id"] == "id-1"


def test_a_tracker_that_sits_out_an_attempt_keeps_its_place(tmp_path):
    class Keeper(Tracker):
        notify = Tracker.notify.extend()

        @notify.register
        def _note(self, event: log_events.StartExperimentEvent) -> None:
            self.state.setdefault("hosted", f"attempt {event.attempt}")
            self.seen = self.state["hosted"]

    def run_with(*trackers):
        experiment = Experiment(None, name="Keeps", par_dir=tmp_path)
        experiment.trackers.remove_all()
        experiment.trackers.subscribe(*trackers)
        with experiment.create_run("run", resume="auto"):
            pass
        return experiment.previous_runs[0].data["trackers"]

    first, last = Keeper(), Keeper()
    kept = run_with(first)["Keeper"]
    assert run_with()["Keeper"] == kept
    run_with(last)

    assert first.seen == last.seen == "attempt 1"
