"""TensorBoard's own readers on what the tracker writes."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import pathlib
import socket
import subprocess
import sys
import urllib.request

import numpy as np
import pytest

from drytrack import Experiment
from drytrack.core import log_events
from drytrack.core.exceptions import (
    BackendError,
    DeliveryWarning,
    TrackerExceptionWarning,
)
from drytrack.core.journal import JournalReader
from drytrack.replay import replay
from drytrack.testing import TrackerContract
from drytrack.trackers.base import Series
from drytrack.trackers.tensorboard import TensorBoard

pytestmark = [
    pytest.mark.backend,
    pytest.mark.timeout(600),  # it starts processes, on a machine that may be busy
    pytest.mark.skipif(
        importlib.util.find_spec("tensorboardX") is None, reason="needs tensorboardX"
    ),
    # TensorBoard itself still asks NumPy and protobuf in old ways.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def load(folder: pathlib.Path):
    from tensorboard.backend.event_processing.event_accumulator import (
        EventAccumulator,
    )

    sizes = dict.fromkeys(("scalars", "images", "histograms", "tensors"), 0)
    accumulator = EventAccumulator(str(folder), size_guidance=sizes)
    accumulator.Reload()
    return accumulator


def points(folder: pathlib.Path, tag: str):
    """Return the steps and values of a tag, once for every time it is stored."""
    return [(event.step, event.value) for event in load(folder).Scalars(tag)]


def experiment_with(tracker, tmp_path, config=None, name="Vision"):
    experiment = Experiment(config, name=name, par_dir=tmp_path)
    experiment.trackers.remove_all()
    experiment.trackers.subscribe(tracker)
    return experiment


def folder_of(tmp_path, run_id="run", name="Vision"):
    return tmp_path / "tensorboard" / name / run_id


class TestTensorBoard(TrackerContract):
    rel_tolerance = 1e-7  # values are 32-bit floats

    def make_tracker(self, tmp_path):
        return TensorBoard(tmp_path)

    def read_back(self, tracker, start, model_name):
        accumulator = load(tracker.find_run_dir(start))
        loaded: dict[str, dict[str, Series]] = {}
        for tag in accumulator.Tags()["scalars"]:
            *model, source, metric = tag.split("/")
            if metric.endswith("_step") or (model or ["model"]) != [model_name]:
                continue
            newest = {e.step: e.value for e in accumulator.Scalars(tag)}
            series = Series(list(newest), list(newest.values()))
            loaded.setdefault(source, {})[metric] = series
        return loaded


def test_everything_is_read_back_by_tensorboard(tmp_path):
    png_like = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    tracker = TensorBoard()
    experiment = experiment_with(tracker, tmp_path, {"lr": 0.1, "net": {"width": 8}})
    with experiment.create_run("run") as run:
        run.register_model(object(), "mlp")
        log_events.MetricEvent("mlp", "train", 1, {"loss": 0.5, "100% right": 0.25})
        log_events.HistogramEvent("train", "weights", 3, [1, 2, 1], [0, 1, 2, 3])
        log_events.ImageEvent("train", "sample", 4, png_like, "a caption")
        log_events.TextEvent("train", "note", 5, "**bold**")
        log_events.TableEvent("train", "matrix", 6, ["a", "b"], [[1, "x|y"]])
        log_events.SummaryEvent({"best": 0.75, "why": "early"})

    read = load(folder_of(tmp_path))
    assert read.Scalars("train/loss")[0].value == 0.5
    assert read.Scalars("train/100% right")[0].value == 0.25
    histogram = read.Histograms("train/weights")[0]
    assert histogram.step == 3
    assert list(histogram.histogram_value.bucket_limit) == [0, 1, 2, 3]
    assert list(histogram.histogram_value.bucket) == [0, 1, 2, 1]
    assert histogram.histogram_value.num == 4
    image = read.Images("train/sample")[0]
    assert (image.width, image.height) == (6, 4)
    from io import BytesIO

    from PIL import Image

    with Image.open(BytesIO(image.encoded_image_string)) as opened:
        assert np.array_equal(np.asarray(opened), png_like)
    texts = {
        tag: read.Tensors(tag)[0].tensor_proto.string_val[0].decode()
        for tag in read.Tags()["tensors"]
        if read.SummaryMetadata(tag).plugin_data.plugin_name == "text"
    }
    assert texts["train/note"] == "**bold**"
    assert texts["train/matrix"].splitlines()[2] == "| 1 | x\\|y |"
    assert '"net/width": 8' in texts["config"]
    assert read.Scalars("summary/best")[0].value == 0.75
    assert "| why | early |" in texts["summary"]


def test_a_figure_becomes_an_image(tmp_path):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    figure.add_subplot().plot([1, 2])
    with experiment_with(TensorBoard(), tmp_path).create_run("run"):
        log_events.FigureEvent("train", "curve", 1, figure)

    assert load(folder_of(tmp_path)).Images("train/curve")[0].width > 100


def test_the_hyperparameters_stand_beside_the_metrics(tmp_path):
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    for number, rate in enumerate((0.1, 0.2)):
        experiment = experiment_with(
            TensorBoard(), tmp_path, {"lr": rate, "deep": True}
        )
        with experiment.create_run(f"run{number}"):
            log_events.ParamsEvent({"layers": [1, 2]})
            log_events.MetricEvent("mlp", "train", 1, {"loss": rate})

    read = load(folder_of(tmp_path, "run1"))
    content = read.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    shown = plugin_data_pb2.HParamsPluginData.FromString(content)
    found = shown.session_start_info.hparams
    assert found["lr"].number_value == 0.2
    assert found["deep"].bool_value is True
    assert found["layers"].string_value == "[1, 2]"
    assert metadata.SESSION_END_INFO_TAG in read.summary_metadata
    assert "train/loss" in read.Tags()["scalars"]


def test_train_and_validation_share_a_chart(tmp_path):
    from tensorboard.plugins.custom_scalar import layout_pb2

    with experiment_with(TensorBoard(), tmp_path).create_run("run"):
        for source in ("train", "val"):
            log_events.MetricEvent("mlp", source, 1, {"loss": 0.5})
        log_events.MetricEvent("mlp", "train", 1, {"alone": 0.5})

    newest = load(folder_of(tmp_path)).Tensors("custom_scalars__config__")[-1]
    layout = layout_pb2.Layout.FromString(newest.tensor_proto.string_val[0])
    charts = {c.title: list(c.multiline.tag) for c in layout.category[0].chart}
    assert charts == {"loss": ["^train/loss$", "^val/loss$"]}


def test_kinds_of_one_name_do_not_hide_each_other(tmp_path):
    with experiment_with(TensorBoard(), tmp_path).create_run("run"):
        log_events.TextEvent("train", "sample", 1, "hello")
        log_events.ImageEvent("train", "sample", 1, np.zeros((2, 2), np.uint8))

    read = load(folder_of(tmp_path))
    assert read.Tags()["images"] == ["train/sample (image)"]
    assert "train/sample" in read.Tags()["tensors"]


def test_nan_and_infinity_are_kept(tmp_path):
    with experiment_with(TensorBoard(), tmp_path).create_run("run"):
        for epoch, loss in enumerate((math.nan, math.inf, -math.inf)):
            log_events.MetricEvent("mlp", "train", epoch, {"loss": loss})

    values = [value for _, value in points(folder_of(tmp_path), "train/loss")]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf]


CHILD = """
import sys
from drytrack import Experiment
from drytrack.core import log_events
from drytrack.trackers.tensorboard import TensorBoard

experiment = Experiment({"api_key": "sk-secret-1234567890"}, name="Vision",
                        par_dir=sys.argv[1])
experiment.trackers.subscribe(TensorBoard())
with experiment.create_run(sys.argv[2]) as run:
    for epoch in range(int(sys.argv[3])):
        log_events.MetricEvent("mlp", "train", epoch, {"loss": epoch / 10})
    if len(sys.argv) > 4:
        assert run.flush(30)
        for epoch in range(int(sys.argv[3]), int(sys.argv[3]) + 200):
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
        tmp_path, "run", 50, "wait", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        process.stdout.readline()
        process.kill()
    with experiment_with(TensorBoard(), tmp_path).create_run("run", resume=True):
        log_events.MetricEvent("mlp", "train", 250, {"loss": 25.0})

    steps = [step for step, _ in points(folder_of(tmp_path), "train/loss")]
    assert steps == list(range(251))


def test_a_replay_writes_nothing_twice(tmp_path):
    tracker = TensorBoard()
    with experiment_with(tracker, tmp_path).create_run("run") as run:
        for epoch in (1, 2):
            log_events.MetricEvent("mlp", "train", epoch, {"loss": epoch})

    replay(run, TensorBoard())
    assert points(folder_of(tmp_path), "train/loss") == [(1, 1.0), (2, 2.0)]

    replay(run, TensorBoard(tmp_path / "copy"))
    copy = folder_of(tmp_path / "copy")
    assert points(copy, "train/loss") == [(1, 1.0), (2, 2.0)]


def test_two_processes_write_their_runs_side_by_side(tmp_path):
    for process in [child(tmp_path, name, 20) for name in ("left", "right")]:
        assert process.wait(300) == 0

    for name in ("left", "right"):
        assert len(points(folder_of(tmp_path, name), "train/loss")) == 20


def test_secrets_are_not_written(tmp_path):
    assert child(tmp_path, "run", 1).wait(300) == 0

    files = [p for p in (tmp_path / "tensorboard").rglob("*") if p.is_file()]
    assert files
    assert not any(b"sk-secret" in file.read_bytes() for file in files)


def train(experiment, epochs):
    with experiment.create_run("run") as run:
        for epoch in epochs:
            log_events.MetricEvent("mlp", "train", epoch, {"loss": 0.5})
    return run


def test_a_folder_that_cannot_be_written_costs_the_run_nothing(tmp_path):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    experiment = experiment_with(TensorBoard(blocked), tmp_path)
    with (
        pytest.warns(DeliveryWarning, match="missed"),
        pytest.warns(TrackerExceptionWarning, match="'tensorboard'"),
    ):
        run = train(experiment, range(5))

    events = list(JournalReader(run.path).read())
    assert sum(isinstance(e, log_events.MetricEvent) for e in events) == 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_leaves_the_files_alone(tmp_path):
    with experiment_with(TensorBoard(), tmp_path).create_run("run") as run:
        log_events.MetricEvent("mlp", "train", 1, {"loss": 0.5})
        run.flush()
        pid = os.fork()
        if pid == 0:
            import warnings

            warnings.simplefilter("ignore")
            log_events.MetricEvent("mlp", "train", 2, {"loss": 99.0})
            os._exit(0)
        os.waitpid(pid, 0)
        log_events.MetricEvent("mlp", "train", 3, {"loss": 0.25})

    assert points(folder_of(tmp_path), "train/loss") == [(1, 0.5), (3, 0.25)]


def test_the_native_writer_shares_the_folder(tmp_path):
    tracker = TensorBoard()
    with experiment_with(tracker, tmp_path).create_run("run"):
        assert tracker.wait_until_open()
        tracker.native.add_scalar("own", 1.5, 7)

    assert points(folder_of(tmp_path), "own") == [(7, 1.5)]


def test_the_dashboard_is_served_here_alone_and_ends_with_the_run(tmp_path):
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    tracker = TensorBoard()
    with taken, experiment_with(tracker, tmp_path).create_run("run") as run:
        log_events.MetricEvent("mlp", "train", 1, {"loss": 0.5})
        run.flush()
        url = tracker.launch_dashboard(port)
        assert url.startswith("http://127.0.0.1:")
        assert int(url.rstrip("/").rpartition(":")[2]) > port
        assert tracker.url == url
        with urllib.request.urlopen(f"{url}data/runs", timeout=30) as answer:
            assert json.load(answer) == ["run"]

    with pytest.raises(OSError, match=r"refused|reset"):
        urllib.request.urlopen(url, timeout=5)


def test_a_server_that_does_not_start_says_how_to_look(tmp_path):
    from drytrack.trackers._local_server import serve

    with (
        pytest.raises(BackendError, match="python -m this_is_no_module"),
        serve("this_is_no_module", lambda port: [], 6100),
    ):
        pass


NOTEBOOK = """
from drytrack import Experiment
from drytrack.trackers.tensorboard import TensorBoard

experiment = Experiment(None, name="Vision", par_dir={!r})
experiment.trackers.subscribe(TensorBoard())
with experiment.create_run("run"):
    TensorBoard.get_current().launch_dashboard()
"""


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_notebook_shows_the_dashboard_below_the_cell(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("DRYTRACK_INIT_MODE", "none")
    cell = nbformat.v4.new_code_cell(NOTEBOOK.format(str(tmp_path)))
    book = nbformat.v4.new_notebook(cells=[cell])

    nbclient.NotebookClient(book, timeout=300).execute()

    shown = [out.data["text/html"] for out in cell.outputs if "data" in out]
    assert len(shown) == 1
    assert 'src="http://127.0.0.1:' in shown[0]
