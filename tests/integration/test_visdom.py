"""Windows on a real Visdom server, read back through its own client."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent import futures

import numpy as np
import pytest
from backend_cases import PORT, backend, experiment_with

from drytrack.core import log_events
from drytrack.core.exceptions import (
    ConfigurationError,
    DeliveryWarning,
    TrackerExceptionWarning,
)
from drytrack.replay import replay
from drytrack.testing import TrackerContract
from drytrack.trackers import _local_server, _visdom_server
from drytrack.trackers._visdom_server import serve_visdom
from drytrack.trackers._visdom_windows import connect
from drytrack.trackers.visdom import VisdomPlotter

pytestmark = backend("visdom", noise=("DeprecationWarning",))

URL = "TEST_VISDOM_URL"
"""Where the server is; processes that tests start find it there as well."""

FAILED = "Tracker 'visdom' failed"


@pytest.fixture(scope="module", autouse=True)
def _server(tmp_path_factory):
    with serve_visdom(tmp_path_factory.mktemp("visdom"), PORT) as url:
        os.environ[URL] = url
        yield
        del os.environ[URL]


@contextlib.contextmanager
def running(tracker, tmp_path, name="Vision", run_id="run", **options):
    experiment = experiment_with(tracker, tmp_path, {}, name)
    with experiment.create_run(run_id, **options) as run:
        yield run


def publish(epoch, source="train", **metrics):
    log_events.MetricEvent("mlp", source, epoch, metrics)


def windows(env, url=None):
    client = connect(url or os.environ[URL], None, None)
    try:
        return json.loads(client.get_window_data(win=None, env=env))
    except ConnectionError:  # the answer where there is no such environment yet
        return {}


def root(url):
    return url.partition("env/")[0]


def curve(window, number=0):
    trace = window["content"]["data"][number]
    return dict(zip(trace["x"], trace["y"], strict=True))


def wait_for(condition, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def is_served(url):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(url, timeout=30).close()
    except OSError:
        return False
    return True


class TestVisdomPlotter(TrackerContract):
    def make_tracker(self, tmp_path):
        return VisdomPlotter(os.environ[URL], every_s=0.0)


def test_each_metric_is_a_window_with_a_curve_for_each_source(tmp_path):
    with running(VisdomPlotter(os.environ[URL]), tmp_path, name="Curves"):
        for epoch in range(1, 4):
            publish(epoch, loss=1 / epoch, accuracy=math.nan if epoch == 2 else 0.5)
            publish(epoch, source="validation", loss=2 / epoch)

    shown = windows("Curves_run")

    assert list(shown) == ["metrics/mlp/loss", "metrics/mlp/accuracy"]
    loss = shown["metrics/mlp/loss"]
    assert (loss["type"], loss["title"]) == ("plot", "loss · mlp")
    assert [trace["name"] for trace in loss["content"]["data"]] == [
        "train",
        "validation",
    ]
    assert curve(loss) == {1: 1.0, 2: 0.5, 3: 1 / 3}
    assert curve(loss, 1) == {1: 2.0, 2: 1.0, 3: 2 / 3}
    assert curve(shown["metrics/mlp/accuracy"]) == {1: 0.5, 2: None, 3: 0.5}


def test_windows_grow_while_the_run_goes_on(tmp_path):
    tracker = VisdomPlotter(os.environ[URL], every_s=0.0)
    with running(tracker, tmp_path, name="Growth"):
        lengths = []
        for epoch in (1, 2, 3):
            publish(epoch, loss=1 / epoch)
            window = wait_for(
                lambda epoch=epoch: (
                    (found := windows("Growth_run").get("metrics/mlp/loss"))
                    and len(curve(found)) == epoch
                    and found
                )
            )
            lengths.append(window["i"])
        assert tracker.url == f"{os.environ[URL]}env/Growth_run"
        assert lengths == [0, 0, 0]  # it stays in its place


def test_histograms_images_tables_and_figures_are_windows(tmp_path):
    from matplotlib.figure import Figure

    with running(VisdomPlotter(os.environ[URL]), tmp_path, name="Media"):
        log_events.HistogramEvent("trainer", "weights", 1, [1, 3], [0, 1, 2])
        pixels = np.zeros((4, 4, 3), np.uint8)
        log_events.ImageEvent("trainer", "sample", 1, pixels, caption="<b>")
        log_events.TableEvent("test", "recall", 1, ["digit"], [[7]])
        log_events.FigureEvent("test", "own", 1, Figure(figsize=(1, 1)))

    shown = windows("Media_run")

    kinds = {place: window["type"] for place, window in shown.items()}
    assert kinds == {
        "histogram/trainer/weights": "plot",
        "image/trainer/sample": "image",
        "table/test/recall": "plot",
        "figure/test/own": "image",
    }
    assert curve(shown["histogram/trainer/weights"]) == {0: 1, 1: 3, 2: 3}
    assert shown["image/trainer/sample"]["content"]["caption"] == "<b>"
    cells = shown["table/test/recall"]["content"]["data"][0]["cells"]["values"]
    assert cells == [["7"]]


def test_plot_returns_a_figure_for_each_metric(tmp_path):
    tracker = VisdomPlotter(os.environ[URL])
    with running(tracker, tmp_path, name="Plot"):
        publish(1, loss=4.0, accuracy=0.5)

    figures = tracker.plot(log_scale=True)

    assert list(figures) == ["loss", "accuracy"]
    assert [*figures["loss"].data[0].y] == [4.0]


def test_a_replayed_run_is_shown(tmp_path):
    with running(VisdomPlotter(os.environ[URL]), tmp_path, name="Again") as run:
        publish(1, loss=4.0)

    replay(run.path, [VisdomPlotter(os.environ[URL], env="replayed")])

    assert curve(windows("replayed")["metrics/mlp/loss"]) == {1: 4.0}


@pytest.mark.filterwarnings(f"ignore:{FAILED}")  # while there is no server
def test_a_server_that_dies_costs_nothing_and_catches_up(tmp_path):
    folder = tmp_path / "server"
    with contextlib.ExitStack() as server:
        url = server.enter_context(serve_visdom(folder, PORT + 10))
        port = int(url.rstrip("/").rpartition(":")[2])
        tracker = VisdomPlotter(url, every_s=0.0)
        with running(tracker, tmp_path):
            publish(1, loss=4.0)
            wait_for(lambda: windows("Vision_run", url))
            server.close()
            for epoch in (2, 3, 4, 5):
                publish(epoch, loss=4.0 / epoch)
            wait_for(lambda: tracker.native is None)
            assert server.enter_context(serve_visdom(folder, port)) == url
            wait_for(
                lambda: (
                    (found := windows("Vision_run", url))
                    and len(curve(found["metrics/mlp/loss"])) == 5
                )
            )


def test_without_a_server_the_run_ends_well(tmp_path):
    with serve_visdom(tmp_path / "server", PORT + 20) as url:
        pass

    with (
        pytest.warns(DeliveryWarning, match="--to visdom"),
        pytest.warns(TrackerExceptionWarning, match="does not answer"),
        running(VisdomPlotter(url), tmp_path) as run,
    ):
        publish(1, loss=4.0)

    assert run.status == "completed"


class TestStartedServer:
    def test_it_ends_with_the_run_and_keeps_the_windows(self, tmp_path):
        tracker = VisdomPlotter(start_server=True, port=PORT + 30)
        with running(tracker, tmp_path) as run:
            publish(1, loss=4.0)
            assert run.flush(60)
            url = root(wait_for(lambda: tracker.url))
            assert url.startswith("http://127.0.0.1:")
            assert is_served(url)

        assert not is_served(url)
        saved = json.loads((tmp_path / "visdom" / "Vision_run.json").read_text())
        assert curve(saved["jsons"]["metrics/mlp/loss"]) == {1: 4.0}

    def test_two_that_start_at_once_have_a_port_each(self, tmp_path):
        servers = [serve_visdom(tmp_path / str(n), PORT + 40) for n in range(2)]
        with futures.ThreadPoolExecutor() as pool, contextlib.ExitStack() as stack:
            urls = list(pool.map(lambda server: server.__enter__(), servers))
            for server in servers:
                stack.push(server.__exit__)
            assert len(set(urls)) == 2
            assert all(map(is_served, urls))

    @pytest.mark.filterwarnings(f"ignore:{FAILED}")  # while there is no server
    def test_it_is_started_anew_when_it_has_died(self, tmp_path, monkeypatch):
        started = []

        class Popen(subprocess.Popen):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                if _visdom_server.__name__ in args[0]:
                    started.append(self)

        monkeypatch.setattr(_local_server.subprocess, "Popen", Popen)
        tracker = VisdomPlotter(start_server=True, port=PORT + 50, every_s=0.0)
        with running(tracker, tmp_path):
            publish(1, loss=4.0, accuracy=0.5)
            wait_for(lambda: tracker.url and windows("Vision_run", root(tracker.url)))
            (first,) = started
            first.kill()
            first.wait()
            publish(2, loss=2.0)
            wait_for(lambda: len(started) == 2)
            wait_for(
                lambda: (
                    tracker.native is not None
                    and (found := windows("Vision_run", root(tracker.url)))
                    and len(curve(found["metrics/mlp/loss"])) == 2
                    and "metrics/mlp/accuracy" in found
                )
            )

    @pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is of POSIX")
    def test_it_ends_with_a_killed_process(self, tmp_path):
        script = (
            "import sys, time, drytrack\n"
            "from drytrack.trackers.visdom import VisdomPlotter\n"
            "drytrack.init_trackers('none')\n"
            "tracker = VisdomPlotter(start_server=True, port=int(sys.argv[1]))\n"
            "experiment = drytrack.Experiment({}, name='Vision', par_dir='.')\n"
            "experiment.trackers.subscribe(tracker)\n"
            "with experiment.create_run('run'):\n"
            "    while tracker.url is None:\n"
            "        time.sleep(0.1)\n"
            "    print(tracker.url, flush=True)\n"
            "    time.sleep(600)\n"
        )
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(PORT + 60)],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
        )
        with child:
            try:
                url = root(child.stdout.readline())
                assert is_served(url)
            finally:
                os.kill(child.pid, signal.SIGKILL)

        wait_for(lambda: not is_served(url))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"url": "localhost"}, "url is 'localhost'"),
        ({"url": "http://127.0.0.1:1", "start_server": True}, "one of the two"),
        ({"username": "me"}, "Pass both"),
        ({"theme": "blue"}, "no theme 'blue'"),
    ],
)
def test_an_option_that_cannot_be_is_refused(options, part):
    with pytest.raises(ConfigurationError, match=part):
        VisdomPlotter(**options)
