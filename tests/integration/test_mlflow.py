"""MLflow's own client, database and server on what the tracker logs."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest

from drytrack import Experiment
from drytrack.core import log_events
from drytrack.core.exceptions import DeliveryWarning, TrackerExceptionWarning
from drytrack.core.journal import JournalReader
from drytrack.replay import replay
from drytrack.testing import TrackerContract
from drytrack.trackers.base import Series
from drytrack.trackers.mlflow import MLflow

pytestmark = [
    pytest.mark.backend,
    pytest.mark.timeout(600),  # it starts processes, on a machine that may be busy
    pytest.mark.skipif(
        importlib.util.find_spec("mlflow") is None, reason="needs mlflow"
    ),
    # Of MLflow's own dependencies.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def _no_server_of_the_users(monkeypatch):
    for name in ("TRACKING_URI", "EXPERIMENT_NAME", "EXPERIMENT_ID"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)
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
    return sorted((point.step, point.value) for point in history)


def artifacts(client, run, folder=None):
    found = []
    for entry in client.list_artifacts(run.info.run_id, folder):
        found += artifacts(client, run, entry.path) if entry.is_dir else [entry.path]
    return sorted(found)


def content(client, run, path):
    return pathlib.Path(client.download_artifacts(run.info.run_id, path)).read_bytes()


def experiment_with(tracker, tmp_path, config=None, name="Vision", **options):
    experiment = Experiment(config, name=name, par_dir=tmp_path, **options)
    experiment.trackers.remove_all()
    experiment.trackers.subscribe(tracker)
    return experiment


def train(experiment, epochs, run_id="run", **options):
    with experiment.create_run(run_id, **options) as run:
        for epoch in epochs:
            log_events.MetricEvent("mlp", "train", epoch, {"loss": epoch / 10})
    return run


class TestMLflow(TrackerContract):
    def make_tracker(self, tmp_path):
        return MLflow(tmp_path)

    def read_back(self, tracker, start, model_name):
        client = client_of(tracker.par_dir)
        run = run_named(client, start.run_id, start.exp_name)
        loaded: dict[str, dict[str, Series]] = {}
        for key in run.data.metrics:
            *model, source, metric = tracker.rule.restore(key).split("/")
            if metric.endswith("_step") or (model or ["model"]) != [model_name]:
                continue
            history = client.get_metric_history(run.info.run_id, key)
            history.sort(key=lambda point: point.timestamp)  # the newest one counts
            newest = {point.step: point.value for point in history}
            # The database has no infinity: MLflow stores the largest number.
            values = [
                math.copysign(math.inf, v) if abs(v) >= sys.float_info.max else v
                for _, v in sorted(newest.items())
            ]
            loaded.setdefault(source, {})[metric] = Series(sorted(newest), values)
        return loaded


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


def test_a_model_is_one_of_the_runs_models(tmp_path):
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"\x00\x01")
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
    with (
        pytest.raises(ZeroDivisionError),
        experiment_with(MLflow(), tmp_path).create_run("run"),
    ):
        1 / 0  # noqa: B018

    client = client_of(tmp_path)
    run = run_named(client)
    assert run.info.status == "FAILED"
    assert run.data.tags["error.type"] == "ZeroDivisionError"
    assert b"1 / 0" in content(client, run, "traceback.txt")


CHILD = """
import sys
from drytrack import Experiment
from drytrack.core import log_events
from drytrack.trackers.mlflow import MLflow

experiment = Experiment(None, name="Vision", par_dir=sys.argv[1])
experiment.trackers.subscribe(MLflow())
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


def test_a_killed_run_goes_on_in_the_same_hosted_run(tmp_path):
    process = child(
        tmp_path, "run", "wait", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout.readline().strip() == b"ready"
        process.kill()
    train(experiment_with(MLflow(), tmp_path), [221], resume=True)

    client = client_of(tmp_path)
    found = points(client, run_named(client), "train/loss")
    assert found == [(epoch, epoch / 10) for epoch in range(1, 222)]


def test_two_processes_log_at_once(tmp_path):
    for process in [child(tmp_path, name, "go") for name in ("left", "right")]:
        assert process.wait(300) == 0

    client = client_of(tmp_path)
    for name in ("left", "right"):
        assert len(points(client, run_named(client, name), "train/loss")) == 20


def test_a_replay_logs_nothing_twice(tmp_path):
    run = train(experiment_with(MLflow(), tmp_path), [1, 2])
    replay(run, MLflow())
    for _ in range(2):
        replay(run, MLflow(tmp_path / "copy"))

    for place in (tmp_path, tmp_path / "copy"):
        client = client_of(place)
        stored = run_named(client)
        assert points(client, stored, "train/loss") == [(1, 0.1), (2, 0.2)]
        assert stored.info.status == "FINISHED"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_logs_nothing(tmp_path):
    with experiment_with(MLflow(), tmp_path).create_run("run") as run:
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

    client = client_of(tmp_path)
    assert points(client, run_named(client), "train/loss") == [(1, 0.1), (3, 0.3)]


def test_a_folder_that_cannot_be_written_costs_the_run_nothing(tmp_path):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    experiment = experiment_with(MLflow(blocked), tmp_path)
    with (
        pytest.warns(DeliveryWarning, match="missed"),
        pytest.warns(TrackerExceptionWarning, match="'mlflow'"),
    ):
        run = train(experiment, range(5))

    assert count_metrics(run) == 5


def count_metrics(run):
    events = JournalReader(run.path).read()
    return sum(isinstance(event, log_events.MetricEvent) for event in events)


# -- a server ----------------------------------------------------------------------


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


class Server:
    """A real ``mlflow server`` that can be killed and started again."""

    def __init__(self, folder, port):
        self.uri = f"http://127.0.0.1:{port}"
        self._command = [
            *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--backend-store-uri", f"sqlite:///{(folder / 'server.db').as_posix()}"),
            *("--artifacts-destination", (folder / "artifacts").as_uri()),
        ]
        self._process = None

    def start(self):
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
                return
            time.sleep(0.2)
        raise AssertionError("the server does not answer")

    def kill(self):
        os.killpg(self._process.pid, 9)  # it starts processes of its own
        self._process.wait()


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(folder, free_port())
    server.start()
    yield server
    server.kill()


@pytest.mark.skipif(os.name == "nt", reason="needs process groups")
def test_a_server_that_dies_and_comes_back_has_everything(tmp_path, server):
    longest = 0.0
    tracker = MLflow(tracking_uri=server.uri)
    experiment = experiment_with(tracker, tmp_path, {"lr": 0.1})
    told = pytest.warns(TrackerExceptionWarning)
    with told, experiment.create_run("run") as run:
        for epoch in range(1, 301):
            if epoch == 100:
                assert run.flush(60)
                server.kill()
            began = time.perf_counter()
            log_events.MetricEvent("mlp", "train", epoch, {"loss": epoch / 10})
            longest = max(longest, time.perf_counter() - began)
            time.sleep(0.01)
        server.start()
        experiment.trackers.resume("mlflow")
        assert run.flush(300)

    client = client_of(server.uri)
    stored = run_named(client)
    found = points(client, stored, "train/loss")
    assert found == [(epoch, epoch / 10) for epoch in range(1, 301)]
    assert stored.info.status == "FINISHED"
    assert artifacts(client, stored) == ["params.json"]
    assert tracker.url.startswith(f"{server.uri}/#/experiments/")
    assert longest < 20  # it never waited for a time-out


def test_a_server_that_is_not_there_costs_the_run_nothing(tmp_path):
    uri = f"http://127.0.0.1:{free_port()}"
    experiment = experiment_with(MLflow(tracking_uri=uri), tmp_path)
    with (
        pytest.warns(DeliveryWarning, match="missed"),
        pytest.warns(TrackerExceptionWarning, match="'mlflow'"),
    ):
        run = train(experiment, range(5))

    assert count_metrics(run) == 5


def test_the_url_shows_no_password():
    tracker = MLflow()
    tracker._uri = "https://me:secret@tracking.example:8443/base"
    tracker._run_id, tracker._experiment_id = "r1", "7"

    assert tracker.url == ("https://tracking.example:8443/base/#/experiments/7/runs/r1")


def test_the_database_is_served_until_the_run_ends(tmp_path):
    tracker = MLflow()
    with experiment_with(tracker, tmp_path).create_run("run"):
        assert tracker.wait_until_open()
        url = tracker.launch_dashboard(free_port())
        with urllib.request.urlopen(f"{url}health", timeout=30) as answer:
            assert answer.read() == b"OK"

    with pytest.raises(OSError, match=r"refused|reset"):
        urllib.request.urlopen(f"{url}health", timeout=5)
