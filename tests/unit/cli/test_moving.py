"""replay, compact, export, import, completion: what leads runs elsewhere."""

from __future__ import annotations

import csv
import json
import math
import sys

import pytest

import drytrack
from drytrack import Experiment
from drytrack.core.journal import JournalReader
from drytrack.core.log_events import MetricEvent, StepMetricEvent
from drytrack.trackers.csv import CSVDumper


def test_replay_feeds_trackers_by_name(cli, told, make_run, tmp_path):
    make_run("a")
    target = tmp_path / "copy"

    done = told("replay", "a", "--to", f"csv:{target}", "--to", "null")
    again = cli("replay", "a", "--to", f"csv:{target}", "--from-seq", "3")

    assert done["failed"] == {"csv": 0, "null": 0}
    assert done["events"] == 8
    assert "Replayed 7 events to csv." in again.stdout
    loaded = CSVDumper.from_folder(target / "csv" / "Digits" / "a").load_metrics("net")
    assert loaded["trainer"]["loss"].steps == [1, 2, 3]


def test_replay_exits_with_one_where_a_tracker_fails(cli, make_run, tmp_path):
    make_run("a")
    module = tmp_path / "failing_tracker_module.py"
    module.write_text(
        "from drytrack.core import log_events\n"
        "from drytrack.core.track import Tracker\n"
        "class Failing(Tracker):\n"
        "    notify = Tracker.notify.extend()\n"
        "    @notify.register(log_events.MetricEvent)\n"
        "    def _fail(self, event):\n"
        "        raise OSError('no space')\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        result = cli("replay", "a", "--to", "failing_tracker_module.Failing", code=1)

    assert "failed 3 times" in result.stderr
    assert "no space" in result.stderr


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("cvs", "There is no backend 'cvs'. Did you mean 'csv'"),
        ("no.such.Class", "There is no tracker 'no.such.Class'"),
        ("pathlib.Path", "is no tracker class"),
    ],
)
def test_replay_to_what_is_no_tracker_is_a_usage_error(cli, make_run, target, said):
    make_run("a")

    stderr = cli("replay", "a", "--to", target, code=2).stderr
    assert said in " ".join(stderr.split())


def test_replay_wants_a_target(cli, make_run):
    make_run("a")

    assert "--to" in cli("replay", "a", code=2).stderr


def test_a_compacted_run_reads_as_before(cli, told, make_run):
    run = make_run("a", epochs=range(1, 50))
    before = told("show", "a")["metrics"]

    (done,) = told("compact", "a")

    assert done["after"] < done["before"] / 2
    assert not (run.path / "journal.jsonl").exists()
    assert told("show", "a")["metrics"] == before
    assert "no journal.jsonl to compress" in cli("compact", "a", code=1).stderr


# -- export ------------------------------------------------------------------------


def test_metrics_are_exported_in_every_format(cli, told, make_run, tmp_path):
    import pandas as pd

    make_run("a")
    make_run("b", lr=0.01)
    for suffix in ("csv", "jsonl", "parquet"):
        told("export", "-o", tmp_path / f"m.{suffix}")

    assert cli("export").stdout == (tmp_path / "m.csv").read_text()
    lines = (tmp_path / "m.jsonl").read_text().splitlines()
    frame = pd.read_parquet(tmp_path / "m.parquet")
    with (tmp_path / "m.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    values = [0.1, 0.05, 0.1 / 3, 0.01, 0.005, 0.01 / 3]
    assert frame["value"].tolist() == values
    assert [json.loads(line)["value"] for line in lines] == values
    assert [float(row["value"]) for row in rows] == values
    assert rows[5]["run_id"] == "b"


def test_parameters_and_summaries_are_exported(cli, told, make_run, tmp_path):
    make_run("a")

    text = cli("export", "a", "--what", "params").stdout
    done = told("export", "a", "--what", "summary", "-o", tmp_path / "s.csv")

    assert text == "experiment,run_id,lr,opt.name\nDigits,a,0.1,adam\n"
    assert done == {"file": str(tmp_path / "s.csv"), "rows": 1, "runs": 1}
    assert "id" in cli("export", "--what", "runs").stdout


def test_points_are_chosen_for_an_export(cli, make_run, tmp_path):
    make_run("a", epochs=(1,))
    with Experiment(name="Other", par_dir=tmp_path).create_run("b"):
        MetricEvent("net", "trainer", 1, {"loss": 1.0, "acc": 0.5})
        StepMetricEvent("trainer", 1, {"loss": 2.0}, model_name="net")

    def values(*options):
        lines = cli("export", "--format", "jsonl", *options).stdout.splitlines()
        return sorted(json.loads(line)["value"] for line in lines)

    assert values() == [0.1, 0.5, 1.0, 2.0]
    assert values("--experiment", "Other") == [0.5, 1.0, 2.0]
    assert values("--metric", "acc") == [0.5]
    assert values("--axis", "step") == [2.0]


def test_an_export_that_needs_a_file_says_so(cli, make_run, tmp_path):
    make_run("a")

    assert "-o FILE" in cli("export", "--format", "parquet", code=2).stderr
    absent = tmp_path / "absent" / "m.csv"
    assert "cannot be written" in cli("export", "-o", absent, code=1).stderr


# -- import ------------------------------------------------------------------------


def test_a_csv_file_becomes_a_run(told, tmp_path):
    source = tmp_path / "old.csv"
    source.write_text("epoch,loss,comment,acc\n1,0.5,x,\n2,nan,,0.25\n")

    (done,) = told(
        "import", "csv", source, "--experiment", "Old", "--param", "lr=0.1",
        "--param", "name=adam", "--tag", "old",
    )  # fmt: skip

    assert done["run"] == "Old/old"
    assert (done["points"], done["left_out"]) == (3, {"cells without a number": 1})
    (run,) = drytrack.open_store(tmp_path).runs("Old", tag="old")
    assert run.params() == {"lr": 0.1, "name": "adam"}
    loss = run.series("loss", axis="epoch")
    assert (loss.steps, loss.values[0]) == ([1, 2], 0.5)
    assert math.isnan(loss.values[1])
    assert run.series("acc", model="model").values == [0.25]


def test_rows_without_a_step_are_counted(told, tmp_path):
    source = tmp_path / "old.csv"
    source.write_text("loss\n3\n2\n")

    told("import", "csv", source, "--experiment", "Old", "--run-id", "x")

    (run,) = drytrack.open_store(tmp_path).runs()
    assert run.series("loss", axis="step") == ([1, 2], [3.0, 2.0])


def test_columns_of_a_csv_file_are_named(told, tmp_path):
    source = tmp_path / "old.csv"
    source.write_text("step,pass,when,loss\n10,1,100,3\n20,2,200,2\n")
    command = ("import", "csv", source, "--experiment", "Old", "--time", "when")

    told(*command, "--run-id", "epochs", "--epoch", "pass", "--source", "me")
    told(*command, "--run-id", "steps", "--step", "pass")

    found = {run.id: run for run in drytrack.open_store(tmp_path).runs()}
    steps, epochs = found["steps"], found["epochs"]
    assert epochs.series("loss", axis="epoch", source="me") == ([1, 2], [3.0, 2.0])
    assert steps.series("loss", axis="step") == ([1, 2], [3.0, 2.0])
    for run in (steps, epochs):
        assert (run.started, run.ended) == (100.0, 200.0)
        assert "when" not in {key.metric for key in run.series_keys()}


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("", (), "has no rows"),
        ("loss\n", (), "has no rows"),
        ("epoch,loss\n1.5,2\n", (), "line 2: '1.5' is no whole number"),
        ("a,loss\n1,2\n", ("--step", "b"), "no column 'b'"),
    ],
)
def test_a_file_that_makes_no_run_leaves_none(cli, tmp_path, text, options, said):
    source = tmp_path / "old.csv"
    source.write_text(text)

    result = cli("import", "csv", source, "--experiment", "Old", *options, code=2)

    assert said in " ".join(result.stderr.split())
    assert not (tmp_path / ".drytrack").exists()


def test_an_import_does_not_replace_a_run(cli, make_run, tmp_path):
    make_run("a")
    source = tmp_path / "a.csv"
    source.write_text("loss\n3\n")

    result = cli("import", "csv", source, "--experiment", "Digits", code=1)

    assert "exists in" in result.stderr


def test_a_repeated_import_changes_nothing_and_a_longer_file_renews_it(
    cli, told, tmp_path
):
    source = tmp_path / "old.csv"
    source.write_text("step,loss\n1,3\n")
    command = ("import", "csv", source, "--experiment", "Old")

    (made,) = told(*command)
    cli("tag", "old", "mine")
    cli("note", "old", "too high")
    cli("rename", "old", "first try")
    (again,) = told(*command)
    source.write_text("step,loss\n1,3\n2,nan\n")
    (longer,) = told(*command)

    outcomes = [done["outcome"] for done in (made, again, longer)]
    assert outcomes == ["made", "unchanged", "renewed"]
    (run,) = drytrack.open_store(tmp_path).runs()
    assert run.series("loss").steps == [1, 2]
    assert (run.tags, run.notes, run.name) == (["mine"], "too high", "first try")
    assert cli("doctor").stdout == "1 runs checked, 0 with problems.\n"
    assert not list((tmp_path / ".drytrack").glob(".deleted-*"))


def test_an_import_keeps_the_times_of_its_rows(told, tmp_path):
    source = tmp_path / "old.csv"
    source.write_text("step,timestamp,loss\n1,100.5,3\n2,1970-01-01T00:03:20+00:00,2\n")

    told("import", "csv", source, "--experiment", "Old")

    (run,) = drytrack.open_store(tmp_path).runs()
    assert (run.started, run.ended, run.status) == (100.5, 200.0, "completed")
    times = [event.stamp.time for event in JournalReader(run.path).read()]
    assert times == [100.5, 100.5, 200.0, 200.0]
    assert [key.metric for key in run.series_keys()] == ["loss"]


def test_an_imported_run_can_be_replayed_and_resumed(cli, told, tmp_path):
    source = tmp_path / "old.csv"
    source.write_text("epoch,loss\n1,3\n2,2\n")
    command = ("import", "csv", source, "--experiment", "Old", "--model", "net")
    told(*command)

    cli("replay", "old", "--to", f"csv:{tmp_path}")
    experiment = drytrack.Experiment(name="Old", par_dir=tmp_path)
    with experiment.create_run("old", resume=True):
        MetricEvent("net", "import", 3, {"loss": 1.0})

    loaded = CSVDumper.from_folder(tmp_path / "csv" / "Old" / "old")
    assert loaded.load_metrics("net")["import"]["loss"].values == [3.0, 2.0]
    (run,) = drytrack.open_store(tmp_path).runs()
    assert run.series("loss") == ([1, 2, 3], [3.0, 2.0, 1.0])
    # What has gone on since is not thrown away.
    assert "has gone on since" in cli(*command, code=1).stderr


def test_nothing_is_left_of_an_import_that_fails(cli, tmp_path):
    source = tmp_path / "old.csv"
    source.write_text("step,loss\n1,3\nx,2\n")

    result = cli("import", "csv", source, "--experiment", "Old", code=2)

    assert "line 3: 'x' is no whole number" in " ".join(result.stderr.split())
    assert not list(tmp_path.rglob("journal.jsonl"))
    assert not (tmp_path / ".drytrack").exists()


@pytest.mark.parametrize(
    ("tool", "module"),
    [
        ("tensorboard", "tensorboard.backend.event_processing.event_file_loader"),
        ("wandb", "wandb.proto.wandb_internal_pb2"),
        ("mlflow", "mlflow"),
    ],
)
def test_an_import_says_what_to_install(cli, tmp_path, monkeypatch, tool, module):
    monkeypatch.setitem(sys.modules, module, None)

    result = cli("import", tool, tmp_path, code=2)

    assert f'pip install "drytrack[{tool}]"' in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []


# -- completion --------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script(cli, shell):
    assert "_DRYTRACK_COMPLETE" in cli("completion", shell).stdout
