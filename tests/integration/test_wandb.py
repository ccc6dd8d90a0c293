"""The file that W&B writes offline, decoded with W&B's own messages."""

from __future__ import annotations

import json
import struct
import time
import warnings

import numpy as np
import pytest
from backend_cases import (
    BackendCases,
    backend,
    count_metrics,
    experiment_with,
    train,
    train_and_fail,
)

from drytrack.core import log_events
from drytrack.core.exceptions import (
    BackendError,
    DeliveryWarning,
    TrackerExceptionWarning,
)
from drytrack.core.journal import JournalReader
from drytrack.replay import replay
from drytrack.trackers.wandb import Wandb

pytestmark = [
    *backend("wandb", noise=("ResourceWarning", "DeprecationWarning")),
    pytest.mark.timeout(600),  # it starts processes, on a machine that may be busy
]

BLOCK = 32 * 1024


@pytest.fixture(autouse=True)
def _tell_nobody(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb_config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "wandb_cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb_data"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


def records_in(path):
    """Return the messages of a file, once the process that writes it has ended it.

    `finish` returns before the last of them are written.
    """
    deadline = time.monotonic() + 60
    while True:
        found = list(scan(path))
        if any(r.HasField("exit") for r in found) or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def scan(path):
    """Yield the messages of a ``.wandb`` file, which is a LevelDB log of them."""
    from wandb.proto import wandb_internal_pb2

    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        if kind == 0:
            break
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def files_of(tmp_path, run_id):
    """Return the files of a run, one for each attempt, in order."""
    found = []
    for path in (tmp_path / "wandb").glob("*run-*/run-*.wandb"):
        for record in records_in(path):
            if record.HasField("run"):
                if record.run.display_name == run_id:
                    start = record.run.start_time
                    found.append((start.seconds + start.nanos / 1e9, path))
                break
    return [path for _, path in sorted(found)]


def read(tmp_path, run_id="run"):
    return [r for path in files_of(tmp_path, run_id) for r in records_in(path)]


def key_of(item):
    return item.key or ".".join(item.nested_key)


def rows_in(records):
    return [
        {key_of(item): json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]


def points_in(records, name, axis):
    return [(row[axis], row[name]) for row in rows_in(records) if name in row]


def config_in(records):
    found = {}
    for record in records:
        config = record.run.config if record.HasField("run") else record.config
        for item in config.update:
            found[key_of(item)] = json.loads(item.value_json)
    return found


def summary_in(records):
    found = {}
    for record in records:
        for item in record.summary.update:
            found[key_of(item)] = json.loads(item.value_json)
    return found


def offline(tmp_path, **options):
    return Wandb(par_dir=tmp_path, mode="offline", **options)


class TestWandb(BackendCases):
    tracker_class = Wandb
    options = {"mode": "offline"}

    def points(self, place, name, run_id="run", experiment="Vision"):
        name = Wandb.rule.adapt(name)
        rows = {}
        for row in rows_in(read(place, run_id)):
            rows.setdefault(row["_step"], row)  # W&B leaves out a step that it has
        return [(row["epoch"], row[name]) for row in rows.values() if name in row]

    def test_a_resumed_run_repeats_nothing(self, tmp_path):
        super().test_a_resumed_run_repeats_nothing(tmp_path)
        files = files_of(tmp_path, "run")
        ids = {r.run.run_id for path in files for r in records_in(path) if r.run.run_id}
        steps = [row["_step"] for row in rows_in(read(tmp_path))]
        assert len(files) == 2
        assert len(ids) == 1
        assert steps == sorted(set(steps))


def test_config_tags_and_metrics_are_in_the_file(tmp_path):
    experiment = experiment_with(
        offline(tmp_path, project="Mine", group="sweep", job_type="fit"),
        tmp_path,
        {"lr": 0.1, "net": {"width": 8}, "api_key": "s3cret-value"},
        tags=["mlp"],
        description="A note.",
    )

    with experiment.create_run("run") as run:
        log_events.MetricEvent("mlp", "train", 1, {"loss": 0.5})
        log_events.StepMetricEvent("train", 10, {"loss": 0.7}, {"split": "val"})
        run.log({"reward": 1.5}, step=3)
        log_events.ParamsEvent({"lr": 0.2})

    records = read(tmp_path)
    started = next(r.run for r in records if r.HasField("run"))
    assert (started.project, started.run_group) == ("Mine", "sweep")
    assert started.job_type == "fit"
    assert list(started.tags) == ["mlp"]
    assert started.notes == "A note."
    config = config_in(records)
    assert config["lr"] == 0.2
    assert config["net"] == {"width": 8}
    assert points_in(records, "train/loss", "epoch") == [(1, 0.5)]
    assert points_in(records, "train/val/loss_step", "step") == [(10, 0.7)]
    assert points_in(records, "reward", "step") == [(3, 1.5)]
    raw = files_of(tmp_path, "run")[0].read_bytes()
    assert b"s3cret-value" not in raw


def test_each_metric_has_its_own_axis(tmp_path):
    experiment = experiment_with(offline(tmp_path), tmp_path)

    with experiment.create_run("run"):
        log_events.MetricEvent("mlp", "train", 1, {"loss": 0.5, "wild*": 1.0})
        log_events.StepMetricEvent("train", 7, {"speed": 3.0}, axis="tokens")
        log_events.StepMetricEvent("run", 8, {"step": 4.0})

    records = read(tmp_path)
    axes = {r.metric.name: r.metric.step_metric for r in records if r.metric.name}
    assert axes["train/loss"] == "epoch"
    assert axes["train/speed"] == "tokens"
    assert points_in(records, "train/speed", "tokens") == [(7, 3.0)]
    assert points_in(records, "step_value", "step") == [(8, 4.0)]
    refused = next(name for name in rows_in(records)[0] if "wild" in name)
    assert axes[refused] == "epoch"
    assert Wandb.rule.restore(refused) == "train/wild*"


def test_rows_carry_the_time_of_their_events(tmp_path):
    experiment = experiment_with(offline(tmp_path), tmp_path)

    run = train(experiment, [1])

    event = next(
        e
        for e in JournalReader(run.path).read()
        if isinstance(e, log_events.MetricEvent)
    )
    row = next(row for row in rows_in(read(tmp_path)) if "train/loss" in row)
    assert row["_timestamp"] == pytest.approx(event.stamp.time, abs=1e-3)
    assert row["_step"] == event.stamp.seq


def test_media_tables_and_texts_are_logged(tmp_path):
    experiment = experiment_with(offline(tmp_path), tmp_path)
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)

    with experiment.create_run("run"):
        log_events.ImageEvent("train", "sample", 1, pixels, caption="black")
        log_events.HistogramEvent("train", "weights", 2, [1, 2], [0.0, 0.5, 1.0])
        log_events.TableEvent("train", "errors", 3, ["x", "y"], [[1, "a"], [2, None]])
        log_events.TextEvent("train", "note", 4, "1 < 2")

    rows = rows_in(read(tmp_path))
    flat = {name: value for row in rows for name, value in row.items()}
    files = files_of(tmp_path, "run")[0].parent / "files"
    assert flat["train/sample._type"] == "image-file"
    assert flat["train/sample.caption"] == "black"
    assert (files / flat["train/sample.path"]).read_bytes().startswith(b"\x89PNG")
    assert flat["train/weights.values"] == [1, 2]
    assert flat["train/weights.bins"] == [0, 0.5, 1]
    table = json.loads((files / flat["train/errors.path"]).read_text())
    assert table == {"columns": ["x", "y"], "data": [[1, "a"], [2, None]]}
    assert "1 &lt; 2" in (files / flat["train/note.path"]).read_text()


def test_artifacts_and_models_are_logged_with_their_version(weights, data, tmp_path):
    experiment = experiment_with(offline(tmp_path), tmp_path)

    with experiment.create_run("run"):
        log_events.ArtifactEvent("my net", weights, "model", {"version": "2"})
        log_events.ArtifactEvent("digits", data, "dataset", {"rows": 3})

    sent = {}
    for record in read(tmp_path):
        artifact = record.artifact
        if record.HasField("request"):
            artifact = record.request.log_artifact.artifact
        if artifact.name:
            sent[artifact.name] = artifact
    net, digits = sent["my_x20_net"], sent["digits"]
    assert (net.type, digits.type) == ("model", "dataset")
    assert sorted(net.aliases) == ["2", "latest"]
    assert [entry.path for entry in net.manifest.contents] == ["weights.bin"]
    assert [entry.path for entry in digits.manifest.contents] == ["below/a.txt"]
    assert json.loads(digits.metadata) == {"rows": 3}


def test_the_summary_and_the_exit_code_tell_how_it_ended(tmp_path):
    experiment = experiment_with(offline(tmp_path), tmp_path)

    with experiment.create_run("run"):
        log_events.SummaryEvent({"best": 0.9})
    train_and_fail(experiment, "broken")

    def exit_code(run_id):
        found = read(tmp_path, run_id)
        return [r.exit.exit_code for r in found if r.HasField("exit")]

    assert summary_in(read(tmp_path))["best"] == 0.9
    assert exit_code("run") == [0]
    assert exit_code("broken") == [1]


def test_settings_are_passed_through(tmp_path):
    import wandb

    settings = wandb.Settings(
        mode="offline", root_dir=str(tmp_path / "mine"), run_group="g"
    )
    (tmp_path / "mine").mkdir()

    train(experiment_with(Wandb(settings), tmp_path), [1])

    records = read(tmp_path / "mine")
    assert next(r.run.run_group for r in records if r.run.run_id) == "g"
    assert settings.reinit == "default"


def test_a_replay_gives_the_same_rows(tmp_path):
    run = train(experiment_with(offline(tmp_path), tmp_path), [1, 2])
    before = rows_in(read(tmp_path))

    replay(run.path, offline(tmp_path / "again"))

    again = rows_in(read(tmp_path / "again"))

    def kept(rows):
        return [{k: v for k, v in row.items() if k != "_runtime"} for row in rows]

    assert kept(again) == kept(before)


def test_what_comes_again_is_left_out_by_wandb(tmp_path):
    tracker = offline(tmp_path)
    experiment = experiment_with(tracker, tmp_path)

    with experiment.create_run("run") as run:
        log_events.MetricEvent("mlp", "train", 1, {"loss": 0.5})
        run.flush()
        tracker.native.log({"train/loss": 9.0, "epoch": 1}, step=1, commit=True)
        log_events.MetricEvent("mlp", "train", 2, {"loss": 0.4})

    assert points_in(read(tmp_path), "train/loss", "epoch") == [(1, 0.5), (2, 0.4)]


def test_a_server_that_is_gone_costs_the_run_nothing(nobodys_address, tmp_path):
    tracker = Wandb(
        {
            "mode": "online",
            "base_url": f"http://{nobodys_address}",
            "api_key": "k" * 40,
            "init_timeout": 1.0,
        },
        par_dir=tmp_path,
    )
    experiment = experiment_with(tracker, tmp_path)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with experiment.create_run("run") as run:
            for epoch in range(100):
                log_events.MetricEvent("mlp", "train", epoch, {"loss": 0.5})
            deadline = time.monotonic() + 300
            # What failed in the background is said at the next event.
            while not caught and time.monotonic() < deadline:
                time.sleep(0.2)
                log_events.TextEvent("train", "wait", 1, "for the refusal")

    kinds = {w.category for w in caught}
    assert kinds & {TrackerExceptionWarning, DeliveryWarning}
    assert count_metrics(run.path) == 100
    text = "".join(p.read_text() for p in run.path.glob("*.json*"))
    assert "k" * 40 not in text

    replay(run.path, offline(tmp_path / "again"))
    assert len(points_in(read(tmp_path / "again"), "train/loss", "epoch")) == 100


def test_a_key_that_is_refused_costs_the_run_nothing(refusing_server, tmp_path):
    settings = {"base_url": f"http://{refusing_server}", "api_key": "k" * 40}
    tracker = Wandb(settings, par_dir=tmp_path, mode="online")
    with pytest.warns((TrackerExceptionWarning, DeliveryWarning)) as said:
        run = train(experiment_with(tracker, tmp_path), [1, 2])

    assert count_metrics(run.path) == 2
    assert "k" * 40 not in "".join(str(warning.message) for warning in said)
    replay(run.path, offline(tmp_path / "again"))
    assert len(points_in(read(tmp_path / "again"), "train/loss", "epoch")) == 2


def test_alerts_and_watching_need_a_run(tmp_path):
    tracker = offline(tmp_path)
    experiment = experiment_with(tracker, tmp_path)

    with experiment.create_run("run"):
        tracker.wait_until_open()
        tracker.alert("Diverged", "loss is nan")

    alerts = [r.alert for r in read(tmp_path) if r.HasField("alert")]
    assert [(a.title, a.text) for a in alerts] == [("Diverged", "loss is nan")]
    tracker.wait_until_open = lambda: False
    with pytest.raises(BackendError, match="no run is open"):
        tracker.watch(object())


@pytest.mark.torch
def test_wandb_watches_a_torch_model(tmp_path):
    import torch

    tracker = offline(tmp_path)
    net = torch.nn.Linear(2, 1)

    with experiment_with(tracker, tmp_path).create_run("run"):
        tracker.watch(net, log="all", log_freq=1)
        for epoch in (1, 2):
            net(torch.ones(3, 2)).sum().backward()
            log_events.MetricEvent("mlp", "train", epoch, {"loss": 0.5})

    names = {name for row in rows_in(read(tmp_path)) for name in row}
    assert any(name.startswith("gradients/weight") for name in names)
