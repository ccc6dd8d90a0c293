"""Neptune's own reader on the files that the tracker writes."""

from __future__ import annotations

import base64
import json
import math
import threading
from pathlib import Path

import numpy as np
import pytest
from backend_cases import (
    UNTIDY,
    BackendCases,
    backend,
    experiment_with,
    train_and_fail,
)

from drytrack.core import log_events
from drytrack.core.exceptions import DeliveryWarning, TrackerExceptionWarning
from drytrack.trackers.neptune import Neptune

pytestmark = backend(
    "neptune",
    noise=(*UNTIDY, "UserWarning"),
)

SECRET = "s3cret-value-of-a-key"


class Container:
    """What Neptune would synchronise from a folder."""

    def __init__(self, folder):
        from neptune.core.components.queue.disk_queue import DiskQueue
        from neptune.internal.operation import Operation

        self.folder = folder
        queue = DiskQueue(
            data_path=folder,
            to_dict=lambda operation: operation.to_dict(),
            from_dict=Operation.from_dict,
            lock=threading.RLock(),
        )
        self.operations = []
        while element := queue.get():
            self.operations.append(element.obj)
        queue.close()

    def points(self, path):
        """Return the (step, value) pairs of a series, in order."""
        return [
            (value.step, value.value)
            for operation in self.operations
            if "/".join(operation.path) == path
            for value in getattr(operation, "values", [])
        ]

    def get(self, path):
        """Return what was assigned, or uploaded, last; None where nothing was."""
        found = [op for op in self.operations if "/".join(op.path) == path]
        if not found:
            return None
        operation = found[-1]
        if not hasattr(operation, "file_path"):
            return operation.value
        if operation.file_path:
            return Path(operation.file_path).read_bytes()
        return (self.folder / "upload_path" / operation.tmp_file_name).read_bytes()


def containers(tmp_path, run_id="run"):
    """Return the folders of a run, by attempt, the oldest first."""
    found = map(Container, (tmp_path / "neptune" / "offline").glob("run__*"))
    return sorted(
        (one for one in found if one.get("drytrack/run_id") == run_id),
        key=lambda one: one.get("drytrack/attempt"),
    )


def points_in(tmp_path, path, run_id="run"):
    found = containers(tmp_path, run_id)
    return [point for container in found for point in container.points(path)]


class TestNeptune(BackendCases):
    tracker_class = Neptune

    def points(self, place, name, run_id="run", experiment="Vision"):
        return points_in(place, name, run_id)

    def test_nan_and_infinity_are_values(self, tmp_path):
        """Neptune would skip them: they become lines."""
        with experiment_with(Neptune(), tmp_path).create_run("run"):
            for epoch, value in enumerate((math.nan, math.inf, -math.inf, 1.0)):
                log_events.MetricEvent("mlp", "train", epoch, {"loss": value})

        assert points_in(tmp_path, "train/loss") == [(3, 1.0)]
        assert points_in(tmp_path, "not_finite") == [
            (0, "train/loss is nan at epoch 0"),
            (1, "train/loss is inf at epoch 1"),
            (2, "train/loss is -inf at epoch 2"),
        ]

    def test_a_resumed_run_repeats_nothing(self, tmp_path):
        super().test_a_resumed_run_repeats_nothing(tmp_path)
        found = containers(tmp_path)
        assert [container.get("drytrack/attempt") for container in found] == [1, 2]
        assert len({container.get("drytrack/uuid") for container in found}) == 1

    def test_a_replay_writes_nothing_twice(self, tmp_path):
        super().test_a_replay_writes_nothing_twice(tmp_path)
        for place in (tmp_path, tmp_path / "copy"):
            assert len(containers(place)) == 1

    def test_nothing_is_collected_beside_the_run(self, tmp_path):
        """Neither command line, environment, code nor output goes into the files."""
        said = ("print", f"--token={SECRET}")
        process = self.child(
            tmp_path, "run", *said, variables={"SERVICE_TOKEN": SECRET}
        )
        assert process.wait(300) == 0

        files = [p for p in (tmp_path / "neptune").rglob("*") if p.is_file()]
        assert files
        assert not any(SECRET.encode() in file.read_bytes() for file in files)


def test_metrics_params_and_what_the_run_is_are_read_back(tmp_path):
    config = {"lr": 0.1, "net": {"widths": [8, 4]}, "none": None, "api_key": SECRET}
    experiment = experiment_with(
        Neptune(), tmp_path, config, tags=["mlp"], description="A note."
    )

    with experiment.create_run("run"):
        log_events.MetricEvent("mlp", "train", 1, {"loss": 0.5})
        log_events.StepMetricEvent("train", 10, {"loss": 0.7})
        log_events.ParamsEvent({"lr": 0.2})
        log_events.SummaryEvent({"best": 0.9, "worst": math.inf})

    (found,) = containers(tmp_path)
    assert found.points("train/loss") == [(1, 0.5)]
    assert found.points("train/loss_step") == [(10, 0.7)]
    assert found.get("parameters/lr") == 0.2
    assert found.get("parameters/net/widths") == "[8, 4]"
    assert found.get("parameters/none") == "None"
    assert found.get("parameters/api_key") == "***"
    assert found.get("summary/best") == 0.9
    assert found.get("summary/worst") == "inf"
    assert found.get("sys/name") == "run"
    assert found.get("sys/description") == "A note."
    assert found.get("drytrack/experiment") == "Vision"
    assert found.get("drytrack/status") == "completed"
    (tags,) = [op.values for op in found.operations if op.path == ["sys", "tags"]]
    assert list(tags) == ["mlp"]


def test_media_and_files_are_read_back(weights, data, tmp_path):
    pixels = np.full((4, 4, 3), 7, dtype=np.uint8)

    with experiment_with(Neptune(), tmp_path).create_run("run") as run:
        log_events.ImageEvent("train", "sample", 1, pixels, caption="grey")
        log_events.HistogramEvent("train", "weights", 2, [1, 2], [0.0, 1.0, 3.0])
        log_events.TextEvent("train", "note", 3, "done")
        log_events.TableEvent("train", "errors", 4, ["x", "y"], [[1, None], ["a", 2]])
        log_events.ArtifactEvent("net", weights, "model", {"version": "2"})
        log_events.ArtifactEvent("digits", data, "dataset")
        assert run.flush(60)
        weights.write_bytes(b"456")  # what is kept is a copy

    (found,) = containers(tmp_path)
    ((step, image),) = found.points("images/train/sample")
    assert step == 1
    assert image.description == "grey"
    assert base64.b64decode(image.data).startswith(b"\x89PNG")
    assert json.loads(found.get("histograms/train/weights/2")) == {
        "counts": [1, 2],
        "bin_edges": [0, 1, 3],
    }
    assert found.points("texts/train/note") == [(3, "done")]
    assert found.get("tables/train/errors/4") == b"x,y\r\n1,\r\na,2\r\n"
    assert found.get("artifacts/model/net/files") == b"123"
    assert found.get("artifacts/model/net/metadata/version") == "2"
    path = ["artifacts", "dataset", "digits", "files"]
    (upload,) = [op for op in found.operations if op.path == path]
    (folder,) = upload.file_globs
    assert (Path(folder) / "below" / "a.txt").read_text() == "a"


def test_names_that_exclude_each_other_in_a_tree_are_both_kept(tmp_path):
    with experiment_with(Neptune(), tmp_path).create_run("run"):
        for epoch in (1, 2):
            log_events.MetricEvent("mlp", "a", epoch, {"b": 1.0, "b/c": 2.0})
            log_events.MetricEvent("mlp", "d", epoch, {"e/f": 3.0, "e": 4.0})

    (found,) = containers(tmp_path)
    values = {
        Neptune.rule.restore("/".join(operation.path)): operation.values[0].value
        for operation in found.operations
        if type(operation).__name__ == "LogFloats"
    }
    assert values == {"a/b": 1.0, "a/b/c": 2.0, "d/e/f": 3.0, "d/e": 4.0}


def test_the_error_of_a_failed_run_is_kept(tmp_path):
    train_and_fail(experiment_with(Neptune(), tmp_path))

    (found,) = containers(tmp_path)
    assert found.get("drytrack/status") == "failed"
    assert found.get("error/type") == "ValueError"
    assert found.get("error/message") == "no data"


def test_a_file_that_is_missing_costs_nothing_else(tmp_path):
    with (
        pytest.warns(DeliveryWarning, match="missed"),
        pytest.warns(TrackerExceptionWarning, match="no-such-file"),
        experiment_with(Neptune(), tmp_path).create_run("run"),
    ):
        log_events.MetricEvent("mlp", "train", 1, {"loss": 0.1})
        log_events.ArtifactEvent("net", tmp_path / "no-such-file", "model")
        log_events.MetricEvent("mlp", "train", 2, {"loss": 0.2})

    assert points_in(tmp_path, "train/loss") == [(1, 0.1), (2, 0.2)]
