"""DVCLive's own readers on what the tracker writes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from backend_cases import BackendCases, backend, experiment_with, publish_losses, train

from drytrack.core import log_events
from drytrack.core.exceptions import TrackerExceptionWarning
from drytrack.trackers.dvclive import DVCLive

pytestmark = [
    *backend(
        "dvclive",
        noise=(
            "DeprecationWarning",
            "FutureWarning",
            "SyntaxWarning",
            "ResourceWarning",
        ),
    ),
    pytest.mark.timeout(600),  # it starts processes, on a machine that may be busy
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


def folder_of(tmp_path, run_id="run", name="Vision"):
    return tmp_path / "dvclive" / name / run_id


class TestDVCLive(BackendCases):
    tracker_class = DVCLive

    def points(self, place, name, run_id="run", experiment="Vision"):
        found = metrics_in(folder_of(place, run_id, experiment))
        return found.get(DVCLive.rule.adapt(name), [])


def test_everything_is_read_back_by_dvclive(tmp_path):
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    config = {"lr": 0.1, "net": {"widths": [8, 4]}, "api_key": "sk-secret-1234567890"}
    with experiment_with(DVCLive(), tmp_path, config).create_run("run"):
        log_events.MetricEvent("mlp", "train", 1, {"loss": 0.5, "100% right": 0.25})
        log_events.HistogramEvent("train", "weights", 3, [1, 2, 1], [0, 1, 2, 3])
        log_events.ImageEvent("train", "sample", 4, pixels)
        log_events.SummaryEvent({"best": 0.75, "why": "early", "worst": math.nan})

    folder = folder_of(tmp_path)
    found = metrics_in(folder)
    assert found == {"train/loss": [(1, 0.5)], "train/100_x25_ right": [(1, 0.25)]}
    assert DVCLive.rule.restore("train/100_x25_ right") == "train/100% right"
    latest = latest_in(folder)
    assert latest["train"]["loss"] == 0.5
    assert latest["best"] == 0.75
    assert latest["why"] == "early"
    assert latest["worst"] == "nan"
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


def test_a_folder_that_goes_bad_is_caught_up_when_it_is_good_again(tmp_path):
    experiment = experiment_with(DVCLive(), tmp_path)
    said = pytest.warns(TrackerExceptionWarning, match="'dvclive'")
    with said, experiment.create_run("run") as run:
        publish_losses([1])
        assert run.flush(60)
        file = folder_of(tmp_path) / "plots/metrics/train/loss.tsv"
        kept = file.rename(tmp_path / "kept.tsv")
        file.mkdir()
        publish_losses(range(2, 7))
        run.flush(0.5)
        file.rmdir()
        kept.rename(file)
        experiment.trackers.resume("dvclive")

    found = metrics_in(folder_of(tmp_path))["train/loss"]
    assert found == [(epoch, epoch / 10) for epoch in range(1, 7)]
