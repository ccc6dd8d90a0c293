"""`drytrack import` on files that TensorBoard, W&B and MLflow have written."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time

import pytest
from backend_cases import UNTIDY, backend
from click.testing import CliRunner

import drytrack
from drytrack.cli._app import app
from drytrack.core import log_events
from drytrack.core.journal import JournalReader

pytestmark = backend(noise=UNTIDY)  # MLflow's SQLAlchemy, whose databases stay open


@pytest.fixture
def run_import(tmp_path):
    """Return what imports into ``tmp_path/runs``, and the answer by run."""
    (tmp_path / "runs").mkdir()

    def call(*args, code=0):
        command = ["import", *map(str, args), "--dir", str(tmp_path / "runs"), "--json"]
        result = CliRunner().invoke(app, command, catch_exceptions=False)
        assert result.exit_code == code, result.output
        if code:
            return " ".join(result.stderr.split())
        return {done["run"]: done for done in json.loads(result.stdout)}

    return call


@pytest.fixture
def store(tmp_path, run_import):
    return drytrack.open_store(tmp_path / "runs")


def find(store, run_id):
    (run,) = (run for run in store.runs() if run.id == run_id)
    return run


def events_of(run, kind=log_events.Event):
    return [
        event for event in JournalReader(run.path).read() if isinstance(event, kind)
    ]


def check_healthy(store):
    result = CliRunner().invoke(app, ["doctor", "--dir", str(store.par_dir)])
    assert result.exit_code == 0, result.output


# -- TensorBoard -------------------------------------------------------------------


@pytest.fixture
def logdir(tmp_path):
    """Return event files: a run of two sources, and one with everything."""
    import numpy as np
    from tensorboardX import SummaryWriter

    folder = tmp_path / "logs"
    for split, factor in (("train", 1.0), ("validation", 2.0)):
        with SummaryWriter(str(folder / "plain" / split)) as writer:
            for step in range(5):
                writer.add_scalar("loss", factor * step, step, walltime=1e9 + step)
    with SummaryWriter(str(folder / "nested" / "rich")) as writer:
        writer.add_scalar("odd", float("inf"), 7, walltime=2e9)
        writer.add_histogram("w", np.array([0.0, 0.0, 1.0, 3.0]), 1, walltime=2e9)
        writer.add_histogram("zeros", np.zeros(9), 1, walltime=2e9)
        writer.add_image("square", np.zeros((3, 4, 4)), 2, walltime=2e9)
        writer.add_text("words", "one\ntwo", 3, walltime=2e9 + 1)
        writer.add_pr_curve("curve", np.array([0, 1]), np.array([0.2, 0.7]), 4)
    return folder


@pytest.mark.needs("tensorboard", "tensorboardX")
def test_each_folder_of_event_files_becomes_a_run(run_import, store, logdir):
    done = run_import("tensorboard", logdir)

    assert sorted(done) == ["logs/nested-rich", "logs/plain"]
    run = find(store, "plain")
    assert (run.started, run.ended) == (1e9, 1e9 + 4)
    assert run.series("loss", source="train").values == [0, 1, 2, 3, 4]
    assert run.series("loss", source="validation") == (
        [0, 1, 2, 3, 4],
        [0, 2, 4, 6, 8],
    )
    check_healthy(store)


@pytest.mark.needs("tensorboard", "tensorboardX")
def test_histograms_images_and_texts_are_taken_along(run_import, store, logdir):
    done = run_import("tensorboard", logdir, "--experiment", "Old", "--tag", "tb")

    assert done["Old/nested-rich"]["left_out"] == {"pr_curves": 1}
    run = find(store, "nested-rich")
    assert run.tags == ["tb"]
    assert run.series("odd").values == [math.inf]
    weights, zeros = events_of(run, log_events.HistogramEvent)
    assert (sum(weights.counts), weights.bin_edges[-1]) == (4, 3)
    assert sum(zeros.counts) == 9
    (image,) = events_of(run, log_events.ImageEvent)
    assert (image.name, image.step, image.image.format) == ("square", 2, "png")
    (text,) = events_of(run, log_events.TextEvent)
    assert (text.text, text.stamp.time) == ("one\ntwo", 2e9 + 1)


@pytest.mark.needs("tensorboard", "tensorboardX")
def test_hyperparameters_become_parameters(run_import, store, tmp_path):
    from tensorboardX import SummaryWriter

    chosen = {"lr": 0.1, "layers": 3, "name": "adam", "nesterov": True}
    with SummaryWriter(str(tmp_path / "logs")) as writer:
        writer.add_hparams(chosen, {"accuracy": 0.5}, name="trial")

    run_import("tensorboard", tmp_path / "logs")

    run = find(store, "trial")
    assert run.params() == chosen
    assert run.status == "completed"
    assert run.series("accuracy").values == [0.5]


@pytest.mark.needs("tensorboard", "tensorboardX")
def test_event_files_that_have_grown_renew_their_run(run_import, store, logdir):
    from tensorboardX import SummaryWriter

    run_import("tensorboard", logdir)
    again = run_import("tensorboard", logdir)
    with SummaryWriter(str(logdir / "plain" / "train")) as writer:
        writer.add_scalar("loss", 5.0, 5, walltime=1e9 + 5)
    longer = run_import("tensorboard", logdir)

    assert {done["outcome"] for done in again.values()} == {"unchanged"}
    assert longer["logs/plain"]["outcome"] == "renewed"
    assert longer["logs/nested-rich"]["outcome"] == "unchanged"
    assert find(store, "plain").series("loss", source="train").steps[-1] == 5


@pytest.mark.needs("tensorboard", "tensorboardX")
def test_one_run_that_cannot_be_made_does_not_keep_the_others(
    run_import, store, logdir
):
    experiment = drytrack.Experiment(name="logs", par_dir=store.par_dir)
    experiment.trackers.remove_all()
    with experiment.create_run("plain"):
        pass

    assert "was not imported from here" in run_import("tensorboard", logdir, code=1)

    assert sorted(run.id for run in store.runs()) == ["nested-rich", "plain"]
    assert find(store, "plain").series_keys() == []


@pytest.mark.needs("tensorboard", "tensorboardX")
def test_a_torn_event_file_is_read_up_to_there(run_import, store, logdir):
    (path,) = (logdir / "plain" / "train").iterdir()
    path.write_bytes(path.read_bytes()[:-5])

    run_import("tensorboard", logdir)

    assert find(store, "plain").series("loss", source="train").steps == [0, 1, 2, 3]


@pytest.mark.needs("tensorboard")
def test_a_folder_without_event_files_is_refused(run_import, tmp_path):
    assert "no event files" in run_import("tensorboard", tmp_path, code=2)


# -- W&B ---------------------------------------------------------------------------

WANDB_SCRIPT = """
import math, sys
import numpy as np
import wandb

first = wandb.init(
    project="Vision", id="abc", name="first", notes="mine", tags=["a"],
    config={"lr": 0.1, "net": {"depth": 3}},
)
for step in range(4):
    first.log({"loss": 1 / (step + 1), "deep": {"x": step}, "odd": math.nan})
first.log({
    "picture": wandb.Image(np.zeros((4, 4, 3), "uint8"), caption="dark"),
    "weights": wandb.Histogram([1.0, 2.0, 2.0]),
    "table": wandb.Table(columns=["a", "b"], data=[[1, "x"], [2, None]]),
    "text": "hello",
    "page": wandb.Html("<b>x</b>"),
})
first.config.update({"late": 5})
first.summary["best"] = 0.25
first.finish()

failed = wandb.init(project="Vision", id="bad")
failed.log({"loss": 1})
failed.finish(exit_code=3)

again = wandb.init(project="Vision", id="abc", resume="allow", config={"lr": 0.2})
again.log({"loss": 7}, step=100)
again.finish()
"""


@pytest.fixture(scope="module")
def wandb_files(tmp_path_factory):
    """Return what three offline runs have left, two of them of one id."""
    folder = tmp_path_factory.mktemp("wandb")
    places = ("DIR", "CACHE_DIR", "CONFIG_DIR", "DATA_DIR", "ARTIFACT_DIR")
    (folder / "began").write_text(str(time.time()))
    surroundings = {f"WANDB_{name}": str(folder) for name in places}
    subprocess.run(
        [sys.executable, "-c", WANDB_SCRIPT],
        check=True,
        cwd=folder,
        env={
            **os.environ,
            **surroundings,
            "WANDB_MODE": "offline",
            "WANDB_SILENT": "true",
            "WANDB_ERROR_REPORTING": "false",
        },
    )
    return folder / "wandb"


@pytest.mark.needs("wandb")
def test_offline_runs_of_wandb_become_runs(run_import, store, wandb_files):
    done = run_import("wandb", wandb_files)

    assert sorted(done) == ["Vision/abc", "Vision/bad"]
    assert done["Vision/abc"]["left_out"] == {"artifacts": 1, "html-file": 1}
    run = find(store, "abc")
    assert (run.name, run.notes, run.tags) == ("first", "mine", ["a"])
    assert run.series("deep.x").values == [0, 1, 2, 3]
    assert all(map(math.isnan, run.series("odd").values))
    assert run.values() == {"best": 0.25}
    assert find(store, "bad").status == "failed"
    check_healthy(store)


@pytest.mark.needs("wandb")
def test_a_resumed_run_of_wandb_has_two_attempts(run_import, store, wandb_files):
    run_import("wandb", wandb_files)

    run = find(store, "abc")
    assert (run.attempt, run.status) == (2, "completed")
    assert run.series("loss").steps == [0, 1, 2, 3, 100]
    assert run.params() == {"lr": 0.2, "net.depth": 3, "late": 5}
    starts = events_of(run, log_events.StartExperimentEvent)
    assert [start.resumed for start in starts] == [False, True]
    assert starts[0].config == {"lr": 0.1, "net": {"depth": 3}}


@pytest.mark.needs("wandb")
def test_media_of_wandb_are_taken_along(run_import, store, wandb_files):
    run_import("wandb", wandb_files)

    run = find(store, "abc")
    (image,) = events_of(run, log_events.ImageEvent)
    assert (image.caption, image.image.data[:4]) == ("dark", b"\x89PNG")
    (table,) = events_of(run, log_events.TableEvent)
    assert (table.columns, table.rows) == (["a", "b"], [[1, "x"], [2, None]])
    (histogram,) = events_of(run, log_events.HistogramEvent)
    assert sum(histogram.counts) == 3
    (text,) = events_of(run, log_events.TextEvent)
    assert (text.name, text.text) == ("text", "hello")


@pytest.mark.needs("wandb")
def test_times_of_wandb_are_kept_and_a_repeat_changes_nothing(
    run_import, store, wandb_files
):
    run_import("wandb", wandb_files)
    again = run_import("wandb", wandb_files)

    assert {done["outcome"] for done in again.values()} == {"unchanged"}
    run = find(store, "abc")
    times = [event.stamp.time for event in events_of(run)]
    # When the files were made, not when they were read.
    began = float((wandb_files.parent / "began").read_text())
    ended = max(path.stat().st_mtime for path in wandb_files.glob("*/*.wandb"))
    assert began <= min(times) <= max(times) <= ended + 1  # whole seconds somewhere
    assert (run.started, run.ended) == pytest.approx(
        (min(times), max(times)), rel=0, abs=1e-3
    )


@pytest.mark.needs("wandb")
def test_a_damaged_file_of_wandb_is_read_as_far_as_it_goes(
    run_import, store, wandb_files, tmp_path
):
    (path,) = wandb_files.glob("offline-run-*-bad/*.wandb")
    data = path.read_bytes()
    cut = tmp_path / "run-bad.wandb"
    cut.write_bytes(data[: len(data) - 3])

    run_import("wandb", cut)

    run = find(store, "bad")
    assert run.status == "interrupted"
    assert run.series("loss").values == [1.0]
    cut.write_bytes(b"something else")
    assert "is no file of W&B" in run_import("wandb", cut, code=2)


# -- MLflow ------------------------------------------------------------------------


@pytest.fixture(params=["folder", "database"])
def mlflow_store(request, tmp_path, monkeypatch):
    """Return a store with a run, a run inside of it, and one that failed."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    place = tmp_path / ("mlruns" if request.param == "folder" else "mlflow.db")
    address = place.as_uri()
    if request.param == "database":
        address = f"sqlite:///{place.as_posix()}"
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        client = MlflowClient(tracking_uri=address)
        files = (tmp_path / "artifacts").as_uri()
        experiment = client.create_experiment("/Users/me/Digits", files)
        tags = {"mlflow.note.content": "mine", "team": "blue"}
        run = client.create_run(
            experiment, start_time=1_000_000, tags=tags, run_name="first"
        )
        run_id = run.info.run_id
        chosen = {"lr": 0.1, "layers": 3, "flag": True, "version": "1.0.0"}
        client.log_batch(
            run_id,
            [
                Metric(name, value * step, 1_000_000 + step * 1_000, step)
                for step in range(3)
                for name, value in (("loss", 1.0), ("accuracy", 2.0))
            ]
            + [Metric("odd", math.nan, 1_004_000, 9)],
            [Param(name, str(value)) for name, value in chosen.items()],
            [RunTag("seen", "")],
        )
        client.log_text(run_id, "hello", "notes.txt")
        client.set_terminated(run_id, "FINISHED", end_time=1_005_000)
        inner = {"mlflow.parentRunId": run_id}
        child = client.create_run(experiment, start_time=1_000_500, tags=inner)
        client.set_terminated(child.info.run_id, "KILLED", end_time=1_000_600)
    return place, run_id, child.info.run_id


@pytest.mark.needs("mlflow")
def test_a_store_of_mlflow_becomes_runs(run_import, store, mlflow_store):
    place, run_id, child_id = mlflow_store

    done = run_import("mlflow", place)

    assert sorted(done) == sorted(f"Users-me-Digits/{i}" for i in (run_id, child_id))
    run, child = find(store, run_id), find(store, child_id)
    assert (run.name, run.notes, run.status) == ("first", "mine", "completed")
    assert sorted(run.tags) == ["seen", "team=blue"]
    assert (run.started, run.ended) == (1_000.0, 1_005.0)
    assert run.params() == {"lr": 0.1, "layers": 3, "flag": True, "version": "1.0.0"}
    assert run.series("accuracy") == ([0, 1, 2], [0.0, 2.0, 4.0])
    assert math.isnan(run.series("odd").values[0])
    assert child.status == "interrupted"
    assert child.record["parent"] == {"id": run_id, "uuid": run.uuid}
    (artifact,) = events_of(run, log_events.ArtifactEvent)
    assert artifact.path.read_text() == "hello"
    check_healthy(store)


@pytest.mark.needs("mlflow")
def test_metrics_that_mlflow_was_given_together_stay_together(
    run_import, store, mlflow_store
):
    place, run_id, _ = mlflow_store

    run_import("mlflow", place)
    again = run_import("mlflow", place)

    events = events_of(find(store, run_id), log_events.StepMetricEvent)
    assert [dict(event.metrics) for event in events[:3]] == [
        {"accuracy": 2.0 * step, "loss": 1.0 * step} for step in range(3)
    ]
    assert [event.stamp.time for event in events] == [1000, 1001, 1002, 1004]
    assert {done["outcome"] for done in again.values()} == {"unchanged"}


@pytest.mark.needs("mlflow")
def test_what_is_no_store_of_mlflow_is_refused_and_left_alone(run_import, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()

    assert "is no store of MLflow" in run_import("mlflow", empty, code=2)
    assert "There is no folder or database" in run_import(
        "mlflow", tmp_path / "absent", code=2
    )
    assert list(empty.iterdir()) == []
