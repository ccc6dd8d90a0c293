"""Replay: the target cannot tell a replayed run from a live one."""

from __future__ import annotations

import datetime
import warnings

import numpy as np
import pytest

from drytrack import Experiment, Tracker, TrainingLoop
from drytrack.core import log_events
from drytrack.core.exceptions import (
    JournalError,
    RecordWarning,
    TrackerExceptionWarning,
)
from drytrack.core.journal import compact
from drytrack.delivery import Background, Sampled
from drytrack.replay import replay
from drytrack.trackers.csv import CSVDumper

pytestmark = pytest.mark.usefixtures("no_default_trackers")


class Keeper(Tracker):
    notify = Tracker.notify.extend()

    def __init__(self):
        self.seen = []
        self.flushed = self.cleaned = 0

    @notify.register
    def _keep(self, event: log_events.Event) -> None:
        self.seen.append(event)

    def flush(self):
        self.flushed += 1

    def clean_up(self):
        self.cleaned += 1

    @property
    def stamps(self):
        return [event.stamp for event in self.seen]


class Remembering(Keeper):
    """Keeps its place in the service in the state of the run's record."""

    notify = Keeper.notify.extend()

    @notify.register
    def _attach(self, event: log_events.StartExperimentEvent) -> None:
        self.found = dict(self.state)
        self.state.setdefault("service_id", "abc")


@pytest.fixture
def experiment(tmp_path):
    return Experiment({"lr": 0.1}, name="E", par_dir=tmp_path, tags=["x"])


@pytest.fixture
def live(experiment):
    tracker = Keeper()
    experiment.trackers.subscribe(tracker)
    return tracker


def train(experiment, first=1, last=3, run_id="a", **keywords):
    with experiment.create_run(run_id, **keywords) as run:
        net = run.register_model(object(), "net")
        loop = TrainingLoop(net, name="trainer")
        for epoch in loop.epochs(last - first + 1, start=first):
            for step in loop.batches(range(3)):
                log_events.StepMetricEvent("trainer", 3 * epoch + step, {"loss": 0.5})
            loop.log_metrics(loss=1 / epoch, bad=float("nan"))
        log_events.ImageEvent("trainer", "i", 1, np.zeros((2, 2), np.uint8))
    return run


def test_a_replayed_run_is_like_a_live_one(experiment, live):
    run = train(experiment)
    target = Keeper()

    done = replay(run, target)

    assert target.seen == live.seen
    assert target.stamps == live.stamps
    assert done == (len(live.seen), {"Keeper": 0}, 0)
    assert (target.cleaned, target.flushed >= 1) == (1, True)


@pytest.mark.parametrize("how", ["run", "record", "path", "text"])
def test_a_run_is_named_in_any_way(experiment, live, how):
    run = train(experiment)
    (record,) = experiment.previous_runs
    named = {"run": run, "record": record, "path": run.path, "text": str(run.path)}
    target = Keeper()

    replay(named[how], target)

    assert target.seen == live.seen


def test_all_attempts_are_replayed_as_they_came(experiment, live):
    train(experiment, 1, 2)
    run = train(experiment, 3, 4, resume=True)
    target = Keeper()

    replay(run, [target])

    assert target.seen == live.seen
    starts = [e for e in target.seen if isinstance(e, log_events.StartExperimentEvent)]
    assert [(event.attempt, event.resumed) for event in starts] == [
        (1, False),
        (2, True),
    ]


def test_replay_from_a_number_begins_with_the_start_event(experiment, live):
    run = train(experiment)
    target = Keeper()

    replay(run, target, from_seq=8)

    assert target.seen == [live.seen[0], *live.seen[7:]]


@pytest.mark.parametrize("from_seq", [0, 1, 2])
def test_the_start_event_is_never_fed_twice(experiment, live, from_seq):
    run = train(experiment)
    target = Keeper()

    replay(run, target, from_seq=from_seq)

    assert target.seen == live.seen


def test_several_targets_get_the_same_and_wrappers_work(experiment, live):
    run = train(experiment)
    one, two = Keeper(), Keeper()

    replay(run, [Background(one), Sampled(two, every=2)])

    assert one.seen == live.seen
    steps = [e.step for e in two.seen if isinstance(e, log_events.StepMetricEvent)]
    assert steps == [3, 5, 7, 9, 11]


def test_files_of_a_replay_are_those_of_the_live_run(experiment, tmp_path):
    experiment.trackers.subscribe(CSVDumper(tmp_path / "live"))
    train(experiment, 1, 2)
    run = train(experiment, 3, 4, resume=True)

    replay(run, CSVDumper(tmp_path / "again"))
    replay(run, CSVDumper(tmp_path / "again"))

    live, again = (
        CSVDumper.from_folder(tmp_path / name / "csv" / "E" / "a").load_metrics("net")
        for name in ("live", "again")
    )
    assert repr(again) == repr(live)  # NaN is not equal to itself
    assert live["trainer"]["loss"].steps == [1, 2, 3, 4]


def test_a_compressed_journal_is_replayed(experiment, live):
    run = train(experiment)
    compact(run.path)
    target = Keeper()

    replay(run, target)

    assert target.seen == live.seen


def test_a_run_that_was_killed_gets_an_end(experiment, tmp_path):
    run = train(experiment)
    path = run.path / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:6]))
    (run.path / "record.json").unlink()
    target = Keeper()

    replay(run.path, target)

    assert len(target.seen) == 7
    end = target.seen[-1]
    assert isinstance(end, log_events.StopExperimentEvent)
    assert (end.exp_name, end.run_id, end.status) == ("E", "a", "interrupted")
    assert target.cleaned == 1


def test_a_run_that_goes_on_can_be_replayed(experiment):
    target = Keeper()
    with experiment.create_run() as run:
        log_events.StepMetricEvent("s", 1, {"loss": 0.5})
        replay(run, target)

    assert [type(event).__name__ for event in target.seen] == [
        "StartExperimentEvent",
        "StepMetricEvent",
        "StopExperimentEvent",
    ]
    assert target.seen[-1].status == "running"


def test_what_a_tracker_kept_in_its_state_is_there_again(experiment):
    experiment.trackers.subscribe(Remembering())
    run = train(experiment)
    target = Remembering()

    replay(run, target)

    assert target.found == {"service_id": "abc"}


def test_a_failing_target_is_warned_of_once_and_counted(experiment, live):
    class Failing(Keeper):
        notify = Keeper.notify.extend()

        @notify.register
        def _fail(self, event: log_events.StepMetricEvent) -> None:
            raise OSError("no server")

    run = train(experiment)
    target, beside = Failing(), Keeper()

    with pytest.warns(TrackerExceptionWarning, match="no server") as caught:
        done = replay(run, [target, beside])

    assert len(caught) == 1
    assert done.failed == {"Failing": 9, "Keeper": 0}
    assert beside.seen == live.seen
    assert target.cleaned == 1


def test_damage_is_counted_and_said_with_its_place(experiment, live):
    run = train(experiment)
    path = run.path / "journal.jsonl"
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b'"loss":0.5', b'"loss":0.6', 1))
    target = Keeper()

    with pytest.warns(RecordWarning, match=r"1 lines of the journal .* at byte \d+"):
        done = replay(run, target)

    assert done.damaged == 1
    assert len(target.seen) == len(live.seen) - 1


def test_each_event_is_told_to_a_progress_bar(experiment, live):
    run = train(experiment)
    told = []

    replay(run, [], on_event=told.append)

    assert told == live.seen


def test_what_keeps_no_record_cannot_be_replayed(experiment, tmp_path):
    with experiment.create_run(record=False) as run:
        pass

    with pytest.raises(JournalError, match="keeps no record"):
        replay(run, Keeper())
    with pytest.raises(JournalError, match="no journal to read"):
        replay(tmp_path / "nowhere", Keeper())


def test_a_replay_changes_nothing_on_disk(experiment):
    experiment.trackers.subscribe(Remembering())
    run = train(experiment)
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}

    replay(run, Remembering())

    assert {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()} == before


def test_a_replay_inside_a_run_publishes_nothing_to_it(experiment, live):
    run = train(experiment)
    other = Experiment(name="Other", par_dir=experiment.par_dir)
    bystander = Keeper()
    other.trackers.subscribe(bystander)

    with other.create_run():
        replay(run, Keeper())

    assert len(bystander.seen) == 2


def test_original_times_are_kept(experiment, live):
    before = datetime.datetime.now().timestamp()
    run = train(experiment)
    after = datetime.datetime.now().timestamp()
    target = Keeper()

    replay(run, target)

    assert all(before - 1 < stamp.time < after + 1 for stamp in target.stamps)
    assert target.seen[0].run_ts == live.seen[0].run_ts


def test_the_end_of_an_unfinished_run_is_as_its_record_says(experiment, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    with experiment.create_run("b") as run:
        pass
    lines = (run.path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "journal.jsonl").write_bytes(lines[0])
    (folder / "record.json").write_bytes((run.path / "record.json").read_bytes())
    target = Keeper()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        replay(folder, target)

    assert target.seen[-1].status == "completed"
