"""MLflow's own client, database and server on what the tracker logs."""

from __future__ import annotations

import contextlib
import json
import math
import pathlib
import sys
import time
import urllib.request

import numpy as np
import pytest
from backend_cases import (
    PORT,
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
from drytrack.trackers._local_server import serve
from drytrack.trackers.mlflow import MLflow

pytestmark = [
    *backend(
        "mlflow",
        noise=(*UNTIDY, "FutureWarning"),
    ),
    pytest.mark.timeout(600),  # it starts processes, on a machine that may be busy
]


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch):
    # A server that is down is found out soon, and asked again by drytrack.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")


def client_of(place):
    from mlflow import MlflowClient

    if isinstance(place, pathlib.Path):
        place = f"sqlite:///{(place / 'mlflow' / 'mlflow.db').as_posix()}"
    return MlflowClient(tracking_uri=place)


def run_named(client, run_id="run", name="Vision"):
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs(
        [experiment.experiment_id], f"attributes.run_name = '{run_id}'"
    )
    assert len(runs) == 1, f"{len(runs)} runs are named {run_id!r}"
    return runs[0]


def points(client, run, key):
    """Return the steps and values of a metric, once for every time it is stored."""
    history = client.get_metric_history(run.info.run_id, key)
    history.sort(key=lambda point: (point.step, point.timestamp))  # the newest last
    return [(point.step, point.value) for point in history]


def artifacts(client, run, folder=None):
    found = []
    for entry in client.list_artifacts(run.info.run_id, folder):
        found += artifacts(client, run, entry.path) if entry.is_dir else [entry.path]
    return sorted(found)


def content(client, run, path):
    return pathlib.Path(client.download_artifacts(run.info.run_id, path)).read_bytes()


class TestMLflow(BackendCases):
    tracker_class = MLflow

    def points(self, place, name, run_id="run", experiment="Vision"):
        client = client_of(place)
        run = run_named(client, run_id, experiment)
        # The database has no infinity: MLflow stores the largest number.
        return [
            (step, math.copysign(math.inf, v) if abs(v) >= sys.float_info.max else v)
            for step, v in points(client, run, MLflow.rule.adapt(name))
        ]

    def test_a_replay_writes_nothing_twice(self, tmp_path):
        super().test_a_replay_writes_nothing_twice(tmp_path)
        for place in (tmp_path, tmp_path / "copy"):
            assert run_named(client_of(place)).info.status == "FINISHED"


def test_everything_is_read_back_by_mlflow(tmp_path):
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    data = tmp_path / "data.csv"
    data.write_text("a,b\n")
    config = {"lr": 0.1, "net": {"width": 8}, "api_key": "sk-secret-1234567890"}
    tracker = MLflow(tags={"team": "vision"})
    experiment = experiment_with(
        tracker, tmp_path, config, tags=["mlp"], description="A first try."
    )
    with experiment.create_run("run"):
        log_events.MetricEvent("mlp", "train", 1, {"loss": 0.5, "100% right": 0.25})
        log_events.HistogramEvent("train", "weights", 3, [1, 2, 1], [0, 1, 2, 3])
        log_events.ImageEvent("train", "sample", 4, pixels, "a caption")
        log_events.TextEvent("train", "note", 5, "hello")
        log_events.TableEvent("train", "matrix", 6, ["a", "b"], [[1, "x"]])
        log_events.ArtifactEvent("data", data, "dataset", {"sha256": "abc"})
        log_events.SummaryEvent({"best": 0.75, "why": "early"})

    client = client_of(tmp_path)
    run = run_named(client)
    assert run.info.status == "FINISHED"
    assert run.data.params["net/width"] == "8"
    assert run.data.metrics["train/loss"] == 0.5
    assert run.data.metrics["train/100_x25_ right"] == 0.25
    assert tracker.rule.restore("train/100_x25_ right") == "train/100% right"
    assert run.data.metrics["summary/best"] == 0.75
    tags = run.data.tags
    assert tags["team"] == "vision"
    assert tags["label.mlp"] == "true"
    assert tags["mlflow.note.content"] == "A first try."
    assert tags["mlflow.source.type"] == "LOCAL"
    assert tags["summary/why"] == "early"
    assert artifacts(client, run) == [
        "dataset/data/data.csv",
        "dataset/data/data.csv.metadata.json",
        "histograms/train/weights/3.json",
        "images/train/sample/4.png",
        "images/train/sample/4.txt",
        "params.json",
        "tables/train/matrix/6.json",
        "texts/train/note/5.txt",
    ]
    assert content(client, run, "dataset/data/data.csv") == data.read_bytes()
    table = json.loads(content(client, run, "tables/train/matrix/6.json"))
    assert table == {"columns": ["a", "b"], "data": [[1, "x"]]}
    stored = (tmp_path / "mlflow").rglob("*")
    assert not any(b"sk-secret" in p.read_bytes() for p in stored if p.is_file())


def test_a_model_is_one_of_the_runs_models(weights, tmp_path):
    tracker = MLflow()
    with experiment_with(tracker, tmp_path).create_run("run") as run:
        log_events.ArtifactEvent("mlp/best", weights, "model", {"epoch": 3})
        run.flush(60)
    replay(run, MLflow())

    client = client_of(tmp_path)
    stored = run_named(client)
    assert "model/mlp/best/weights.bin" in artifacts(client, stored)
    if hasattr(client, "search_logged_models"):
        models = client.search_logged_models([stored.info.experiment_id])
        assert [m.source_run_id for m in models] == [stored.info.run_id]
        assert models[0].tags["drytrack.name"] == "mlp/best"
        assert models[0].params == {"epoch": "3"}
        assert str(models[0].status) == "READY"


def test_parameters_beyond_the_limits_lose_nothing(tmp_path):
    config = {f"p{number}": number for number in range(350)}
    config["long"] = "x" * 8_000
    config["n" * 400] = 1
    train(experiment_with(MLflow(), tmp_path, config), [1])

    client = client_of(tmp_path)
    run = run_named(client)
    assert len(run.data.params) == 352
    assert run.data.params["long"].endswith("… (8000 characters)")
    assert json.loads(content(client, run, "params.json")) == config


def test_a_parameter_that_changes_is_logged_beside_the_old_one(tmp_path):
    train(experiment_with(MLflow(), tmp_path, {"lr": 0.1, "width": 8}), [1])
    changed = experiment_with(MLflow(), tmp_path, {"lr": 0.2, "width": 8})
    train(changed, [2], resume=True)

    client = client_of(tmp_path)
    run = run_named(client)
    assert run.data.params == {"lr": "0.1", "lr.attempt_2": "0.2", "width": "8"}
    assert points(client, run, "train/loss") == [(1, 0.1), (2, 0.2)]
    assert json.loads(content(client, run, "params_2.json"))["lr"] == 0.2


@pytest.mark.parametrize(
    "name", ["/root", "a//b", "a/../b", ".", "..", "end/", "ä ö", "a:b", "%", "x" * 400]
)
def test_names_that_mlflow_refuses_are_mapped_and_mapped_back(tmp_path, name):
    from mlflow.utils.validation import _validate_metric_name

    adapted = MLflow.rule.adapt(name)

    _validate_metric_name(adapted)
    assert MLflow.rule.restore(adapted) == name


def test_more_metrics_than_a_request_may_hold(tmp_path):
    metrics = {f"m{number}": float(number) for number in range(2500)}
    with experiment_with(MLflow(), tmp_path).create_run("run"):
        log_events.MetricEvent("mlp", "train", 1, metrics)

    found = run_named(client_of(tmp_path)).data.metrics
    assert found == {f"train/{name}": value for name, value in metrics.items()}


def test_nested_runs_are_nested_there(tmp_path):
    experiment = experiment_with(MLflow(), tmp_path)
    with experiment.create_run("outer") as outer:
        train(experiment, [1], "inner", parent=outer)

    client = client_of(tmp_path)
    inner, parent = run_named(client, "inner"), run_named(client, "outer")
    assert inner.data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_a_failed_run_says_why(tmp_path):
    train_and_fail(experiment_with(MLflow(), tmp_path))

    client = client_of(tmp_path)
    run = run_named(client)
    assert run.info.status == "FAILED"
    assert run.data.tags["error.type"] == "ValueError"
    assert b'raise ValueError("no data")' in content(client, run, "traceback.txt")


# -- a server ----------------------------------------------------------------------


@contextlib.contextmanager
def serving(folder, port):
    """Give the address of a real ``mlflow server``, which is killed at the end."""

    def arguments(port):
        return [
            *("server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)),
            *("--backend-store-uri", f"sqlite:///{(folder / 'server.db').as_posix()}"),
            *("--artifacts-destination", (folder / "artifacts").as_uri()),
        ]

    with serve("mlflow", arguments, port) as url:
        yield url.rstrip("/")


def test_a_server_that_dies_and_comes_back_has_everything(tmp_path):
    longest = 0.0
    folder = tmp_path / "server"
    folder.mkdir()
    with contextlib.ExitStack() as server:
        uri = server.enter_context(serving(folder, PORT))
        tracker = MLflow(tracking_uri=uri)
        experiment = experiment_with(tracker, tmp_path, {"lr": 0.1})
        told = pytest.warns(TrackerExceptionWarning)
        with told, experiment.create_run("run") as run:
            for epoch in range(1, 301):
                if epoch == 100:
                    assert run.flush(60)
                    server.close()
                began = time.perf_counter()
                log_events.MetricEvent("mlp", "train", epoch, {"loss": epoch / 10})
                longest = max(longest, time.perf_counter() - began)
                time.sleep(0.01)
            port = int(uri.rpartition(":")[2])
            assert server.enter_context(serving(folder, port)) == uri
            experiment.trackers.resume("mlflow")
            assert run.flush(300)

        client = client_of(uri)
        stored = run_named(client)
        found = points(client, stored, "train/loss")
        assert found == [(epoch, epoch / 10) for epoch in range(1, 301)]
        assert stored.info.status == "FINISHED"
        assert artifacts(client, stored) == ["params.json"]
    assert tracker.url.startswith(f"{uri}/#/experiments/")
    assert longest < 20  # it never waited for a time-out


def test_a_server_that_is_away_costs_the_run_nothing(nobodys_address, tmp_path):
    uri = f"http://{nobodys_address}"
    experiment = experiment_with(MLflow(tracking_uri=uri), tmp_path)
    with (
        pytest.warns(DeliveryWarning, match="missed"),
        pytest.warns(TrackerExceptionWarning, match="'mlflow'"),
    ):
        run = train(experiment, range(5))

    assert count_metrics(run.path) == 5


def test_the_url_shows_no_password():
    tracker = MLflow()
    tracker._uri = "https://me:secret@tracking.example:8443/base"
    tracker._run_id, tracker._experiment_id = "r1", "7"

    assert tracker.url == ("https://tracking.example:8443/base/#/experiments/7/runs/r1")


def test_the_database_is_served_until_the_run_ends(tmp_path):
    tracker = MLflow()
    with experiment_with(tracker, tmp_path).create_run("run"):
        assert tracker.wait_until_open()
        url = tracker.launch_dashboard(PORT)
        with urllib.request.urlopen(f"{url}health", timeout=30) as answer:
            assert answer.read() == b"OK"

    with pytest.raises(OSError, match=r"refused|reset"):
        urllib.request.urlopen(f"{url}health", timeout=5)
