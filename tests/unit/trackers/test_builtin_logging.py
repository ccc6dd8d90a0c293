"""The logger's sentences, its levels, and whom it leaves alone."""

from __future__ import annotations

import io
import logging
import pathlib

import pytest

from drytrack import Experiment, TestLoop, TrainingLoop, init_trackers
from drytrack.core import log_events
from drytrack.testing import TrackerContract
from drytrack.trackers import builtin_logging
from drytrack.trackers.builtin_logging import BuiltinLogger, Level
from drytrack.trackers.csv import CSVDumper

LOGGER = logging.getLogger("drytrack")


@pytest.fixture(autouse=True)
def _fresh_logger():
    init_trackers("none")
    builtin_logging.reset_logging()
    before = list(LOGGER.handlers)
    yield
    builtin_logging.reset_logging()
    LOGGER.handlers[:] = before
    init_trackers("none")


class TestBuiltinLogger(TrackerContract):
    def make_tracker(self, tmp_path):
        return BuiltinLogger()


def start(run_id="first", **changes):
    fields = {"config": None, "exp_name": "Digits", "run_ts": None, "run_id": run_id}
    return log_events.StartExperimentEvent.unpublished(**{**fields, **changes})


def stop(run_id="first", **changes):
    return log_events.StopExperimentEvent.unpublished("Digits", run_id, **changes)


def metrics(**values):
    return log_events.MetricEvent.unpublished("mlp", "trainer", 3, values)


def sentences(text):
    return [line.partition("] ")[2] for line in text.splitlines()]


def train(experiment, epochs=2, **kwargs):
    with experiment.create_run("first", **kwargs) as run:
        net = object()
        run.register_model(net, "mlp")
        loop = TrainingLoop(net, "trainer")
        for epoch in loop.epochs(epochs):
            for _ in loop.batches(range(3)):
                loop.update(loss=0.5)
            loop.log_metrics(loss=0.123456, accuracy=float("nan"))
            loop.save_model("checkpoint", f"weights_{epoch}.npz")
        with TestLoop(net, "test") as test:
            test.log_metrics(accuracy=0.97)


def test_a_run_is_told_in_sentences_on_standard_error_alone(tmp_path, capsys):
    experiment = Experiment(name="Digits", par_dir=tmp_path)
    experiment.trackers.subscribe(BuiltinLogger())

    train(experiment, epochs=1)

    out, err = capsys.readouterr()
    told = sentences(err)
    assert out == ""
    assert told[:3] == [
        "Digits: run first started.",
        "Model mlp registered.",
        "trainer trains mlp, epochs 1 to 1.",
    ]
    assert "trainer (mlp), epoch 1/1: loss=0.1235, accuracy=nan" in told
    assert "mlp: checkpoint of epoch 1 saved, weights_1.npz" in told
    assert "test (mlp), epoch 1: accuracy=0.97" in told
    assert told[-2].startswith("Digits: run first completed after ")
    folder = tmp_path / ".drytrack" / "Digits" / "first"
    assert told[-1] == f"Record in {folder}"
    assert folder.is_dir()


def test_the_end_says_where_other_trackers_left_their_files(tmp_path, capsys):
    experiment = Experiment(name="Digits", par_dir=tmp_path)
    dumper = CSVDumper()
    experiment.trackers.subscribe(BuiltinLogger(), dumper)

    train(experiment, epochs=1)

    last = sentences(capsys.readouterr().err)[-1]
    files = pathlib.Path(last.partition("; files in ")[2])
    assert files.is_dir()
    assert list(files.rglob("*.csv"))


def test_a_failed_run_says_why_and_how_to_go_on(tmp_path, capsys):
    experiment = Experiment(name="Digits", par_dir=tmp_path)
    experiment.trackers.subscribe(BuiltinLogger.minimal())

    with pytest.raises(OSError, match="full"), experiment.create_run("first"):
        raise OSError("the disc is full")

    told = sentences(capsys.readouterr().err)
    assert told[0].startswith("WARNING: Digits: run first failed after ")
    assert told[0].endswith(" (OSError: the disc is full).")
    assert told[-1] == "Go on with create_run('first', resume=True)."


def test_a_resumed_run_says_so(tmp_path, capsys):
    experiment = Experiment(name="Digits", par_dir=tmp_path)
    experiment.trackers.subscribe(BuiltinLogger())
    train(experiment)
    capsys.readouterr()

    train(experiment, resume=True)

    told = sentences(capsys.readouterr().err)
    assert told[0] == "Digits: run first resumed, attempt 2."


def test_a_run_without_a_record_promises_none(tmp_path, capsys):
    experiment = Experiment(name="Digits", par_dir=tmp_path)
    experiment.trackers.subscribe(BuiltinLogger())

    with pytest.raises(ZeroDivisionError), experiment.create_run(record=False):
        raise ZeroDivisionError

    err = capsys.readouterr().err
    assert "failed after" in err
    assert "Record" not in err
    assert "resume" not in err


def test_an_early_end_is_told_with_its_reason(tmp_path, capsys):
    experiment = Experiment(name="Digits", par_dir=tmp_path)
    experiment.trackers.subscribe(BuiltinLogger.minimal())

    with experiment.create_run() as run:
        run.register_model("net", "mlp")
        loop = TrainingLoop("mlp", "trainer")
        for _ in loop.epochs(5):
            loop.terminate("no progress")

    told = sentences(capsys.readouterr().err)
    assert told[0] == "trainer trains mlp, epochs 1 to 5."
    assert told[1] == "trainer stopped training mlp in epoch 1: no progress."
    assert told[2].startswith("trainer ended its training after ")
    assert len(told) == 3


def test_the_minimal_logger_says_nothing_of_a_run_without_training(tmp_path, capsys):
    experiment = Experiment(name="Digits", par_dir=tmp_path)
    experiment.trackers.subscribe(BuiltinLogger.minimal())

    with experiment.create_run():
        pass

    assert capsys.readouterr() == ("", "")


def test_metrics_beside_bars_are_not_logged(capsys):
    tracker = BuiltinLogger(log_metrics=False)

    for event in (start(), metrics(loss=1.0), stop()):
        tracker.notify(event)

    assert "loss" not in capsys.readouterr().err


def test_levels_are_an_ordering_from_internal_to_metrics():
    assert list(Level) == sorted(Level)
    assert logging.DEBUG < Level.INTERNAL < Level.EPOCH < logging.INFO
    assert logging.INFO < Level.MODEL_STATE
    assert Level.METRICS < logging.WARNING


def test_a_record_carries_the_name_of_its_level():
    stream = io.StringIO()
    builtin_logging.enable_default_handler(stream)
    builtin_logging.set_formatter("%(levelname)s")

    tracker = BuiltinLogger()
    tracker.notify(start())
    tracker.notify(log_events.ModelRegistrationEvent.unpublished("mlp", None, "MLP()"))
    tracker.notify(metrics(loss=1.0))

    assert stream.getvalue().split("\n")[:3] == ["EXPERIMENT", "MODEL STATE", "METRICS"]


@pytest.mark.parametrize(
    ("level", "seen"),
    [
        ("internal", ["loss", "works on", "Digits"]),
        ("epoch", ["loss", "Digits"]),
        ("training", ["loss"]),
        (Level.METRICS, ["loss"]),
        ("warning", []),
    ],
)
def test_verbosity_chooses_what_is_shown_whatever_the_mode(level, seen, capsys):
    builtin_logging.set_verbosity(level)
    tracker = BuiltinLogger.minimal(log_metrics=True)

    actor = log_events.ActorRegistrationEvent.unpublished("t", None, "mlp", None, {})
    for event in (start(), actor, metrics(loss=1.0), stop()):
        tracker.notify(event)

    err = capsys.readouterr().err
    for word in ("works on", "Digits", "loss"):
        assert (word in err) == (word in seen)
    assert builtin_logging.get_verbosity() == LOGGER.level


def test_an_unknown_level_is_refused_by_name():
    with pytest.raises(ValueError, match=r"'loud'.*'model state'"):
        builtin_logging.set_verbosity("loud")
    with pytest.raises(ValueError, match="'loud'"):
        BuiltinLogger(verbosity="loud")


def test_the_mode_of_the_latest_run_holds(capsys):
    BuiltinLogger.minimal().notify(start())
    assert capsys.readouterr().err == ""

    BuiltinLogger().notify(start("second"))

    assert sentences(capsys.readouterr().err) == ["Digits: run second started."]


def test_two_loggers_do_not_double_lines(capsys):
    first, second = BuiltinLogger(), BuiltinLogger()

    first.notify(start("first"))
    second.notify(start("second"))

    told = sentences(capsys.readouterr().err)
    assert told == ["Digits: run first started.", "Digits: run second started."]


def test_a_replaced_stream_gets_the_lines_that_follow(monkeypatch, capsys):
    tracker = BuiltinLogger()
    tracker.notify(start())
    replaced = io.StringIO()
    monkeypatch.setattr("sys.stderr", replaced)

    tracker.notify(metrics(loss=1.0))

    assert "loss=1" in replaced.getvalue()
    assert "loss" not in capsys.readouterr().err


def test_a_process_without_standard_error_logs_nothing(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)

    BuiltinLogger().notify(start())


def test_what_a_stream_cannot_encode_is_escaped():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    builtin_logging.enable_default_handler(stream)

    BuiltinLogger().notify(start("größer"))

    assert b"run gr\\xf6\\xdfer started." in raw.getvalue()


def test_handlers_of_the_user_are_used_in_place_of_ours(capsys):
    stream = io.StringIO()
    LOGGER.addHandler(logging.StreamHandler(stream))

    BuiltinLogger().notify(start())

    assert stream.getvalue() == "Digits: run first started.\n"
    assert capsys.readouterr().err == ""
    assert LOGGER.propagate


def test_a_level_set_by_the_user_is_kept(capsys):
    LOGGER.setLevel(logging.ERROR)

    BuiltinLogger().notify(start())

    assert LOGGER.level == logging.ERROR
    assert capsys.readouterr().err == ""


def test_the_handler_can_be_disabled_and_enabled_again(capsys):
    builtin_logging.disable_default_handler()
    tracker = BuiltinLogger()
    tracker.notify(start())
    assert capsys.readouterr().err == ""

    builtin_logging.enable_default_handler()
    tracker.notify(metrics(loss=1.0))

    assert "loss=1" in capsys.readouterr().err


def test_lines_propagate_when_asked_to_and_are_shown_once(capsys):
    root, stream = logging.getLogger(), io.StringIO()
    handler = logging.StreamHandler(stream)
    root.addHandler(handler)
    try:
        tracker = BuiltinLogger()
        tracker.notify(start())
        assert stream.getvalue() == ""
        capsys.readouterr()

        builtin_logging.enable_propagation()
        tracker.notify(start())
        assert stream.getvalue() == "Digits: run first started.\n"
        assert capsys.readouterr().err == ""

        builtin_logging.disable_propagation()
        tracker.notify(metrics(loss=1.0))
        assert "loss" not in stream.getvalue()
        assert "loss" in capsys.readouterr().err
    finally:
        root.removeHandler(handler)


def test_the_standard_format_names_date_level_and_logger():
    stream = io.StringIO()
    builtin_logging.enable_default_handler(stream)
    builtin_logging.set_formatter("standard")

    BuiltinLogger().notify(start())

    assert stream.getvalue().endswith(
        " EXPERIMENT drytrack: Digits: run first started.\n"
    )


def test_a_formatter_of_the_user_is_used():
    stream = io.StringIO()
    builtin_logging.enable_default_handler(stream)
    builtin_logging.set_formatter(logging.Formatter("<%(message)s>"))

    BuiltinLogger().notify(start())

    assert stream.getvalue() == "<Digits: run first started.>\n"


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match=r"'fancy'.*'standard'"):
        builtin_logging.set_formatter("fancy")


def test_no_other_logger_is_touched():
    root = logging.getLogger()
    before = (root.level, list(root.handlers), root.disabled)
    other = logging.getLogger("somebody.else")

    BuiltinLogger.for_hydra().notify(start())
    BuiltinLogger().notify(start())

    assert (root.level, list(root.handlers), root.disabled) == before
    assert (other.level, other.handlers, other.propagate) == (0, [], True)


def test_a_name_that_another_library_gave_a_level_is_kept():
    name = logging.getLevelName(int(Level.METRICS))
    logging.addLevelName(int(Level.METRICS), "NOTICE")
    try:
        BuiltinLogger().notify(start())
        assert logging.getLevelName(int(Level.METRICS)) == "NOTICE"
    finally:
        logging.addLevelName(int(Level.METRICS), name)
