"""TensorBoard's own readers on what the tracker writes."""

from __future__ import annotations

import json
import pathlib
import socket
import urllib.request

import numpy as np
import pytest
from backend_cases import BackendCases, backend, experiment_with, train
from matplotlib.figure import Figure

from drytrack.core import log_events
from drytrack.core.exceptions import BackendError
from drytrack.trackers.tensorboard import TensorBoard

pytestmark = [
    *backend("tensorboard", "tensorboardX", noise=("DeprecationWarning",)),
    pytest.mark.timeout(600),  # it starts processes, on a machine that may be busy
]


def load(folder: pathlib.Path):
    from tensorboard.backend.event_processing.event_accumulator import (
        EventAccumulator,
    )

    sizes = dict.fromkeys(("scalars", "images", "histograms", "tensors"), 0)
    accumulator = EventAccumulator(str(folder), size_guidance=sizes)
    accumulator.Reload()
    return accumulator


def folder_of(tmp_path, run_id="run", name="Vision"):
    return tmp_path / "tensorboard" / name / run_id


class TestTensorBoard(BackendCases):
    tracker_class = TensorBoard
    rel_tolerance = 1e-7  # values are 32-bit floats

    def points(self, place, name, run_id="run", experiment="Vision"):
        read = load(folder_of(place, run_id, experiment))
        if name not in read.Tags()["scalars"]:
            return []
        return [(event.step, event.value) for event in read.Scalars(name)]


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
    figure = Figure()
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


def test_secrets_are_not_written(tmp_path):
    config = {"api_key": "sk-secret-1234567890"}
    train(experiment_with(TensorBoard(), tmp_path, config), [1])

    files = [p for p in (tmp_path / "tensorboard").rglob("*") if p.is_file()]
    assert files
    assert not any(b"sk-secret" in file.read_bytes() for file in files)


def test_the_native_writer_shares_the_folder(tmp_path):
    tracker = TensorBoard()
    with experiment_with(tracker, tmp_path).create_run("run"):
        assert tracker.wait_until_open()
        tracker.native.add_scalar("own", 1.5, 7)

    own = load(folder_of(tmp_path)).Scalars("own")
    assert [(event.step, event.value) for event in own] == [(7, 1.5)]


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


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the kernel's client
@pytest.mark.needs("ipykernel", "nbclient", "nbformat")
def test_a_notebook_shows_the_dashboard_below_the_cell(tmp_path, monkeypatch):
    import nbclient
    import nbformat

    monkeypatch.setenv("DRYTRACK_INIT_MODE", "none")
    cell = nbformat.v4.new_code_cell(NOTEBOOK.format(str(tmp_path)))
    book = nbformat.v4.new_notebook(cells=[cell])

    nbclient.NotebookClient(book, timeout=300).execute()

    shown = [out.data["text/html"] for out in cell.outputs if "data" in out]
    assert len(shown) == 1
    assert 'src="http://127.0.0.1:' in shown[0]
