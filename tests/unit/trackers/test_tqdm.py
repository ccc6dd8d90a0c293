"""What the bars say, when they close, and the lines that stand in for them."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import textwrap
import threading

import pytest
from tqdm.std import tqdm

from drytrack import Experiment, TestLoop, TrainingLoop, init_trackers
from drytrack.core import log_events
from drytrack.core.exceptions import MissingDependencyError
from drytrack.testing import TrackerContract
from drytrack.trackers.tqdm import TqdmLogger


class Terminal(io.StringIO):
    """A terminal of unknown size: what is drawn on it can be read back."""

    encoding = "utf-8"

    def isatty(self):
        return True

    def left(self):
        """Return the lines that are on the screen now."""
        rows, row, column = [""], 0, 0
        for text in re.findall(r"\x1b\[A|[\r\n]|[^\r\n\x1b]+", self.getvalue()):
            if text == "\x1b[A":
                row -= 1
            elif text == "\r":
                column = 0
            elif text == "\n":
                row, column = row + 1, 0
                rows += [""] * (row + 1 - len(rows))
            else:
                line = rows[row].ljust(column)
                rows[row] = line[:column] + text + line[column + len(text) :]
                column += len(text)
        return [line.rstrip() for line in rows if line.strip()]


class Loader:
    def __init__(self, n, batch_size=None, dataset=None):
        self.n = n
        if batch_size is not None:
            self.batch_size = batch_size
        if dataset is not None:
            self.dataset = dataset

    def __len__(self):
        return self.n

    def __iter__(self):
        return iter(range(self.n))


class TestTqdmLogger(TrackerContract):
    def make_tracker(self, tmp_path):
        return TqdmLogger(training_bar=True, file=Terminal())


class TestTqdmLoggerInAFile(TrackerContract):
    def make_tracker(self, tmp_path):
        return TqdmLogger(file=io.StringIO())


@pytest.fixture(autouse=True)
def _no_defaults(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    init_trackers("none")
    yield
    assert not list(tqdm._instances), "a bar was left open"


@pytest.fixture
def terminal():
    return Terminal()


@pytest.fixture
def run_with(tmp_path):
    """Return a function that makes a run with a model and one tracker."""

    def create(tracker):
        experiment = Experiment(name="Digits", par_dir=tmp_path)
        experiment.trackers.subscribe(tracker)
        return experiment.create_run(record=False)

    return create


def fit(run, loader, epochs=1, source="trainer", **metrics):
    run.register_model(object(), "mlp")
    loop = TrainingLoop("mlp", source, log_every=2)
    for _ in loop.epochs(epochs):
        for _ in loop.batches(loader):
            loop.update(loss=0.123456)
        if metrics:
            loop.log_metrics(metrics)


def test_a_finished_bar_shows_the_metrics_of_its_epoch(terminal, run_with):
    with run_with(TqdmLogger(file=terminal)) as run:
        fit(run, Loader(9), epochs=2, accuracy=0.971234, loss=float("nan"))

    first, second = terminal.left()
    assert first.startswith("trainer epoch 1/2: 100%|")
    assert second.startswith("trainer epoch 2/2: 100%|")
    assert " 9/9 " in first
    assert "accuracy=0.9712, loss=nan" in first


def test_a_running_bar_shows_the_latest_metrics_and_samples(terminal, run_with):
    with run_with(TqdmLogger(file=terminal)) as run:
        fit(run, Loader(9, batch_size=4, dataset=range(33)))

    (left,) = terminal.left()
    # The widest format that fits 79 columns.
    assert "loss=0.1235" in left
    assert "33 samples" in left


def test_a_loader_without_length_has_a_count_in_place_of_a_bar(terminal, run_with):
    with run_with(TqdmLogger(file=terminal)) as run:
        fit(run, iter(range(7)), loss=0.5)

    (left,) = terminal.left()
    assert re.match(r"trainer epoch 1/1: 7 batches \[00:00, .*loss=0.5\]", left)


def test_a_loader_longer_than_it_said_is_counted_on(terminal, run_with):
    class Longer(Loader):
        def __len__(self):
            return 4

    with run_with(TqdmLogger(file=terminal)) as run:
        fit(run, Longer(9))

    assert terminal.left()[-1].startswith("trainer epoch 1/1: 9 batches")


def test_bars_that_are_not_to_stay_vanish(terminal, run_with):
    with run_with(TqdmLogger(leave=False, file=terminal)) as run:
        fit(run, Loader(9), epochs=2, loss=0.5)

    assert "trainer epoch 1/2" in terminal.getvalue()
    assert terminal.left() == []


def test_a_bar_closes_where_an_epoch_breaks(terminal, run_with):
    with run_with(TqdmLogger(file=terminal)) as run:
        run.register_model("net", "mlp")
        loop = TrainingLoop("mlp", "trainer", log_every=1)
        for _ in loop.epochs(3):
            for i in loop.batches(Loader(9)):
                loop.update(loss=i)
                if i == 4:
                    break
            break
        assert not list(tqdm._instances)

    (left,) = terminal.left()
    assert " 4/9 " in left


def test_a_bar_closes_where_an_epoch_raises(terminal, run_with):
    class Broken(Loader):
        def __iter__(self):
            yield 0
            raise ZeroDivisionError

    tracker = TqdmLogger(training_bar=True, file=terminal)
    with pytest.raises(ZeroDivisionError), run_with(tracker) as run:
        fit(run, Broken(9), epochs=3)

    assert "0/3" in terminal.left()[-1]


def test_a_test_is_shown_below_the_training_that_it_interrupts(terminal, run_with):
    with run_with(TqdmLogger(file=terminal)) as run:
        run.register_model("net", "mlp")
        loop = TrainingLoop("mlp", "trainer", log_every=1)
        test = TestLoop("mlp", "val", log_every=1)
        for _ in loop.epochs(1):
            for i in loop.batches(Loader(6)):
                loop.update(loss=i)
                if i == 2:
                    with test:
                        for _ in test.batches(Loader(3)):
                            assert len(tqdm._instances) == 2
                            shown = [x.partition(":")[0] for x in terminal.left()]
                            assert shown == ["trainer epoch 1/1", "val"]
                            test.update(acc=0.5)
                        test.log_metrics(acc=0.75)

    inner, outer = terminal.left()
    assert inner.startswith("val: 100%")
    assert "acc=0.75" in inner
    assert outer.startswith("trainer epoch 1/1: 100%")


def test_a_test_after_an_epoch_leaves_its_line_below(terminal, run_with):
    with run_with(TqdmLogger(file=terminal)) as run:
        run.register_model("net", "mlp")
        loop = TrainingLoop("mlp", "trainer")
        test = TestLoop("mlp", "val")
        for _ in loop.epochs(2):
            for _ in loop.batches(Loader(6)):
                loop.update(loss=1)
            loop.log_metrics(loss=0.25)
            with test:
                for _ in test.batches(Loader(3)):
                    test.update(acc=0.5)
                test.log_metrics(acc=0.75)

    titles = [line.partition(":")[0] for line in terminal.left()]
    assert titles == ["trainer epoch 1/2", "val", "trainer epoch 2/2", "val"]


def test_metrics_that_come_after_their_bar_get_a_line(terminal, run_with):
    with run_with(TqdmLogger(file=terminal)) as run:
        run.register_model("net", "mlp")
        loop = TrainingLoop("mlp", "trainer")
        for _ in loop.epochs(1):
            for _ in loop.batches(Loader(6)):
                loop.update(loss=1)
            with TestLoop("mlp", "val") as test:
                test.log_metrics(acc=0.75)
            loop.log_metrics(loss=0.25)

    assert terminal.left()[1:] == ["val: acc=0.75", "trainer epoch 1/1: loss=0.25"]


def test_the_training_bar_gathers_metrics_and_stays_alone(terminal, run_with):
    with run_with(TqdmLogger(training_bar=True, file=terminal)) as run:
        run.register_model("net", "mlp")
        loop = TrainingLoop("mlp", "trainer")
        test = TestLoop("mlp", "val")
        for _ in loop.epochs(3):
            for _ in loop.batches(Loader(6)):
                loop.update(loss=1)
            loop.log_metrics(loss=0.25)
            with test:
                for _ in test.batches(Loader(3)):
                    test.update(acc=0.5)
                test.log_metrics(acc=0.75)

    (left,) = terminal.left()
    assert left.startswith("trainer: 100%|")
    assert " 3/3 " in left
    assert "loss=0.25, val acc=0.75" in left


def test_a_resumed_training_starts_where_it_had_ended(terminal):
    tracker = TqdmLogger(training_bar=True, file=terminal)
    tracker.notify(
        log_events.StartExperimentEvent.unpublished(None, "Digits", None, "first")
    )

    tracker.notify(log_events.StartTrainingEvent.unpublished("trainer", "mlp", 6, 10))

    assert " 50%|" in terminal.getvalue()
    assert "5/10" in terminal.getvalue()
    tracker.clean_up()


def test_training_with_nothing_left_shows_no_bar(terminal):
    tracker = TqdmLogger(training_bar=True, file=terminal)
    start = log_events.StartExperimentEvent.unpublished(None, "Digits", None, "first")
    tracker.notify(start)

    tracker.notify(log_events.StartTrainingEvent.unpublished("trainer", "mlp", 11, 10))

    assert terminal.getvalue() == ""


def test_one_tracker_follows_run_after_run(terminal, run_with):
    tracker = TqdmLogger(file=terminal)
    for _ in range(2):
        with run_with(tracker) as run:
            fit(run, Loader(4), loss=0.5)

    assert len(terminal.left()) == 2


def test_two_runs_at_once_have_bars_of_their_own(terminal, tmp_path):
    experiment = Experiment(name="Digits", par_dir=tmp_path)
    experiment.trackers.subscribe(TqdmLogger(file=terminal))
    both = threading.Barrier(2, timeout=20)

    def work(name):
        with experiment.create_run(name, record=False) as run:
            both.wait()
            fit(run, Loader(4), source=name, loss=0.5)
            both.wait()

    threads = [threading.Thread(target=work, args=(n,)) for n in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    shown = terminal.getvalue()
    for name in ("one", "two"):
        assert re.search(rf"{name} epoch 1/1: 100%.*4/4 .*loss=0.5", shown)


def test_a_second_pass_of_a_source_closes_its_first(terminal, run_with):
    with run_with(TqdmLogger(file=terminal)) as run:
        run.register_model("net", "mlp")
        loop = TrainingLoop("mlp", "trainer")
        for _ in loop.epochs(1):
            for _ in range(2):
                for _ in loop.batches(Loader(5)):
                    loop.update(loss=1)
            loop.log_metrics(loss=0.25)

    first, second = terminal.left()
    assert "loss=1" in first
    assert "loss=0.25" in second


def test_an_empty_loader_is_shown_and_done(terminal, run_with):
    with run_with(TqdmLogger(file=terminal)) as run:
        fit(run, Loader(0), loss=0.5)

    (left,) = terminal.left()
    assert left.startswith("trainer epoch 1/1: 0 batches")


def test_a_long_name_leaves_room_for_the_bar(terminal, run_with):
    with run_with(TqdmLogger(file=terminal)) as run:
        fit(run, Loader(4), source="x" * 300, loss=0.5)

    (left,) = terminal.left()
    assert "... " in left
    assert "100%" in left
    assert "loss=0.5" in left


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_names_that_the_terminal_cannot_show_are_escaped(encoding, run_with):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    stream.isatty = lambda: True
    with run_with(TqdmLogger(file=stream)) as run:
        fit(run, Loader(4), source="\N{OWL}", loss=0.5)

    assert "\\U0001f989 epoch 1/1: 100%" in raw.getvalue().decode(encoding)


# -- plain lines -----------------------------------------------------------------


def test_a_plain_file_gets_one_line_for_each_pass(run_with):
    file = io.StringIO()
    with run_with(TqdmLogger(file=file)) as run:
        fit(run, Loader(9, batch_size=4, dataset=range(33)), epochs=2, loss=0.5)

    first, second = file.getvalue().splitlines()
    pattern = r"trainer epoch {}/2: 9/9 batches, loss=0.5, [\d.e+]+ samples/s"
    assert re.fullmatch(pattern.format(1), first)
    assert re.fullmatch(pattern.format(2), second)
    assert "\r" not in file.getvalue()
    assert "\x1b" not in file.getvalue()


def test_a_plain_file_gets_lines_in_between_at_intervals(run_with):
    file = io.StringIO()
    with run_with(TqdmLogger(file=file, interval_s=0)) as run:
        fit(run, Loader(7), loss=0.5)

    lines = [
        re.sub(r", [\d.e+]+ batches/s", "", x) for x in file.getvalue().split("\n")
    ]
    assert lines == [
        "trainer epoch 1/1: 2/7 batches, loss=0.1235",
        "trainer epoch 1/1: 4/7 batches, loss=0.1235",
        "trainer epoch 1/1: 6/7 batches, loss=0.1235",
        "trainer epoch 1/1: 7/7 batches, loss=0.5",
        "",
    ]


def test_a_plain_file_gets_nothing_where_nothing_is_to_stay(run_with):
    file = io.StringIO()
    with run_with(TqdmLogger(file=file, leave=False)) as run:
        fit(run, Loader(7), loss=0.5)

    assert file.getvalue() == ""


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(
    terminal, run_with, monkeypatch
):
    monkeypatch.setenv("TERM", "dumb")
    with run_with(TqdmLogger(file=terminal)) as run:
        fit(run, Loader(7), loss=0.5)

    assert "\r" not in terminal.getvalue()
    assert "7/7 batches, loss=0.5" in terminal.getvalue()


def test_standard_error_is_looked_up_when_used(monkeypatch, run_with):
    tracker = TqdmLogger()
    replaced = io.StringIO()
    monkeypatch.setattr("sys.stderr", replaced)

    with run_with(tracker) as run:
        fit(run, Loader(7), loss=0.5)

    assert "7/7 batches, loss=0.5" in replaced.getvalue()


def test_a_process_without_standard_error_shows_nothing(monkeypatch, run_with):
    monkeypatch.setattr("sys.stderr", None)

    with run_with(TqdmLogger()) as run:
        fit(run, Loader(7), loss=0.5)
        TestLoop("mlp", "test").log_metrics(accuracy=1)


# -- what it asks for ------------------------------------------------------------


def test_a_negative_interval_is_refused():
    with pytest.raises(ValueError, match="interval_s is -1"):
        TqdmLogger(interval_s=-1)


def test_a_missing_tqdm_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)

    with pytest.raises(MissingDependencyError, match="pip install tqdm"):
        TqdmLogger()


def test_tqdm_is_loaded_with_the_first_bar_and_not_before(tmp_path):
    script = f"""
        import sys
        from drytrack import Experiment, TestLoop
        with Experiment(name="Digits", par_dir={str(tmp_path)!r}).create_run() as run:
            run.register_model("net", "mlp")
            loop = TestLoop("mlp", "test")
            assert "tqdm" not in sys.modules
            list(loop.batches(range(3)))
            assert "tqdm" in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


def test_a_bar_starts_no_thread(terminal, run_with):
    before = threading.active_count()
    with run_with(TqdmLogger(file=terminal)) as run:
        fit(run, Loader(7), loss=0.5)
        assert threading.active_count() == before
