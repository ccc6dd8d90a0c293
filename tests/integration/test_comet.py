"""The archives that Comet uploads, as the tracker lets Comet write them."""

from __future__ import annotations

import csv
import json
import pathlib
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
from drytrack.trackers.comet import Comet

pytestmark = backend("comet_ml", noise=UNTIDY)

KEY = "s3cret-value-of-a-key"


@pytest.fixture(autouse=True)
def _stay_here(monkeypatch, tmp_path):
    monkeypatch.setenv("COMET_ERROR_TRACKING_ENABLE", "0")
    monkeypatch.setenv("COMET_DISABLE_AUTO_LOGGING", "1")
    monkeypatch.setenv("COMET_CONFIG", str(tmp_path / "no-such-config"))


def archives(tmp_path, run_id=None):
    """Return the messages of each archive of a run, the oldest archive first."""
    found = []
    for path in (tmp_path / "comet").glob("*.zip"):
        with zipfile.ZipFile(path) as opened:
            meta = json.loads(opened.read("experiment.json"))
            lines = opened.read("messages.json").splitlines()
            messages = [json.loads(line) for line in lines]
            for message in messages:
                file = message["payload"].get("file_path")
                if file:
                    message["data"] = opened.read(file)
            found.append((meta["start_time"], meta, messages))
    found.sort(key=lambda one: others_in(one[2])["drytrack.attempt"])
    return [
        (meta, messages)
        for _, meta, messages in found
        if run_id is None or others_in(messages)["Name"] == run_id
    ]


def others_in(messages):
    return {
        message["payload"]["key"]: message["payload"]["value"]
        for message in messages
        if message["type"] == "log_other"
    }


def params_in(messages):
    found = {}
    for message in messages:
        if message["type"] == "parameter_msg":
            param = message["payload"].get("param") or message["payload"]["params"]
            found[param["paramName"]] = param["paramValue"]
    return found


def points_in(tmp_path, name, run_id=None):
    """Return the (step, value) pairs of a metric in all archives, in order."""
    return [
        (message["payload"]["metric"]["step"], read_value(message))
        for _, messages in archives(tmp_path, run_id)
        for message in messages
        if message["type"] == "metric_msg"
        and message["payload"]["metric"]["metricName"] == name
    ]


def read_value(message):
    return float(message["payload"]["metric"]["metricValue"])


def uploads_in(messages):
    """Return type → name and metadata and content of the files."""
    found = {}
    for message in messages:
        if message["type"] == "file_upload":
            payload = message["payload"]
            about = payload["additional_params"]
            name = about.get("fileName") or about.get("figName")
            found[payload["upload_type"], name] = (
                payload["metadata"],
                message["data"],
                about,
            )
    return found


class TestComet(BackendCases):
    tracker_class = Comet

    def points(self, place, name, run_id="run", experiment="Vision"):
        return points_in(place, name, run_id)

    def test_a_resumed_run_repeats_nothing(self, tmp_path):
        super().test_a_resumed_run_repeats_nothing(tmp_path)
        metas = [meta for meta, _ in archives(tmp_path)]
        assert len(metas) == 2
        assert len({meta["offline_id"] for meta in metas}) == 1
        # The first to be uploaded creates the experiment, the other adds to it.
        assert {meta["resume_strategy"] for meta in metas} == {"get_or_create"}

    def test_a_replay_writes_nothing_twice(self, tmp_path):
        super().test_a_replay_writes_nothing_twice(tmp_path)
        for place in (tmp_path, tmp_path / "copy"):
            assert len(archives(place)) == 1

    def test_a_killed_run_has_every_value_once_after_a_resume(self, tmp_path):
        super().test_a_killed_run_has_every_value_once_after_a_resume(tmp_path)
        assert len(archives(tmp_path)) == 1

    def test_nothing_is_collected_beside_the_run(self, tmp_path):
        """Neither command line, environment, code nor output goes into the archive."""
        variables = {"SERVICE_TOKEN": KEY, "COMET_LOG_OTHER_TOKEN": KEY}
        said = ("print", f"--token={KEY}")
        assert self.child(tmp_path, "run", *said, variables=variables).wait(300) == 0

        ((_, messages),) = archives(tmp_path)
        assert {message["type"] for message in messages} == {
            "log_other",
            "metric_msg",
            "parameter_msg",
        }
        assert KEY not in json.dumps(messages)


def test_metrics_params_and_what_the_run_is_are_read_back(tmp_path):
    config = {"lr": 0.1, "net": {"widths": [8, 4]}, "api_key": KEY}
    experiment = experiment_with(
        Comet(), tmp_path, config, tags=["mlp"], description="A note."
    )

    with experiment.create_run("run"):
        log_events.MetricEvent("mlp", "train", 1, {"loss": 0.5})
        log_events.StepMetricEvent("train", 10, {"loss": 0.7})
        log_events.ParamsEvent({"lr": 0.2})
        log_events.SummaryEvent({"best": 0.9})

    ((meta, messages),) = archives(tmp_path)
    assert points_in(tmp_path, "train/loss") == [(1, 0.5)]
    assert points_in(tmp_path, "train/loss_step") == [(10, 0.7)]
    params = params_in(messages)
    assert (params["lr"], params["net/widths"]) == (0.2, [8, 4])
    assert params["api_key"] == "***"
    others = others_in(messages)
    assert others["summary/best"] == 0.9
    assert (others["Name"], others["status"]) == ("run", "completed")
    assert others["description"] == "A note."
    assert (meta["project_name"], meta["tags"]) == ("Vision", ["mlp"])


def test_media_and_files_are_read_back(weights, data, tmp_path):
    pixels = np.full((4, 4, 3), 7, dtype=np.uint8)

    with experiment_with(Comet(), tmp_path).create_run("run"):
        log_events.ImageEvent("train", "sample", 1, pixels, caption="grey")
        log_events.HistogramEvent("train", "weights", 2, [1, 2], [0.0, 0.5, 1.0])
        log_events.TextEvent("train", "note", 3, "done")
        log_events.TableEvent("train", "errors", 4, ["x", "y"], [[1, None], ["a", 2]])
        log_events.ArtifactEvent("net", weights, "model", {"version": "2"})
        log_events.ArtifactEvent("digits", data, "dataset", {"rows": 3})

    assert weights.read_bytes() == b"123"  # Comet moves files that it may clean
    assert (data / "below" / "a.txt").read_text() == "a"
    ((_, messages),) = archives(tmp_path)
    found = uploads_in(messages)
    about, image, where = found["visualization", "train/sample.png"]
    assert about["caption"] == "grey"
    assert where["step"] == 1
    assert image.startswith(b"\x89PNG")
    _, histogram, where = found["histogram3d", "train/weights"]
    assert [count for _, count in json.loads(histogram)["index_values"]] == [1, 2]
    assert where["step"] == 2
    about, text, _ = found["text-sample", "auto-generated-in-the-backend"]
    assert (about["name"], text) == ("train/note", b"done")
    _, table, _ = found["asset", "train/errors/4.csv"]
    rows = list(csv.reader(table.decode().splitlines()))
    assert rows == [["x", "y"], ["1", ""], ["a", "2"]]
    about, model, where = found["model-element", "weights.bin"]
    assert (about, model) == ({"version": "2"}, b"123")
    assert where["groupingName"] == "net"
    about, file, _ = found["asset", "dataset/digits/below/a.txt"]
    assert (about["rows"], file) == (3, b"a")


def test_a_name_that_is_too_long_is_cut_and_known(tmp_path):
    long = "x" * 150
    with experiment_with(Comet(), tmp_path).create_run("run"):
        log_events.MetricEvent("mlp", "train", 1, {long: 0.5})

    cut = Comet.rule.adapt(f"train/{long}")
    assert len(cut) == 100
    assert points_in(tmp_path, cut) == [(1, 0.5)]
    assert Comet.rule.restore(cut) == f"train/{long}"


def test_the_error_of_a_failed_run_is_kept(tmp_path):
    train_and_fail(experiment_with(Comet(), tmp_path))

    ((_, messages),) = archives(tmp_path)
    others = others_in(messages)
    assert others["status"] == "failed"
    assert (others["error.type"], others["error.message"]) == ("ValueError", "no data")


def test_a_users_own_experiment_is_left_alone(tmp_path):
    import comet_ml

    own = comet_ml.OfflineExperiment(
        offline_directory=str(tmp_path / "own"),
        log_code=False,
        log_env_details=False,
        log_git_metadata=False,
        parse_args=False,
        auto_output_logging=False,
        display_summary_level=0,
    )
    try:
        train(experiment_with(Comet(), tmp_path), [1, 2])
        assert own.alive
        assert comet_ml.get_global_experiment() is own
    finally:
        own.end()
    assert points_in(tmp_path, "train/loss") == [(1, 0.1), (2, 0.2)]


def test_a_server_that_is_away_costs_the_run_nothing(
    nobodys_address, tmp_path, monkeypatch
):
    monkeypatch.setenv("COMET_URL_OVERRIDE", f"http://{nobodys_address}/clientlib/")
    monkeypatch.setenv("COMET_GET_OR_ADD_EXPERIMENT_RETRY_TOTAL", "0")
    monkeypatch.setenv("COMET_HTTP_SESSION_RETRY_TOTAL", "0")
    tracker = Comet(api_key="k" * 25, online=True)
    with pytest.warns((TrackerExceptionWarning, DeliveryWarning)):
        run = train(experiment_with(tracker, tmp_path), [1, 2])

    assert count_metrics(run.path) == 2
    monkeypatch.delenv("COMET_URL_OVERRIDE")
    replay(run, Comet(online=False))
    assert points_in(tmp_path, "train/loss") == [(1, 0.1), (2, 0.2)]


def test_what_comet_lost_in_mid_run_is_in_the_next_archive(tmp_path):
    tracker = Comet()
    experiment = experiment_with(tracker, tmp_path)
    with (
        pytest.warns(DeliveryWarning, match="missed"),
        pytest.warns(TrackerExceptionWarning, match="not written"),
        experiment.create_run("run") as run,
    ):
        log_events.MetricEvent("mlp", "train", 1, {"loss": 0.1})
        assert run.flush(60)
        watching = experiment.trackers.named_trackers["comet"]
        kept = watching.native.tmpdir
        pathlib.Path(kept).rename(tmp_path / "away")
        log_events.MetricEvent("mlp", "train", 2, {"loss": 0.2})

    train(experiment_with(Comet(), tmp_path), [3], resume=True)

    assert points_in(tmp_path, "train/loss") == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_a_key_that_is_refused_costs_the_run_nothing(
    refusing_server, tmp_path, monkeypatch
):
    monkeypatch.setenv("COMET_URL_OVERRIDE", f"http://{refusing_server}/clientlib/")
    monkeypatch.setenv("COMET_API_KEY", KEY)
    with pytest.warns((TrackerExceptionWarning, DeliveryWarning)):
        run = train(experiment_with(Comet(), tmp_path), [1, 2])

    assert count_metrics(run.path) == 2
    recorded = b"".join(p.read_bytes() for p in run.path.rglob("*") if p.is_file())
    assert KEY.encode() not in recorded
