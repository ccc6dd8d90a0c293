"""A database answers every query as the journals of the same runs do."""

from __future__ import annotations

import math
import sqlite3

import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

import drytrack
from drytrack import Experiment, _shelf
from drytrack.core import log_events
from drytrack.core.exceptions import ConfigurationError, RunHeldError
from drytrack.trackers import _sql_curves
from drytrack.trackers.sqlalchemy import SchemaError, SQLConnection

pytestmark = pytest.mark.usefixtures("no_default_trackers")


def make_experiment(folder, name="E"):
    config = {"lr": 0.1, "opt": {"name": "adam", "betas": [0.9, 0.99]}, "inf": math.inf}
    experiment = Experiment(config, name=name, par_dir=folder, tags=["mlp", "größe"])
    experiment.trackers.subscribe(SQLConnection())
    return experiment


def play(run, attempts_seen=0):
    for epoch in range(1 + attempts_seen, 5):
        value = math.nan if epoch == 3 else (3 if run.id == "a" else 1) / epoch
        log_events.MetricEvent("net", "t", epoch, {"loss": value, "acc": -value})
        log_events.StepMetricEvent("t", epoch, {"x": epoch}, {"split": "val"})
        log_events.SaveModelEvent("net", "checkpoint", f"{epoch}.pt", epoch)
    log_events.ParamsEvent({"lr": 0.5, "data": {"n": 3}})
    log_events.SummaryEvent({"best": {"acc": 0.5}})


@pytest.fixture
def stores(tmp_path):
    experiment = make_experiment(tmp_path)
    for name in ("a", "b"):
        with experiment.create_run(
            name, config={"lr": 0.1 if name == "a" else 0.01}
        ) as run:
            play(run)
    with experiment.create_run("a", resume=True) as run:
        play(run, 1)
    with (
        pytest.raises(ZeroDivisionError),
        make_experiment(tmp_path, "Other").create_run("x"),
    ):
        raise ZeroDivisionError
    return drytrack.open_store(tmp_path), drytrack.open_store(tmp_path / "drytrack.db")


def listed(table):
    return [[repr(value) for value in row] for row in table.rows()]


def test_the_same_runs_have_the_same_to_show(stores):
    journals, database = (store.runs() for store in stores)

    assert [run.id for run in database] == ["a", "b", "x"]
    for ours, theirs in zip(journals, database, strict=True):
        for name in (
            "uuid",
            "experiment",
            "status",
            "tags",
            "attempt",
            "name",
            "notes",
        ):
            assert getattr(ours, name) == getattr(theirs, name), name
        assert ours.started == pytest.approx(theirs.started, abs=1)
        assert ours.params() == theirs.params()
        assert ours.values() == theirs.values()
        assert ours.checkpoints() == theirs.checkpoints()
        assert theirs.record["uuid"] == ours.uuid
        assert (ours.error and ours.error["type"]) == (
            theirs.error and theirs.error["type"]
        )
    better = {"loss": "lower", "acc": "higher"}
    key = ["experiment", "run_id", "axis", "metric"]
    for table in ("metrics", "summary"):
        arguments = {"axis": None} if table == "metrics" else {"better": better}
        frames = [
            getattr(found, table)(**arguments)
            .to_pandas()
            .sort_values(
                [*key, "step"] if table == "metrics" else key, ignore_index=True
            )
            for found in (journals, database)
        ]
        pd.testing.assert_frame_equal(*frames)


@pytest.mark.parametrize(
    "query",
    [
        {"experiment": "E"},
        {"tag": "größe"},
        {"tag": "absent"},
        {"status": "failed"},
        {"params": {"opt.name": "adam", "lr": ("<", 1)}},
        {"metrics": {"loss.max": (">=", 1)}},
        {"metrics": {"loss.max": (">", 2)}},
        {"metrics": {"x [split=val].count": 4}},
        {"experiment": "E'; DROP TABLE runs; --"},
    ],
)
def test_queries_find_the_same_runs(stores, query):
    journals, database = stores

    expected = [run.uuid for run in journals.runs(**query)]

    assert [run.uuid for run in database.runs(**query)] == expected


@pytest.mark.parametrize("chunk", [1, 100])
def test_runs_are_told_from_those_between_them(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(_shelf, "CHUNK", chunk)
    for number in range(3):
        for name in ("E", "Other"):
            with make_experiment(tmp_path, name).create_run(f"r{number}"):
                value = number if name == "E" else -1
                log_events.MetricEvent("net", "t", 1, {"loss": value})

    found = drytrack.open_store(tmp_path / "drytrack.db").runs("E")

    assert [run.summaries()[0].last for run in found] == [0, 1, 2]
    assert [run.series("loss").values for run in found] == [[0], [1], [2]]
    assert [run.name for run in found] == ["r0", "r1", "r2"]
    assert {run.params()["opt.name"] for run in found} == {"adam"}


step_lists = st.lists(st.lists(st.integers(0, 8), max_size=6), min_size=1, max_size=3)


@settings(deadline=None, max_examples=15)
@given(
    attempts=step_lists,
    cut=st.integers(0, 3),
    other=st.integers(0, 8),
    batch=st.sampled_from([1, 2, 3, 1_000]),
)
def test_attempts_are_read_by_the_same_rule(
    attempts, cut, other, batch, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("runs")
    experiment = make_experiment(folder)
    for number, steps in enumerate(attempts):
        with experiment.create_run("a", resume="auto"):
            for at, step in enumerate(steps):
                value = 100.0 * number + at
                log_events.MetricEvent("net", "t", step, {"loss": value})
                log_events.StepMetricEvent("t", step, {"x": value})
                if at == cut:
                    log_events.LoadModelEvent("net", "checkpoint", "f", other)
    (ours,) = drytrack.open_store(folder).runs()
    (theirs,) = drytrack.open_store(folder / "drytrack.db").runs()

    keys = {summary.key for summary in ours.summaries()}
    assert {summary.key for summary in theirs.summaries()} == keys
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_sql_curves, "BATCH", batch)
        for key in keys:
            series = ours.series(key.metric, axis=key.axis)
            assert theirs.series(key.metric, axis=key.axis) == series
    by_key = {summary.key: summary for summary in theirs.summaries()}
    for summary in ours.summaries():
        other_one = by_key[summary.key]
        assert other_one.mean == pytest.approx(summary.mean)
        other_one.mean = summary.mean
        assert other_one == summary


def test_a_checkpoint_of_an_attempt_without_metrics_counts_up_to_the_next(tmp_path):
    experiment = make_experiment(tmp_path)
    with experiment.create_run("a"):
        log_events.MetricEvent("net", "t", 1, {"loss": 1.0})
    for epoch in (2, 4):
        with experiment.create_run("a", resume=True):
            log_events.SaveModelEvent("net", "checkpoint", f"{epoch}.pt", epoch)
    with experiment.create_run("a", resume=True):
        for epoch, loss in ((3, 3.0), (4, 0.5)):
            log_events.MetricEvent("net", "t", epoch, {"loss": loss})

    for place in (tmp_path, tmp_path / "drytrack.db"):
        (run,) = drytrack.open_store(place).runs()
        (summary,) = run.summaries({"loss": "lower"})
        assert (summary.best_at, summary.checkpoint) == (4, None)
    with experiment.create_run("a", resume=True):
        log_events.MetricEvent("net", "t", 5, {"loss": 0.4})
        log_events.SaveModelEvent("net", "checkpoint", "5.pt", 5)

    for place in (tmp_path, tmp_path / "drytrack.db"):
        (run,) = drytrack.open_store(place).runs()
        (summary,) = run.summaries({"loss": "lower"})
        assert (summary.best_at, summary.checkpoint.location) == (5, "5.pt")


def test_goals_edits_and_deletions_go_to_the_database(stores):
    journals, database = stores
    run = database.runs("E")[1]
    database.set_goal("E", "loss", "lower")
    run.edit(name="baseline", notes="good", tags=["keep"])

    assert database.goals("E") == {"loss": "lower"}
    again = database.runs("E")[1]
    assert (again.name, again.notes, again.tags) == ("baseline", "good", ["keep"])
    assert journals.runs("E")[1].tags == ["keep"]
    assert again.summaries()[0].best == 0.25
    database.set_goal("E", "loss", None)
    assert database.goals("E") == {}
    with pytest.raises(ConfigurationError):
        database.set_goal("Absent", "loss", "lower")

    again.delete()
    assert [found.id for found in database.runs()] == ["a", "x"]
    assert [found.id for found in journals.runs()] == ["a", "b", "x"]
    with sqlite3.connect(database.database.path) as connection:
        (left,) = connection.execute("SELECT count(*) FROM points").fetchone()
    connection.close()
    # Four epochs of three metrics, of which three were written by both attempts.
    assert left == 12 + 9


def test_a_running_run_is_not_deleted(tmp_path):
    with make_experiment(tmp_path).create_run("live") as run:
        log_events.MetricEvent("net", "t", 1, {"loss": 1.0})
        run.flush()
        (found,) = drytrack.open_store(tmp_path / "drytrack.db").runs()

        assert found.status == "running"
        with pytest.raises(RunHeldError, match="is running"):
            found.delete()


def test_an_engine_is_a_store_too(stores):
    engine = sa.create_engine(f"sqlite:///{stores[1].database.path}")

    assert len(drytrack.open_store(engine).runs()) == 3

    engine.dispose()


def test_a_file_that_is_no_database_of_ours_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        drytrack.open_store(tmp_path / "absent.db")
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE runs (id)")
    connection.close()
    with pytest.raises(SchemaError, match="did not make"):
        drytrack.open_store(tmp_path / "other.db")


def test_a_series_longer_than_a_batch_is_read_whole(tmp_path):
    n = 70_000
    with make_experiment(tmp_path).create_run("a"):
        for step in range(n):
            log_events.StepMetricEvent("t", step, {"x": float(step)})
        log_events.StepMetricEvent("t", 65_535, {"x": -1.0})
    (run,) = drytrack.open_store(tmp_path / "drytrack.db").runs()

    series = run.series("x")

    assert series.steps == list(range(n))
    assert series.values[65_534:65_537] == [65_534.0, -1.0, 65_536.0]
