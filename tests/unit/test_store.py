"""Reading runs back from their journals: queries, the attempt rule, data frames."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import drytrack
from drytrack import Experiment, _digest
from drytrack.core import log_events
from drytrack.core.exceptions import (
    ConfigurationError,
    MissingDependencyError,
    RunHeldError,
    RunNotFoundError,
)
from drytrack.core.journal import compact
from drytrack.store import JournalLoader, SeriesKey
from drytrack.trackers.base import MemoryMetrics

pytestmark = pytest.mark.usefixtures("no_default_trackers")


def make_experiment(tmp_path, **config):
    base = {"lr": 0.1, "opt": {"name": "adam", "betas": [0.9, 0.99]}}
    return Experiment(base | config, name="E", par_dir=tmp_path, tags=["mlp"])


def train(run, epochs, *, loss=lambda epoch: 1 / epoch, save=True):
    for epoch in epochs:
        log_events.MetricEvent("net", "trainer", epoch, {"loss": loss(epoch)})
        if save:
            log_events.SaveModelEvent("net", "checkpoint", f"{epoch}.pt", epoch)


@pytest.fixture
def store(tmp_path):
    experiment = make_experiment(tmp_path)
    for number, lr in enumerate([0.1, 0.01, 0.001]):
        with experiment.create_run(f"r{number}", config={"lr": lr}) as run:
            train(run, range(1, 4), loss=lambda epoch, lr=lr: lr / epoch)
    return drytrack.open_store(tmp_path)


def ids(found):
    return [run.id for run in found]


# -- finding -----------------------------------------------------------------------


def test_runs_are_found_by_experiment_tag_and_status(store):
    with (
        pytest.raises(ZeroDivisionError),
        Experiment(name="Other", par_dir=store.url).create_run("x"),
    ):
        raise ZeroDivisionError

    assert ids(store.runs()) == ["r0", "r1", "r2", "x"]
    assert ids(store.runs("E")) == ["r0", "r1", "r2"]
    assert ids(store.runs(tag="mlp")) == ["r0", "r1", "r2"]
    assert ids(store.runs(tag=["mlp", "absent"])) == []
    assert ids(store.runs(status="failed")) == ["x"]
    assert ids(store.runs(status=("failed", "completed"))) == ["r0", "r1", "r2", "x"]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"lr": 0.01}, ["r1"]),
        ({"lr": ("<", 0.05)}, ["r1", "r2"]),
        ({"lr": ("in", [0.1, 0.001])}, ["r0", "r2"]),
        ({"opt.name": "adam", "lr": ("!=", 0.1)}, ["r1", "r2"]),
        ({"opt.name": (">", 3)}, []),
        ({"absent": ("!=", 1)}, []),
    ],
)
def test_runs_are_found_by_parameters(store, params, expected):
    assert ids(store.runs(params=params)) == expected


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"loss": ("<", 0.01)}, ["r1", "r2"]),
        ({"loss.max": (">=", 0.1)}, ["r0"]),
        ({"loss.count": 3}, ["r0", "r1", "r2"]),
        ({"loss.best": ("<", 1)}, []),
        ({"absent": ("<", 1)}, []),
    ],
)
def test_runs_are_found_by_metrics(store, metrics, expected):
    assert ids(store.runs(metrics=metrics)) == expected


def test_a_metric_called_like_a_statistic_is_meant_before_it(tmp_path):
    with make_experiment(tmp_path).create_run("a"):
        log_events.MetricEvent("net", "t", 1, {"loss": 5.0, "loss.min": 1.0})

    store = drytrack.open_store(tmp_path)

    assert ids(store.runs(metrics={"loss.min": 1.0})) == ["a"]


def test_an_unknown_comparison_is_refused(store):
    with pytest.raises(ConfigurationError, match="no comparison '~'"):
        store.runs(params={"lr": ("~", 1)})


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(RunNotFoundError, match="no folder"):
        drytrack.open_store(tmp_path / "typo")
    assert len(drytrack.open_store(tmp_path).runs()) == 0


def test_the_folder_comes_from_the_environment(store, monkeypatch):
    monkeypatch.setenv("DRYTRACK_DIR", store.url)

    assert ids(drytrack.open_store().runs()) == ["r0", "r1", "r2"]
    assert ids(drytrack.runs()) == ["r0", "r1", "r2"]


def test_records_tell_running_crashed_and_completed_apart(store):
    code = (
        "import os, sys, drytrack\n"
        "drytrack.init_trackers('none')\n"
        "experiment = drytrack.Experiment(name='E', par_dir=sys.argv[1])\n"
        "experiment.create_run('dead').start()\n"
        "os._exit(1)\n"
    )
    subprocess.run([sys.executable, "-c", code, store.url], check=False)
    with make_experiment(store.url).create_run("live"):
        found = {record.id: record.status for record in drytrack.runs(store.url, "E")}

    assert found["dead"] == "crashed"
    assert found["live"] == "running"
    assert found["r0"] == "completed"


# -- parameters, values, summaries ---------------------------------------------------


def test_parameters_are_flat_and_the_newest_count(tmp_path):
    with make_experiment(tmp_path).create_run("a") as run:
        log_events.ParamsEvent({"lr": 0.5, "data": {"n": 3, "empty": {}}})
        log_events.SummaryEvent({"best": math.inf})
        assert run.attempt == 1

    (found,) = drytrack.open_store(tmp_path).runs()

    assert found.params() == {
        "lr": 0.5,
        "opt.name": "adam",
        "opt.betas": [0.9, 0.99],
        "data.n": 3,
        "data.empty": {},
    }
    assert found.values() == {"best": math.inf}


def test_a_summary_says_where_the_extremes_are(tmp_path):
    values = [3.0, math.nan, 1.0, math.inf, 2.0]
    with make_experiment(tmp_path).create_run("a") as run:
        train(run, range(1, 6), loss=lambda epoch: values[epoch - 1])

    store = drytrack.open_store(tmp_path)
    store.set_goal("E", "loss", "lower")
    (summary,) = store.runs()[0].summaries()

    assert (summary.count, summary.n_finite) == (5, 3)
    assert (summary.first, summary.first_at) == (3.0, 1)
    assert (summary.last, summary.last_at) == (2.0, 5)
    assert (summary.min, summary.min_at) == (1.0, 3)
    assert (summary.max, summary.max_at) == (3.0, 1)
    assert summary.mean == 2.0
    assert (summary.best, summary.best_at) == (1.0, 3)
    assert summary.checkpoint.location == "3.pt"


def test_a_goal_can_be_declared_changed_and_withdrawn(store):
    (first, *_) = store.runs()
    assert first.summaries()[0].best is None
    (higher,), (lower,) = map(first.summaries, ({"loss": "higher"}, {"loss": "lower"}))
    assert (higher.best_at, higher.checkpoint.location) == (1, "1.pt")
    assert (lower.best_at, lower.checkpoint.location) == (3, "3.pt")

    store.set_goal("E", "loss", "lower")
    assert store.goals("E") == {"loss": "lower"}
    assert store.runs()[0].summaries()[0].best_at == 3
    store.set_goal("E", "loss", None)
    assert store.goals("E") == {}
    with pytest.raises(ConfigurationError, match="'lower', 'higher' or None"):
        store.set_goal("E", "loss", "smaller")


def test_the_checkpoint_of_an_epoch_that_no_longer_counts_is_not_the_best(tmp_path):
    experiment = make_experiment(tmp_path)
    with experiment.create_run("a") as run:
        train(run, range(1, 5))
    with experiment.create_run("a", resume=True) as run:
        train(run, range(3, 6), save=False)

    store = drytrack.open_store(tmp_path)
    (run,) = store.runs()

    (higher,) = run.summaries({"loss": "higher"})
    assert higher.checkpoint.location == "1.pt"
    (lower,) = run.summaries({"loss": "lower"})
    assert (lower.best_at, lower.checkpoint) == (5, None)


# -- the attempt rule ----------------------------------------------------------------

step_lists = st.lists(st.lists(st.integers(0, 12), max_size=8), min_size=1, max_size=4)


@settings(deadline=None, max_examples=40)
@given(attempts=step_lists, cut=st.integers(0, 3), other=st.integers(0, 12))
def test_readers_of_a_journal_agree_with_a_tracker_that_saw_it_all(
    attempts, cut, other, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("runs")
    experiment = make_experiment(folder)
    memory = MemoryMetrics()
    experiment.trackers.subscribe(memory)
    run_dir = folder / ".drytrack" / "E" / "a"
    for number, steps in enumerate(attempts):
        with experiment.create_run("a", resume="auto"):
            for at, step in enumerate(steps):
                value = 100.0 * number + at
                log_events.MetricEvent("net", "t", step, {"loss": value})
                log_events.StepMetricEvent("t", step, {"x": value}, {"split": "val"})
                if at == cut:
                    log_events.LoadModelEvent("net", "checkpoint", "f", other)
        # What is known of the beginning must not spoil what is read later.
        _digest._keep(run_dir, _digest._state_of(run_dir), _digest.digest(run_dir))

    for model, axis in (("net", "epoch"), ("", "step")):
        expected = memory.load_metrics(model, axis=axis)
        assert JournalLoader(run_dir).load_metrics(model, axis=axis) == expected
    (run,) = drytrack.open_store(folder).runs()
    for summary in run.summaries():
        key = summary.key
        series = memory.load_metrics(key.model, axis=key.axis)[key.source][key.metric]
        assert run.series(key.metric, axis=key.axis) == series
        assert summary.count == len(series.steps)
        assert (summary.first, summary.last) == (series.values[0], series.values[-1])
        assert summary.min == min(series.values)
        assert series.steps[series.values.index(summary.max)] == summary.max_at
        assert summary.mean == pytest.approx(sum(series.values) / summary.count)


def test_the_loader_stops_at_the_epoch_asked_for(store):
    loader = JournalLoader(store.runs()[0].path)

    loaded = loader.load_metrics("net", 2)

    assert loaded == {"trainer": {"loss": ([1, 2], [0.1, 0.05])}}


def test_a_live_run_is_read_as_it_grows(tmp_path):
    with make_experiment(tmp_path).create_run("a"):
        for step in range(2_000):
            log_events.StepMetricEvent("t", step, {"x": float(step)})
        store = drytrack.open_store(tmp_path)
        assert store.runs()[0].summaries()[0].count == 2_000
        log_events.StepMetricEvent("t", 2_000, {"x": -1.0})
        (summary,) = store.runs()[0].summaries()

    assert (summary.count, summary.min_at) == (2_001, 2_000)


def test_a_finished_journal_is_not_read_twice(tmp_path):
    with make_experiment(tmp_path).create_run("a") as run:
        for step in range(2_000):
            log_events.StepMetricEvent("t", step, {"x": float(step)})
    before = drytrack.open_store(tmp_path).runs()[0].summaries()
    state = run.path.joinpath("journal.jsonl").stat()
    run.path.joinpath("journal.jsonl").write_bytes(b"x" * state.st_size)
    os.utime(run.path / "journal.jsonl", ns=(state.st_atime_ns, state.st_mtime_ns))

    assert drytrack.open_store(tmp_path).runs()[0].summaries() == before


def test_a_compressed_journal_and_a_damaged_cache_read_the_same(tmp_path):
    with make_experiment(tmp_path).create_run("a") as run:
        for step in range(1_500):
            log_events.StepMetricEvent("t", step, {"x": float(step)})
    (before,) = drytrack.open_store(tmp_path).runs()[0].summaries()
    compact(run.path)
    (run.path / "digest.json").write_text('{"format": 1, "digest": {}}')

    assert drytrack.open_store(tmp_path).runs()[0].summaries() == [before]


def test_a_run_that_never_started_has_nothing_to_show(tmp_path):
    make_experiment(tmp_path).create_run("a")

    (run,) = drytrack.open_store(tmp_path).runs()

    assert (run.status, run.attempt, run.started) == ("created", 0, None)
    assert (run.params(), run.summaries(), list(run.metrics())) == ({}, [], [])


# -- tables ------------------------------------------------------------------------


def test_metrics_come_as_rows_series_by_series(store):
    rows = list(store.runs()[:2].metrics("loss"))

    assert len(rows) == 6
    assert rows[3] == {
        "experiment": "E",
        "run_id": "r1",
        "model": "net",
        "source": "trainer",
        "axis": "epoch",
        "metric": "loss",
        "step": 1,
        "value": 0.01,
    }


def test_data_frames_of_every_kind_hold_the_same(store):
    found = store.runs()
    for table in (found.metrics(), found.summary({"loss": "lower"}), found.table()):
        rows = [json.loads(json.dumps(row)) for row in table]
        frame = table.to_pandas()
        for name in ("run_id", "step", "value", "best_at", "checkpoint", "status"):
            if name not in table.columns:
                continue
            expected = [row[name] for row in rows]
            assert frame[name].tolist() == expected
            assert table.to_polars()[name].to_list() == expected
            assert table.to_arrow()[name].to_pylist() == expected
    assert found.params().to_pandas()["lr"].tolist() == [0.1, 0.01, 0.001]
    assert found.params().to_arrow()["opt.betas"].to_pylist() == ["[0.9, 0.99]"] * 3


def test_parameters_of_several_types_become_text_in_a_data_frame(tmp_path):
    for name, value in {"a": 1, "b": "auto", "c": None, "d": True}.items():
        with Experiment({"p": value}, name="E", par_dir=tmp_path).create_run(name):
            pass

    found = drytrack.open_store(tmp_path).runs().params()

    assert found.to_polars()["p"].to_list() == ["1", "auto", None, "true"]
    assert [row["p"] for row in found] == [1, "auto", None, True]


def test_an_empty_result_keeps_its_columns(store):
    table = store.runs("Absent").metrics()

    assert list(table.to_pandas().columns) == list(table.columns)
    assert list(table.to_polars().columns) == list(table.columns)
    assert table.to_arrow().column_names == list(table.columns)


def test_a_large_result_streams_and_every_point_is_there(tmp_path):
    n = 70_000
    with make_experiment(tmp_path).create_run("a"):
        for step in range(n):
            log_events.StepMetricEvent("t", step, {"x": float(step), "y": -1.0})

    table = drytrack.open_store(tmp_path).runs().metrics(axis="step")

    sizes = [len(batch["step"]) for batch in table.batches()]
    assert sum(sizes) == 2 * n
    assert max(sizes) <= 65_536
    frame = table.to_pandas()
    assert frame[frame.metric == "x"].step.tolist() == list(range(n))


def test_files_hold_every_float_in_full(tmp_path):
    values = [0.1 + 0.2, math.nan, -math.inf]
    with make_experiment(tmp_path).create_run("a") as run:
        train(run, (1, 2, 3), loss=lambda epoch: values[epoch - 1])
    table = drytrack.open_store(tmp_path).runs().metrics()

    text, lines = io.StringIO(newline=""), io.StringIO()
    assert table.to_csv(text) == table.to_jsonl(lines) == 3
    table.to_parquet(tmp_path / "f.parquet")

    assert [row.rsplit(",", 1)[1] for row in text.getvalue().split()[1:]] == [
        "0.30000000000000004",
        "nan",
        "-inf",
    ]
    assert json.loads(lines.getvalue().splitlines()[1])["value"] == {"$float": "nan"}
    assert repr(pd.read_parquet(tmp_path / "f.parquet").value.tolist()) == repr(values)


def test_a_missing_package_is_named_with_its_extra(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", None)

    with pytest.raises(MissingDependencyError, match=r'"drytrack\[polars\]"'):
        store.runs().table().to_polars()


def test_one_series_is_found_by_name_or_the_choice_is_named(tmp_path):
    with make_experiment(tmp_path).create_run("a"):
        log_events.StepMetricEvent("t", 1, {"loss": 1.0})
        log_events.MetricEvent("net", "t", 1, {"loss": 2.0})
    (run,) = drytrack.open_store(tmp_path).runs()

    assert run.series("loss", axis="epoch").values == [2.0]
    with pytest.raises(LookupError, match="has 2 series 'loss'"):
        run.series("loss")
    with pytest.raises(LookupError, match=r"has 0 series 'acc'.*'loss'"):
        run.series("acc")
    assert run.series_keys(axis="step") == [SeriesKey("", "t", "step", "loss")]


# -- editing -----------------------------------------------------------------------


def test_a_run_that_has_ended_is_renamed_tagged_and_annotated(store):
    run = store.runs()[0]

    run.edit(name="baseline", notes="lr too high", tags=["keep", "größe"])

    again = store.runs()[0]
    assert (run.name, again.name, again.id) == ("baseline", "baseline", "r0")
    assert (again.notes, again.tags) == ("lr too high", ["keep", "größe"])
    data = json.loads((again.path / "record.json").read_text())
    assert (data["name"], data["tags"]) == ("baseline", ["keep", "größe"])
    assert not (again.path / "edits.json").exists()


def test_an_edit_of_a_running_run_outlives_it_and_its_resume(tmp_path):
    experiment = make_experiment(tmp_path)
    store = drytrack.open_store(tmp_path)
    with experiment.create_run("a"):
        store.runs()[0].edit(tags=["live"])
        store.runs()[0].edit(notes="look")
        assert store.runs()[0].status == "running"
    assert (store.runs()[0].tags, store.runs()[0].notes) == (["live"], "look")
    with experiment.create_run("a", resume=True) as run:
        pass
    assert (store.runs()[0].tags, store.runs()[0].attempt) == (["live"], 2)

    store.runs()[0].edit(tags=["over"])

    assert (store.runs()[0].tags, store.runs()[0].notes) == (["over"], "look")
    assert not (run.path / "edits.json").exists()


def test_a_run_is_deleted_unless_it_runs(store):
    store.runs()[0].delete()
    assert ids(store.runs()) == ["r1", "r2"]

    with (
        make_experiment(store.url).create_run("live") as run,
        pytest.raises(RunHeldError),
    ):
        store.runs()[-1].delete()

    assert run.path.exists()
    assert ids(store.runs()) == ["r1", "r2", "live"]


def test_replay_is_called_by_the_name_of_its_module_in_every_order():
    code = (
        "import sys\n"
        "import drytrack\n"
        "if sys.argv[1] == 'first': drytrack.replay\n"
        "import drytrack.replay as module\n"
        "from drytrack import replay\n"
        "from drytrack.replay import replay as function, Replayed\n"
        "assert module is replay is drytrack.replay\n"
        "assert module.replay is function and module.Replayed is Replayed\n"
        "try: drytrack.replay('nowhere', [])\n"
        "except ValueError as error: print(type(error).__name__)\n"
    )
    for order in ("first", "last"):
        done = subprocess.run(
            [sys.executable, "-c", code, order], capture_output=True, text=True
        )
        assert done.stdout == "JournalError\n", done.stderr
