"""One call that returns a started run."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

import drytrack
from drytrack import _starting
from drytrack import backends as backends_module
from drytrack.core.exceptions import (
    ConfigurationError,
    MissingDependencyError,
    RequiredTrackerError,
    RunWarning,
    UnknownBackendError,
)
from drytrack.core.log_events import StartExperimentEvent, StepMetricEvent
from drytrack.core.track import Tracker
from drytrack.testing import Recorder
from drytrack.trackers.csv import CSVDumper


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch):
    monkeypatch.setattr(backends_module, "_registered", {})


class Marked(Recorder):
    """A backend with an option."""

    def __init__(self, color: str = "red", *, par_dir: str | None = None) -> None:
        super().__init__()
        self.color = color
        self.par_dir = par_dir


class Greedy(Recorder):
    """A backend that takes any option."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.options = options


class Unreachable(Tracker):
    """A backend whose server is down."""

    notify = Tracker.notify.extend()
    error: Exception = ConnectionError("no route to the server. Start it first.")

    @notify.register
    def _connect(self, event: StartExperimentEvent) -> None:
        raise self.error


class Uninstalled(Tracker):
    """A backend whose package is missing."""

    def __init__(self) -> None:
        msg = 'Uninstalled needs the x package: pip install "drytrack[x]"'
        raise MissingDependencyError(msg)


def test_one_call_gives_a_started_run_that_csv_watches(tmp_path):
    run = drytrack.setup_tracker("digits", config={"lr": 0.1}, outdir=tmp_path)
    run.log({"loss": 0.42})
    csv = run.get_backend("csv")
    run.finish()

    assert isinstance(csv, CSVDumper)
    assert run.experiment.name == "digits"
    assert list((tmp_path / "csv" / "digits").rglob("*.csv"))
    record = json.loads((run.path / "record.json").read_text())
    assert record["status"] == "completed"


def test_the_run_is_a_context_manager(tmp_path):
    with drytrack.setup_tracker("digits", outdir=tmp_path) as run:
        run.log({"loss": 1.0})

    assert run.status == "completed"


def test_an_error_in_the_block_fails_the_run(tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        drytrack.setup_tracker("digits", outdir=tmp_path) as run,
    ):
        _ = 1 / 0

    assert run.status == "failed"


def test_the_environment_names_project_and_backends(tmp_path, monkeypatch):
    monkeypatch.setenv("DRYTRACK_PROJECT", "from-environment")
    monkeypatch.setenv("DRYTRACK_BACKENDS", "yaml, csv")

    with drytrack.setup_tracker(outdir=tmp_path) as run:
        assert run.experiment.name == "from-environment"
        assert set(run.experiment.trackers.named_trackers) == {"yaml", "csv"}


def test_the_script_names_the_project(tmp_path):
    script = tmp_path / "train mnist.py"
    script.write_text(
        "import drytrack\n"
        "with drytrack.setup_tracker() as run:\n"
        "    print(run.experiment.name)\n"
    )

    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(drytrack.__path__[0]).parent)},
    )

    assert done.stdout == "train-mnist\n"


def test_none_tracks_nothing(tmp_path):
    with drytrack.setup_tracker("digits", backends="none", outdir=tmp_path) as run:
        run.log({"loss": 1.0})
        run.log_params({"lr": 0.1})
        run.summary["best"] = 1

    assert list(tmp_path.iterdir()) == []


def test_an_experiment_name_that_exists_is_numbered_or_resumed(tmp_path):
    ids = []
    for _ in range(2):
        with drytrack.setup_tracker("digits", "exp", outdir=tmp_path) as run:
            ids.append(run.id)
    with drytrack.setup_tracker("digits", "exp", outdir=tmp_path, resume="auto") as run:
        ids.append((run.id, run.attempt))

    assert ids == ["exp", "exp_2", ("exp", 2)]


def test_a_run_that_goes_on_is_finished_by_the_next_call(tmp_path):
    first = drytrack.setup_tracker("digits", outdir=tmp_path)

    with pytest.warns(RunWarning, match=r"finished now. Call run.finish\(\)"):
        second = drytrack.setup_tracker("digits", outdir=tmp_path)

    assert (first.status, second.status) == ("completed", "running")
    second.finish()


def test_one_set_of_options_serves_several_runs(tmp_path):
    run = drytrack.setup_tracker("digits", outdir=tmp_path)
    run.log({"loss": 1.0})
    run.finish()

    with run.experiment.create_run() as second:
        second.log({"loss": 2.0})
        assert second.get_backend("csv") is not None


def test_create_tracker_and_create_multi_tracker_do_the_same(tmp_path):
    with drytrack.create_tracker("digits", backend="yaml", outdir=tmp_path) as run:
        assert set(run.experiment.trackers.named_trackers) == {"yaml"}
    with drytrack.create_multi_tracker(
        "digits", trackers=["yaml", "csv"], outdir=tmp_path
    ) as run:
        assert set(run.experiment.trackers.named_trackers) == {"yaml", "csv"}
    with pytest.raises(ConfigurationError, match="no trackers"):
        drytrack.create_multi_tracker("digits")


def test_a_tracker_can_be_passed_itself(tmp_path):
    recorder = Recorder()

    with drytrack.setup_tracker("digits", backends=[recorder], outdir=tmp_path) as run:
        run.log({"loss": 1.0})
        assert run.get_backend("Recorder") is recorder

    assert any(isinstance(event, StepMetricEvent) for event in recorder.events)


def test_another_rank_writes_nothing_and_needs_no_package(tmp_path):
    drytrack.register_backend("uninstalled", Uninstalled)

    with drytrack.setup_tracker(
        "digits", backends="uninstalled", outdir=tmp_path, rank=1
    ) as run:
        run.log({"loss": 1.0})

    assert list(tmp_path.iterdir()) == []


def test_a_project_name_that_cannot_be_a_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="which a folder name cannot"):
        drytrack.setup_tracker("a/b", outdir=tmp_path)


# -- options -------------------------------------------------------------------------


def options_seen(tmp_path, backends, **arguments):
    drytrack.register_backend("marked", Marked)
    drytrack.register_backend("greedy", Greedy)
    run = drytrack.setup_tracker(
        "digits", backends=backends, outdir=tmp_path, **arguments
    )
    try:
        return {name: run.get_backend(name) for name in backends.split(",")}
    finally:
        run.finish()


def test_a_flat_option_goes_to_the_one_that_takes_it(tmp_path):
    seen = options_seen(tmp_path, "marked,csv,greedy", color="blue")

    assert seen["marked"].color == "blue"
    assert seen["greedy"].options == {}


def test_an_option_that_nobody_names_goes_to_the_one_that_takes_any(tmp_path):
    seen = options_seen(tmp_path, "marked,greedy", entity="us")

    assert seen["greedy"].options == {"entity": "us"}


def test_a_prefix_says_which_backend_is_meant(tmp_path):
    seen = options_seen(
        tmp_path, "marked,csv", marked_color="blue", csv_dir=tmp_path / "there"
    )

    assert seen["marked"].color == "blue"
    assert seen["csv"].par_dir == tmp_path / "there"


def test_options_by_backend_reach_it(tmp_path):
    seen = options_seen(tmp_path, "marked,csv", options={"marked": {"color": "blue"}})

    assert seen["marked"].color == "blue"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"colour": "blue"}, r"takes the option 'colour'. Did you mean 'color'\?"),
        ({"par_dir": "x"}, r"taken by marked and csv. Say which: options="),
        ({"options": {"marcked": {}}}, r"'marcked', which is none .*mean 'marked'"),
        (
            {"options": {"marked": {"colr": 1}}},
            r"'marked' takes no option 'colr'. Did you mean 'color'\? It takes: color",
        ),
    ],
)
def test_an_option_that_nobody_takes_is_an_error(tmp_path, arguments, message):
    with pytest.raises(UnknownBackendError, match=message):
        options_seen(tmp_path, "marked,csv", **arguments)
    assert list(tmp_path.iterdir()) == []


# -- backends that cannot ------------------------------------------------------------


@pytest.mark.parametrize(
    ("backends", "error", "message"),
    [
        ("wandbb", UnknownBackendError, r"no backend 'wandbb'. Did you mean 'wandb'\?"),
        ("csv,csv", ConfigurationError, "named twice"),
        ("none,csv", ConfigurationError, "'none' stands alone"),
        ([3], ConfigurationError, "Pass names, or instances"),
    ],
)
def test_backends_that_make_no_sense_are_refused(tmp_path, backends, error, message):
    with pytest.raises(error, match=message):
        drytrack.setup_tracker("digits", backends=backends, outdir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_an_error_that_says_what_to_install(tmp_path):
    drytrack.register_backend("uninstalled", Uninstalled)

    with pytest.raises(ImportError, match=r'pip install "drytrack\[x\]"'):
        drytrack.setup_tracker("digits", backends="uninstalled", outdir=tmp_path)


def test_a_package_that_is_missed_at_the_start_is_an_import_error(
    tmp_path, monkeypatch
):
    missing = MissingDependencyError('It needs x: pip install "drytrack[x]".')
    monkeypatch.setattr(Unreachable, "error", missing)
    drytrack.register_backend("unreachable", Unreachable)

    with pytest.raises(ImportError, match=r'^It needs x: pip install "drytrack\[x\]"'):
        drytrack.setup_tracker("digits", backends="unreachable", outdir=tmp_path)


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            ConnectionError("no route to the server."),
            "'unreachable' cannot start: ConnectionError: no route to the server. "
            "Check its address, and that the server is up, or go on without it: "
            "on_backend_error='warn'.",
        ),
        (
            RuntimeError("returned error 401"),
            "'unreachable' cannot start: RuntimeError: returned error 401. Check the "
            "credentials that the tool itself reads, and who may write there, or",
        ),
        (
            OSError("no such project"),
            "OSError: no such project. Correct that, or go on without it",
        ),
    ],
)
def test_a_backend_that_cannot_start_is_an_error_that_says_what_to_do(
    tmp_path, monkeypatch, background, what, message
):
    monkeypatch.setattr(Unreachable, "background", background)
    monkeypatch.setattr(Unreachable, "error", what)
    drytrack.register_backend("unreachable", Unreachable)

    with pytest.raises(RequiredTrackerError, match=re.escape(message)) as caught:
        drytrack.setup_tracker("digits", backends="csv,unreachable", outdir=tmp_path)

    assert caught.value.__cause__ is what
    with drytrack.setup_tracker("digits", outdir=tmp_path) as run:
        assert run.status == "running"


def test_a_backend_that_takes_long_to_start_is_spoken_of(tmp_path, monkeypatch, caplog):
    told = threading.Event()

    class Told(logging.Handler):
        def emit(self, record):
            told.set()

    class Slow(Recorder):
        notify = Recorder.notify.extend()

        @notify.register
        def _open(self, event: StartExperimentEvent) -> None:
            assert told.wait(60)

    monkeypatch.setattr(_starting, "SLOW_S", 0.01)
    drytrack.register_backend("slow", Slow)
    handler = Told()
    logging.getLogger("drytrack").addHandler(handler)
    try:
        drytrack.setup_tracker("digits", backends="slow", outdir=tmp_path).finish()
    finally:
        logging.getLogger("drytrack").removeHandler(handler)

    assert "still waits for its backends (slow)" in caplog.text


def test_the_lenient_way_goes_on_without_what_cannot_start(tmp_path):
    drytrack.register_backend("uninstalled", Uninstalled)
    drytrack.register_backend("unreachable", Unreachable)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run = drytrack.setup_tracker(
            "digits",
            backends="csv,unreachable,uninstalled",
            outdir=tmp_path,
            on_backend_error="warn",
        )
        run.log({"loss": 1.0})
        watching = [run.get_backend(name) for name in ("csv", "uninstalled")]
        run.finish()

    assert isinstance(watching[0], CSVDumper)
    assert watching[1] is None
    messages = [str(warning.message) for warning in told]
    assert any("no route to the server" in message for message in messages)
    assert any("'uninstalled' is left out" in message for message in messages)


def test_the_lenient_way_goes_on_without_a_package_that_cannot_be_imported(
    tmp_path, install_tracker
):
    install_tracker("theirs", "no_such_module_of_theirs")
    options = {"theirs": {"color": "red"}}

    with pytest.raises(MissingDependencyError, match="no_such_module_of_theirs"):
        drytrack.setup_tracker(
            "digits", backends="theirs", options=options, outdir=tmp_path
        )
    with pytest.warns(RunWarning, match="Backend 'theirs' is left out"):
        run = drytrack.setup_tracker(
            "digits",
            backends="theirs,csv",
            options=options,
            outdir=tmp_path,
            on_backend_error="warn",
        )

    assert list(run.bus.guests) == ["csv"]
    run.finish()


def test_an_unknown_way_of_taking_errors_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="'raise' or 'warn'"):
        drytrack.setup_tracker("digits", outdir=tmp_path, on_backend_error="ignore")
