"""The offline sessions that ClearML imports, as the tracker lets it write them."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from backend_cases import (
    UNTIDY,
    BackendCases,
    backend,
    count_metrics,
    experiment_with,
    train,
    train_and_fail,
)

from drytrack.core import log_events
from drytrack.core.exceptions import DeliveryWarning, TrackerExceptionWarning
from drytrack.replay import replay
from drytrack.trackers.clearml import ClearML

pytestmark = backend("clearml", noise=UNTIDY)

THREAD_DIED = "pytest.PytestUnhandledThreadExceptionWarning"
SECRET = "s3cret-value-of-a-key"


@pytest.fixture(autouse=True)
def _stay_here(monkeypatch, tmp_path):
    monkeypatch.setenv("CLEARML_CONFIG_FILE", str(tmp_path / "no-such-file"))


class Session:
    """What is in the zip file of a session."""

    def __init__(self, path):
        with zipfile.ZipFile(path) as opened:
            self.files = {name: opened.read(name) for name in opened.namelist()}
        self.task = json.loads(self.files["task.json"])
        self.events = self._lines("metrics.jsonl")
        self.log = "\n".join(event["msg"] for event in self._lines("log.jsonl"))

    def _lines(self, name):
        lines = self.files.get(name, b"").splitlines()
        return [event for line in lines for event in json.loads(line)]

    def params(self, section):
        found = self.task.get("hyperparams", {}).get(section, {})
        return {name: param["value"] for name, param in found.items()}

    def points(self, name):
        """Return the (step, value) pairs of a metric, in order."""
        return [
            (event["iter"], event["value"])
            for event in self.events
            if event["type"] == "training_stats_scalar" and event["variant"] == name
        ]

    def plot(self, name):
        (event,) = [e for e in self.events if e.get("variant") == name]
        return json.loads(event["plot_str"])["data"][0]

    def file(self, name):
        """Return a file that an event, or an artifact, tells of."""
        urls = {
            **{e["variant"]: e["url"] for e in self.events if "url" in e},
            **{a["key"]: a["uri"] for a in self.task["execution"]["artifacts"]},
        }
        return self.files[urls[name].partition("/" + self.task["id"] + "/")[2]]


def sessions(tmp_path, run_id="run"):
    """Return the sessions of a run, by attempt, the oldest first."""
    paths = (tmp_path / "clearml" / "offline").glob("*.zip")
    return sorted(
        (session for session in map(Session, paths) if session.task["name"] == run_id),
        key=lambda session: int(session.params("drytrack")["attempt"]),
    )


def points_in(tmp_path, name, run_id="run"):
    return [
        point
        for session in sessions(tmp_path, run_id)
        for point in session.points(name)
    ]


class TestClearML(BackendCases):
    tracker_class = ClearML

    def points(self, place, name, run_id="run", experiment="Vision"):
        return points_in(place, name, run_id)

    def test_nan_and_infinity_are_values(self, tmp_path):
        """ClearML would make a zero of them: they go to the log."""
        with experiment_with(ClearML(), tmp_path).create_run("run"):
            for epoch, value in enumerate((math.nan, math.inf, -math.inf, 1.0)):
                log_events.MetricEvent("mlp", "train", epoch, {"loss": value})

        (session,) = sessions(tmp_path)
        assert session.points("train/loss") == [(3, 1.0)]
        for epoch, value in enumerate(("nan", "inf", "-inf")):
            assert f"train/loss is {value} at epoch {epoch}" in session.log

    def test_a_resumed_run_repeats_nothing(self, tmp_path):
        super().test_a_resumed_run_repeats_nothing(tmp_path)
        found = sessions(tmp_path)
        attempts = [session.params("drytrack")["attempt"] for session in found]
        assert attempts == ["1", "2"]
        assert len({session.params("drytrack")["uuid"] for session in found}) == 1

    def test_a_replay_writes_nothing_twice(self, tmp_path):
        super().test_a_replay_writes_nothing_twice(tmp_path)
        for place in (tmp_path, tmp_path / "copy"):
            assert len(sessions(place)) == 1

    def test_a_killed_run_has_every_value_once_after_a_resume(self, tmp_path):
        super().test_a_killed_run_has_every_value_once_after_a_resume(tmp_path)
        assert len(sessions(tmp_path)) == 1

    def test_a_folder_that_cannot_be_written_costs_the_run_nothing(self, tmp_path):
        super().test_a_folder_that_cannot_be_written_costs_the_run_nothing(tmp_path)
        train(experiment_with(ClearML(), tmp_path), [1], "next")
        self.check_losses(tmp_path, [1], "next")

    def test_nothing_is_collected_beside_the_run(self, tmp_path):
        """Neither command line, environment, code nor output goes into a session."""
        said = ("print", f"--token={SECRET}")
        process = self.child(
            tmp_path, "run", *said, variables={"SERVICE_TOKEN": SECRET}
        )
        assert process.wait(300) == 0

        (session,) = sessions(tmp_path)
        assert "script" not in session.task
        for content in session.files.values():
            assert SECRET.encode() not in content


def test_metrics_params_and_what_the_run_is_are_read_back(tmp_path):
    config = {"lr": 0.1, "net": {"widths": [8, 4]}, "api_key": SECRET}
    experiment = experiment_with(
        ClearML(), tmp_path, config, tags=["mlp"], description="A note."
    )

    with experiment.create_run("run") as run:
        log_events.MetricEvent("mlp", "train", 1, {"loss": 0.5})
        log_events.StepMetricEvent("train", 10, {"loss": 0.7})
        log_events.ParamsEvent({"lr": 0.2})
        log_events.SummaryEvent({"best": 0.9, "why": "early"})

    (session,) = sessions(tmp_path)
    assert session.points("train/loss") == [(1, 0.5)]
    assert session.points("train/loss_step") == [(10, 0.7)]
    assert {"loss", "loss_step"} <= {e["metric"] for e in session.events}
    assert session.params("General") == {
        "lr": "0.2",
        "net/widths": "[8, 4]",
        "api_key": "***",
    }
    assert session.points("best")[-1][1] == 0.9
    assert session.params("Summary") == {"why": "early"}
    about = session.params("drytrack")
    assert (about["run_id"], about["status"]) == (run.id, "completed")
    assert session.task["project_name"] == "Vision"
    assert session.task["tags"] == ["mlp"]
    assert session.task["comment"] == "A note."


def test_media_and_files_are_read_back(weights, data, tmp_path):
    pixels = np.full((4, 4, 3), 7, dtype=np.uint8)

    with experiment_with(ClearML(), tmp_path).create_run("run"):
        log_events.ImageEvent("train", "sample", 1, pixels, caption="grey")
        log_events.HistogramEvent("train", "weights", 2, [1, 2], [0.0, 1.0, 3.0])
        log_events.TextEvent("train", "note", 3, "done")
        log_events.TableEvent("train", "errors", 4, ["x", "y"], [[1, None], ["a", 2]])
        log_events.ArtifactEvent("net", weights, "model", {"version": "2"})
        log_events.ArtifactEvent("net", data, "dataset")

    (session,) = sessions(tmp_path)
    assert session.file("train/sample").startswith(b"\x89PNG")
    assert "train/sample at step 1: grey" in session.log
    bars = session.plot("train/weights")
    assert (bars["x"], bars["width"], bars["y"]) == ([0.5, 2.0], [1, 2], [1, 2])
    assert session.file("train/note") == b"done"
    table = session.plot("train/errors")
    assert table["header"]["values"] == ["x", "y"]
    assert table["cells"]["values"] == [[1, "a"], [None, 2]]
    assert session.file("model/net") == b"123"
    with zipfile.ZipFile(io.BytesIO(session.file("dataset/net"))) as opened:
        assert opened.read("below/a.txt") == b"a"
    (model,) = [
        artifact
        for artifact in session.task["execution"]["artifacts"]
        if artifact["key"] == "model/net"
    ]
    assert ["version", "2"] in model["display_data"]


def test_names_that_would_be_other_paths_are_adapted(tmp_path):
    with experiment_with(ClearML(), tmp_path).create_run("run"):
        log_events.TextEvent("..", "../up", 1, "here")

    (session,) = sessions(tmp_path)
    (name,) = [e["variant"] for e in session.events if "url" in e]
    assert ClearML.rule.restore(name) == "../../up"
    assert session.file(name) == b"here"


def test_the_error_of_a_failed_run_is_kept(tmp_path):
    train_and_fail(experiment_with(ClearML(), tmp_path))

    (session,) = sessions(tmp_path)
    assert session.params("drytrack")["status"] == "failed"
    assert session.params("error")["message"] == "no data"
    assert session.params("error")["type"] == "ValueError"


def test_a_task_of_the_script_is_left_alone(tmp_path, monkeypatch):
    from clearml import Task

    monkeypatch.setenv("CLEARML_CACHE_DIR", str(tmp_path / "own"))
    monkeypatch.setattr(Task, "_report_subprocess_enabled", False)
    Task.set_offline(True)
    own = Task.init(
        "Own",
        "own",
        reuse_last_task_id=False,
        auto_connect_arg_parser=False,
        auto_connect_frameworks={"detect_repository": False, "matplotlib": False},
        auto_connect_streams=False,
        auto_resource_monitoring=False,
    )
    try:
        with (
            pytest.warns(DeliveryWarning, match="missed"),
            pytest.warns(TrackerExceptionWarning, match="one task in a process"),
        ):
            run = train(experiment_with(ClearML(), tmp_path), [1, 2])
        assert Task.current_task() is own
    finally:
        own.close()
    replay(run, ClearML())
    assert points_in(tmp_path, "train/loss") == [(1, 0.1), (2, 0.2)]


@pytest.fixture(params=["refusing_server", "nobodys_address"])
def bad_server(request):
    """A server that knows no key, and one that is not there."""
    return f"http://{request.getfixturevalue(request.param)}"


SERVER = """
import sys, warnings
from drytrack import Experiment
from drytrack.core import log_events
from drytrack.trackers.clearml import ClearML

experiment = Experiment(None, name="Vision", par_dir=sys.argv[1])
experiment.trackers.subscribe(ClearML())
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    with experiment.create_run("run"):
        log_events.MetricEvent("mlp", "train", 1, {"loss": 0.1})
print("said", [warning.category.__name__ for warning in said])
"""


def test_a_bad_server_costs_the_run_nothing(bad_server, tmp_path):
    """In a process of its own, for ClearML keeps what it knows of servers."""
    variables = {
        **{f"CLEARML_{kind}_HOST": bad_server for kind in ("API", "WEB", "FILES")},
        "CLEARML_API_ACCESS_KEY": "key",
        "CLEARML_API_SECRET_KEY": SECRET,
        "DRYTRACK_INIT_MODE": "none",
    }
    done = subprocess.run(
        [sys.executable, "-c", SERVER, str(tmp_path)],
        env={**os.environ, **variables},
        timeout=100,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )

    assert "TrackerExceptionWarning" in done.stdout
    run = tmp_path / ".drytrack" / "Vision" / "run"
    assert count_metrics(run) == 1
    recorded = b"".join(p.read_bytes() for p in run.rglob("*") if p.is_file())
    assert SECRET.encode() not in recorded
    replay(run, ClearML())
    assert points_in(tmp_path, "train/loss") == [(1, 0.1)]


@pytest.mark.filterwarnings(f"ignore::{THREAD_DIED}")  # ClearML's own, which writes
@pytest.mark.parametrize("is_back", [True, False], ids=["for a while", "for good"])
def test_what_clearml_lost_in_mid_run_is_in_the_next_session(is_back, tmp_path):
    tracker = ClearML()
    experiment = experiment_with(tracker, tmp_path)
    folder, away = tmp_path / "clearml" / "offline", tmp_path / "away"
    with (
        pytest.warns(DeliveryWarning, match="missed"),
        pytest.warns(TrackerExceptionWarning, match="not written all"),
        experiment.create_run("run") as run,
    ):
        log_events.MetricEvent("mlp", "train", 1, {"loss": 0.1})
        assert run.flush(60)
        tracker.native.flush(wait_for_uploads=True)
        folder.rename(away)
        folder.write_text("a file where a folder should be")
        log_events.MetricEvent("mlp", "train", 2, {"loss": 0.2})
        assert run.flush(60)
        tracker.native.flush(wait_for_uploads=True)
        if is_back:
            folder.unlink()
            away.rename(folder)
        log_events.MetricEvent("mlp", "train", 3, {"loss": 0.3})
    if not is_back:
        folder.unlink()

    train(experiment_with(ClearML(), tmp_path), [4], resume=True)

    points = [(epoch, epoch / 10) for epoch in range(1, 5)]
    assert points_in(tmp_path, "train/loss") == points
