"""Trackio and SwanLab, driven as W&B is, read by their own readers."""

from __future__ import annotations

import contextvars
import math
import time
import warnings

import numpy as np
import pytest
from backend_cases import BackendCases, backend, experiment_with, train_and_fail

from drytrack.core import log_events
from drytrack.replay import replay
from drytrack.trackers.wandb import Wandb

pytestmark = [
    *backend(noise=("ResourceWarning", "DeprecationWarning")),
    pytest.mark.timeout(600),  # it starts processes, on a machine that may be busy
]

needs_trackio = pytest.mark.needs("trackio")
needs_swanlab = pytest.mark.needs("swanlab")


def publish_media():
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    log_events.ImageEvent("train", "sample", 1, pixels, caption="black")
    log_events.HistogramEvent("train", "weights", 2, [1, 2], [0.0, 0.5, 1.0])
    log_events.TableEvent("train", "errors", 3, ["x", "y"], [[1, "a"], [2, None]])
    log_events.TextEvent("train", "note", 4, "done")


# -- Trackio -------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="module")
def _trackio_home(tmp_path_factory):
    """Give Trackio a home, which it chooses when it is imported."""
    home = tmp_path_factory.mktemp("trackio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(home))
        yield home


def trackio_rows(project, run_id="run"):
    from trackio.sqlite_storage import SQLiteStorage

    return SQLiteStorage.get_logs(project, run_id)


def trackio_points(project, run_id="run"):
    found = {}
    for row in trackio_rows(project, run_id):
        for name, value in row.items():
            if isinstance(value, float):
                found.setdefault(name, {})[row["step"]] = value
    return found


def project_for(place):
    """Return a name that no other test has: Trackio keeps all of them in one home."""
    return f"{place.parent.name}-{place.name}"


def trackio(place):
    project = project_for(place)
    return Wandb(module="trackio", par_dir=place, project=project, auto_log_cpu=False)


@needs_trackio
class TestTrackio(BackendCases):
    # It writes to its home, wherever the run is.
    test_a_folder_that_cannot_be_written_costs_the_run_nothing = None

    def make_tracker(self, tmp_path):
        return trackio(tmp_path)

    make_untold = make_tracker

    def points(self, place, name, run_id="run", experiment="Vision"):
        return list(trackio_points(project_for(place), run_id).get(name, {}).items())


@needs_trackio
def test_trackio_gets_metrics_media_and_configuration(tmp_path):
    from trackio.sqlite_storage import SQLiteStorage

    project = project_for(tmp_path)
    tracker = trackio(tmp_path)
    config = {"lr": 0.1, "net": {"width": 8}, "api_key": "s3cret-value"}

    with experiment_with(tracker, tmp_path, config, tags=["mlp"]).create_run("run"):
        log_events.MetricEvent("mlp", "train", 1, {"loss": 0.5, "odd": math.nan})
        log_events.StepMetricEvent("train", 10, {"loss": 0.7})
        log_events.StepMetricEvent("run", 11, {"step": 0.2})
        publish_media()

    points = trackio_points(project)
    assert points["train/loss"] == {1: 0.5}
    assert points["train/loss_step"] == {10: 0.7}
    assert points["__step_value" if "__step_value" in points else "step_value"]
    assert math.isnan(points["train/odd"][1])
    media = {
        name: value
        for row in trackio_rows(project)
        for name, value in row.items()
        if isinstance(value, dict)
    }
    assert media["train/sample"]["caption"] == "black"
    assert media["train/weights"]["values"] == [1, 2]
    assert media["train/errors"]["_value"] == [{"x": 1, "y": "a"}, {"x": 2, "y": None}]
    assert media["train/note"]["_value"] == "done"
    kept = SQLiteStorage.get_run_config(project, "run")
    assert (kept["lr"], kept["net"], kept["tags"]) == (0.1, {"width": 8}, ["mlp"])
    assert "s3cret-value" not in str(kept)


@needs_trackio
def test_trackio_keeps_model_versions(weights, tmp_path):
    from trackio.sqlite_storage import SQLiteStorage

    project = project_for(tmp_path)  # as the experiment is called
    tracker = Wandb(module="trackio", auto_log_cpu=False)

    with experiment_with(tracker, tmp_path, name=project).create_run("run"):
        log_events.ArtifactEvent("net", weights, "model", {"version": "2"})

    kept = SQLiteStorage.get_artifacts(project)
    assert [(a["name"], a["type"], sorted(a["aliases"])) for a in kept] == [
        ("net", "model", ["2", "latest"])
    ]


# -- SwanLab -------------------------------------------------------------------------


def swanlab_records(tmp_path):
    """Return the records of all attempts, in order."""
    from swanlab.proto.swanlab.record.v1.record_pb2 import Record
    from swanlab.sdk.internal.core_python.store import DataStoreReader

    found = []
    for path in sorted((tmp_path / "swanlog").glob("run-*/*.swanlab")):
        if not path.stat().st_size:  # of a process that was killed
            continue
        reader = DataStoreReader()
        reader.open(path)
        while (data := reader.scan()) is not None:
            record = Record()
            record.ParseFromString(data)
            found.append(record)
        reader.close()
    return found


def swanlab_points(records, axis="epoch"):
    """Return name → step of the axis → value."""
    by_step = {}
    for record in records:
        if record.HasField("scalar"):
            row = by_step.setdefault(record.scalar.step, {})
            row[record.scalar.key] = record.scalar.value.number
    found = {}
    for row in by_step.values():
        if axis in row:
            for name, value in row.items():
                found.setdefault(name, {})[int(row[axis])] = value
    return found


def swanlab(tmp_path):
    return Wandb(module="swanlab", par_dir=tmp_path, mode="offline")


@needs_swanlab
class TestSwanLab(BackendCases):
    tracker_class = Wandb
    options = {"module": "swanlab", "mode": "offline"}

    def points(self, place, name, run_id="run", experiment="Vision"):
        mine = []
        started = None
        for record in swanlab_records(place):
            started = record.start.name if record.HasField("start") else started
            if started == run_id:
                mine.append(record)
        return list(swanlab_points(mine).get(name, {}).items())

    def test_overlapping_runs_are_kept_apart(self, tmp_path):
        """SwanLab watches one run at a time: the second is replayed later."""
        experiment = experiment_with(swanlab(tmp_path), tmp_path)
        contexts = [contextvars.copy_context() for _ in range(2)]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            runs = []
            for context, name in zip(contexts, ("left", "right"), strict=True):
                runs.append(context.run(experiment.create_run(name).start))
                context.run(runs[0].flush, 60)
            contexts[1].run(log_events.MetricEvent, "mlp", "train", 1, {"loss": 0.5})
            deadline = time.monotonic() + 300
            # What failed in the background is said at the next event.
            while not caught and time.monotonic() < deadline:
                time.sleep(0.1)
                contexts[1].run(log_events.TextEvent, "train", "wait", 1, "for it")
            for context, run in zip(contexts, runs, strict=True):
                context.run(run.stop)
        assert any("one at a time" in str(warning.message) for warning in caught)

        replay(runs[1].path, swanlab(tmp_path / "later"))

        assert self.points(tmp_path / "later", "train/loss", "right") == [(1, 0.5)]


@needs_swanlab
def test_swanlab_gets_metrics_media_and_configuration(tmp_path):
    config = {"lr": 0.1, "api_key": "s3cret-value"}

    experiment = experiment_with(swanlab(tmp_path), tmp_path, config, tags=["mlp"])
    with experiment.create_run("run"):
        log_events.MetricEvent("mlp", "train", 1, {"loss": 0.5, "odd": math.nan})
        log_events.StepMetricEvent("train", 10, {"loss": 0.7})
        publish_media()

    records = swanlab_records(tmp_path)
    points = swanlab_points(records)
    assert points["train/loss"] == {1: 0.5}
    assert math.isnan(points["train/odd"][1])
    assert swanlab_points(records, "step")["train/loss_step"] == {10: 0.7}
    axes = {r.column.column_key: r.column.x_axis for r in records}
    assert axes["train/loss"] == "epoch"
    assert axes["train/loss_step"] == "step"
    media = {r.media.key for r in records if r.HasField("media")}
    assert media == {f"train/{n}" for n in ("sample", "weights", "errors", "note")}
    start = next(r.start for r in records if r.HasField("start"))
    assert (start.project, start.name, list(start.tags)) == ("Vision", "run", ["mlp"])
    kept = next((tmp_path / "swanlog").glob("run-*/files/config.yaml")).read_text()
    assert "0.1" in kept
    assert "s3cret-value" not in kept


@needs_swanlab
def test_swanlab_is_told_how_the_run_ended(tmp_path):
    experiment = experiment_with(swanlab(tmp_path), tmp_path)

    train_and_fail(experiment)

    finish = next(r.finish for r in swanlab_records(tmp_path) if r.HasField("finish"))
    assert finish.error == "ValueError: no data"
