"""DVCLive's own readers on what the tracker writes."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from drytrack import Experiment
from drytrack.core import log_events
from drytrack.core.exceptions import DeliveryWarning, TrackerExceptionWarning
from drytrack.core.journal import JournalReader
from drytrack.replay import replay
from drytrack.testing import TrackerContract
from drytrack.trackers.base import Series
from drytrack.trackers.dvclive import DVCLive

pytestmark = [
    pytest.mark.backend,
    pytest.mark.timeout(600),  # it starts processes, on a machine that may be busy
    pytest.mark.skipif(
        importlib.util.find_spec("dvclive") is None, reason="needs dvclive"
    ),
    # Of DVC's own dependencies.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::SyntaxWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(autouse=True)
def _tell_nobody(monkeypatch):
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")


def metrics_in(folder):
    """Return metric → its rows, as DVCLive's reports read them."""
    from dvclive.utils import parse_tsv

    place = folder / "plots" / "metrics"
    found = {}
    for path in sorted(place.rglob("*.tsv")):
        name = path.relative_to(place).with_suffix("").as_posix()
        rows = [(int(r["step"]), float(list(r.values())[-1])) for r in parse_tsv(path)]
        found[name] = rows
    return found


def latest_in(folder):
    """Return the newest values, as `dvc metrics` shows them."""
    return json.loads((folder / "metrics.json").read_text())


def experiment_with(tracker, tmp_path, config=None):
    experiment = Experiment(config, name="Vision", par_dir=tmp_path)
    experiment.trackers.remove_all()
    experiment.trackers.subscribe(tracker)
    return experiment


def folder_of(tmp_path, run_id="run"):
    return tmp_path / "dvclive" / "Vision" / run_id


def train(experiment, epochs, run_id="run", **options):
    with experiment.create_run(run_id, **options) as run:
        for epoch in epochs:
            log_events.MetricEvent("mlp", "train", epoch, {"loss": epoch / 10})
    return run


class TestDVCLive(TrackerContract):
    def make_tracker(self, tmp_path):
        return DVCLive(tmp_path)

    def read_back(self, tracker, start, model_name):
        loaded: dict[str, dict[str, Series]] = {}
        for key, rows in metrics_in(tracker.find_run_dir(start)).items():
            *model, source, metric = tracker.rule.restore(key).split("/")
            if metric.endswith("_step") or (model or ["model"]) != [model_name]:
                continue
            newest = dict(rows)
            series = Series(list(newest), list(newest.values()))
            loaded.setdefault(source, {})[metric] = series
        return loaded


def test_everything_is_read_back_by_dvclive(tmp_path):
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    config = {"lr": 0.1, "net": {"widths": [8, 4]}, "api_key": "sk-secret-1234567890"}
    with experiment_with(DVCLive(), tmp_path, config).create_run("run"):
        log_events.MetricEvent("mlp", "train", 1, {"loss": 0.5, "100% right": 0.25})
        log_events.HistogramEvent("train", "weights", 3, [1, 2, 1], [0, 1, 2, 3])
        log_events.ImageEvent("train", "sample", 4, pixels)
        log_events.SummaryEvent({"best": 0.75, "why": "early"})

    folder = folder_of(tmp_path)
    found = metrics_in(folder)
    assert found == {"train/loss": [(1, 0.5)], "train/100_x25_ right": [(1, 0.25)]}
    assert DVCLive.rule.restore("train/100_x25_ right") == "train/100% right"
    latest = latest_in(folder)
    assert latest["train"]["loss"] == 0.5
    assert latest["best"] == 0.75
    assert latest["why"] == "early"
    from dvclive.serialize import load_yaml
    from PIL import Image

    params = load_yaml(folder / "params.yaml")
    assert params["lr"] == 0.1
    assert params["net"] == {"widths": [8, 4]}
    assert params["api_key"] != "sk-secret-1234567890"
    with Image.open(folder / "plots/images/train/sample/4.png") as opened:
        assert np.array_equal(np.asarray(opened), pixels)
    bins = json.loads((folder / "plots/custom/train/weights/3.json").read_text())
    assert [(point["bin"], point["count"]) for point in bins] == [
        (0, 1),
        (1, 2),
        (2, 1),
    ]
    assert not (tmp_path / "dvc.yaml").exists()


def test_names_that_exclude_each_other_in_a_tree_are_both_kept(tmp_path):
    with experiment_with(DVCLive(), tmp_path).create_run("run"):
        log_events.MetricEvent("mlp", "a", 1, {"b": 1.0, "b/c": 2.0})
        log_events.MetricEvent("mlp", "d", 1, {"e/f": 3.0, "e": 4.0})

    values = [rows[0][1] for rows in metrics_in(folder_of(tmp_path)).values()]
    assert sorted(values) == [1.0, 2.0, 3.0, 4.0]


def test_nan_and_infinity_are_kept(tmp_path):
    with experiment_with(DVCLive(), tmp_path).create_run("run"):
        for epoch, loss in enumerate((math.nan, math.inf, -math.inf)):
            log_events.MetricEvent("mlp", "train", epoch, {"loss": loss})
        log_events.SummaryEvent({"worst": math.nan})

    values = [value for _, value in metrics_in(folder_of(tmp_path))["train/loss"]]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf]
    assert latest_in(folder_of(tmp_path))["worst"] == "nan"


def test_artifacts_are_tracked_in_a_dvc_repository(tmp_path):
    from dvc.repo import Repo

    Repo.init(no_scm=True).close()
    data = tmp_path / "data.csv"
    data.write_text("a,b\n")
    with experiment_with(DVCLive(), tmp_path).create_run("run"):
        log_events.ArtifactEvent("data", data, "dataset")

    kept = folder_of(tmp_path) / "artifacts"
    assert (kept / "data.csv").read_text() == "a,b\n"
    assert "md5" in (kept / "data.csv.dvc").read_text()


def test_a_git_repository_is_left_as_it_is(tmp_path):
    from scmrepo.git import Git

    Git.init(str(tmp_path)).close()

    train(experiment_with(DVCLive(), tmp_path), [1, 2])

    assert metrics_in(folder_of(tmp_path))["train/loss"] == [(1, 0.1), (2, 0.2)]
    assert not list(tmp_path.glob(".dvc*"))
    assert not (tmp_path / ".git" / "index").exists()  # nothing is staged


CHILD = """
import sys
from drytrack import Experiment
from drytrack.core import log_events
from drytrack.trackers.dvclive import DVCLive

experiment = Experiment(None, name="Vision", par_dir=sys.argv[1])
experiment.trackers.subscribe(DVCLive())
with experiment.create_run(sys.argv[2]) as run:
    for epoch in range(1, 21):
        log_events.MetricEvent("mlp", "train", epoch, {"loss": epoch / 10})
    if sys.argv[3] == "wait":
        assert run.flush(60)
        for epoch in range(21, 221):
            log_events.MetricEvent("mlp", "train", epoch, {"loss": epoch / 10})
        print("ready", flush=True)
        sys.stdin.read()
"""


def child(*arguments, **options):
    environment = {**os.environ, "DRYTRACK_INIT_MODE": "none"}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *map(str, arguments)], env=environment, **options
    )


def test_a_killed_run_has_every_value_once_after_a_resume(tmp_path):
    process = child(
        tmp_path, "run", "wait", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout.readline().strip() == b"ready"
        process.kill()
    train(experiment_with(DVCLive(), tmp_path), [221], resume=True)

    found = metrics_in(folder_of(tmp_path))["train/loss"]
    assert found == [(epoch, epoch / 10) for epoch in range(1, 222)]


def test_two_processes_write_their_runs_side_by_side(tmp_path):
    for process in [child(tmp_path, name, "go") for name in ("left", "right")]:
        assert process.wait(300) == 0

    for name in ("left", "right"):
        assert len(metrics_in(folder_of(tmp_path, name))["train/loss"]) == 20


def test_a_replay_writes_nothing_twice(tmp_path):
    run = train(experiment_with(DVCLive(), tmp_path), [1, 2])
    replay(run, DVCLive())
    for _ in range(2):
        replay(run, DVCLive(tmp_path / "copy"))

    for place in (tmp_path, tmp_path / "copy"):
        found = metrics_in(folder_of(place))
        assert found == {"train/loss": [(1, 0.1), (2, 0.2)]}


def test_a_folder_that_cannot_be_written_costs_the_run_nothing(tmp_path):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    experiment = experiment_with(DVCLive(blocked), tmp_path)
    with (
        pytest.warns(DeliveryWarning, match="missed"),
        pytest.warns(TrackerExceptionWarning, match="'dvclive'"),
    ):
        run = train(experiment, range(5))

    events = JournalReader(run.path).read()
    assert sum(isinstance(event, log_events.MetricEvent) for event in events) == 5


def test_a_folder_that_goes_bad_is_caught_up_when_it_is_good_again(tmp_path):
    experiment = experiment_with(DVCLive(), tmp_path)
    said = pytest.warns(TrackerExceptionWarning, match="'dvclive'")
    with said, experiment.create_run("run") as run:
        log_events.MetricEvent("mlp", "train", 1, {"loss": 0.1})
        assert run.flush(60)
        file = folder_of(tmp_path) / "plots/metrics/train/loss.tsv"
        kept = file.rename(tmp_path / "kept.tsv")
        file.mkdir()
        for epoch in range(2, 7):
            log_events.MetricEvent("mlp", "train", epoch, {"loss": epoch / 10})
        run.flush(0.5)
        file.rmdir()
        kept.rename(file)
        experiment.trackers.resume("dvclive")

    found = metrics_in(folder_of(tmp_path))["train/loss"]
    assert found == [(epoch, epoch / 10) for epoch in range(1, 7)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_writes_nothing(tmp_path):
    with experiment_with(DVCLive(), tmp_path).create_run("run") as run:
        log_events.MetricEvent("mlp", "train", 1, {"loss": 0.1})
        run.flush(60)
        pid = os.fork()
        if pid == 0:
            import warnings

            warnings.simplefilter("ignore")
            log_events.MetricEvent("mlp", "train", 2, {"loss": 99.0})
            os._exit(0)
        os.waitpid(pid, 0)
        log_events.MetricEvent("mlp", "train", 3, {"loss": 0.3})

    assert metrics_in(folder_of(tmp_path))["train/loss"] == [(1, 0.1), (3, 0.3)]
