"""SQLConnection on servers: PostgreSQL always, MariaDB where it is installed."""

from __future__ import annotations

import math
import os
import struct

import pytest
import sqlalchemy as sa

import drytrack
from drytrack.core import log_events
from drytrack.replay import replay
from drytrack.store import JournalLoader
from drytrack.testing import TrackerContract
from drytrack.trackers import _sql_curves
from drytrack.trackers import _sql_schema as schema
from drytrack.trackers.sqlalchemy import SchemaError, SQLConnection, upgrade

VARIABLE = "TEST_DATABASE_URL"
ODD = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308, 0.1 + 0.2]
NAMES = [
    "loss'; DROP TABLE points; --",
    "Loss",
    "loss",
    "loss ",
    "ünï π 🎉",
    "%s %(x)s",
]


class TestPostgreSQL(TrackerContract):
    @pytest.fixture(autouse=True)
    def address(self, postgres_url, monkeypatch):
        monkeypatch.setenv(VARIABLE, postgres_url)  # for child processes

    def make_tracker(self, tmp_path):
        return SQLConnection(os.environ[VARIABLE])

    def read_back(self, tracker, start, model_name):
        reader = SQLConnection.from_run(
            os.environ[VARIABLE], start.exp_name, start.run_id
        )
        return reader.load_metrics(model_name)


@pytest.fixture(params=["postgres_url", "mariadb_url"])
def url(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def run_once(tmp_path, url):
    """Return a function that puts one of everything into the database."""

    def run(run_id="run"):
        experiment = drytrack.Experiment(
            {"lr": 0.1, "note": "it's 100 %"}, name="Digits", par_dir=tmp_path
        )
        experiment.trackers.remove_all()
        experiment.trackers.subscribe(SQLConnection(url, goals={"loss": "lower"}))
        with experiment.create_run(run_id) as run:
            run.register_model(object(), "mlp")
            run.register_actor(object(), "mlp", "train")
            for epoch, value in enumerate(ODD):
                metrics = dict.fromkeys(NAMES, value)
                log_events.MetricEvent("mlp", "train", epoch, metrics)
                log_events.LearningRateEvent("mlp", "train", epoch, [value, 0.1])
            log_events.LoadModelEvent("mlp", "weights", "file", 2)
            log_events.SaveModelEvent("mlp", "weights", "file", 2)
            log_events.ParamsEvent({"lr": 0.2})
            log_events.ParamsEvent({"lr": 0.3})
            log_events.TextEvent("train", "note", 1, "nul \0 and ✓")
            log_events.TableEvent("train", "t", 1, ["a"], [[math.nan]])
            log_events.HistogramEvent("train", "w", 1, [1, 2], [0, 1, 2])
            log_events.ArtifactEvent("data", "d.csv", "dataset")
            log_events.SummaryEvent({"best": 1})
            log_events.StartTestEvent("test", "mlp")
            svg = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
            log_events.ImageEvent("train", "sample", 1, svg)
        return run

    return run


@pytest.fixture
def rows(url):
    engine = sa.create_engine(url, poolclass=sa.NullPool)

    def read(table, *columns):
        chosen = [table.c[name] for name in columns] or [table]
        with engine.connect() as connection:
            return list(map(tuple, connection.execute(sa.select(*chosen))))

    yield read
    engine.dispose()


def test_every_float_comes_back_as_it_went_in(run_once, url):
    run_once()

    loaded = SQLConnection.from_run(url, "Digits", "run").load_metrics("mlp")["train"]
    assert set(loaded) == set(NAMES)
    for series in loaded.values():
        assert [struct.pack("d", v) for v in series.values[1:]] == [
            struct.pack("d", v) for v in ODD[1:]
        ]
        assert math.isnan(series.values[0])


def test_one_of_everything_is_kept(run_once, rows):
    run = run_once()

    assert rows(schema.runs, "uuid", "status") == [(run.uuid, "completed")]
    assert (("lr", "0.3", 0.3)) in rows(schema.params, "name", "value", "number")
    assert rows(schema.texts, "content") == [("nul \ufffd and ✓",)]
    assert rows(schema.goals, "metric", "better") == [("loss", "lower")]
    [(kind, content)] = rows(schema.media, "format", "content")
    assert (kind, bytes(content)[:4]) == ("svg", b"<svg")
    for table in schema.metadata.tables.values():
        assert rows(table) or table.name == "tags", f"{table.name} is empty"


def test_a_replay_changes_nothing(run_once, rows, url):
    run = run_once()
    tables = [t for t in schema.metadata.tables.values() if t is not schema.runs]
    before = {table.name: sorted(map(repr, rows(table))) for table in tables}

    replay(run.path, SQLConnection(url))

    after = {table.name: sorted(map(repr, rows(table))) for table in tables}
    assert after == before


@pytest.mark.parametrize("place", ["file", "postgres_url", "mariadb_url"])
@pytest.mark.parametrize("evil", ["x'); DROP TABLE points; --", "\"; %s %(x)s {0} \\'"])
def test_names_that_look_like_sql_are_names(tmp_path, request, place, evil):
    url = tmp_path / "runs.db"
    if place != "file":
        url = request.getfixturevalue(place)
    experiment = drytrack.Experiment(
        {evil: {evil: evil}}, name="Digits'; --", par_dir=tmp_path, tags=[evil]
    )
    experiment.trackers.remove_all()
    experiment.trackers.subscribe(SQLConnection(url, goals={evil: "lower"}))
    with experiment.create_run("run'; DROP TABLE runs; --"):
        for epoch, value in enumerate([2.0, 1.0]):
            log_events.MetricEvent(evil, evil, epoch, {evil: value})
            log_events.SaveModelEvent(evil, evil, evil, epoch)
        log_events.StepMetricEvent(
            evil, 0, {evil: 3.0}, {evil: evil}, axis="a'b", model_name=evil
        )
        log_events.TextEvent(evil, evil, 1, evil)
        log_events.ArtifactEvent(evil, evil, evil)
        log_events.SummaryEvent({evil: evil})

    store = drytrack.open_store(url)
    (run,) = store.runs("Digits'; --", tag=evil, params={f"{evil}.{evil}": evil})
    assert run.id == "run'; DROP TABLE runs; --"
    assert run.values() == {evil: evil}
    best, labelled = run.summaries()
    assert tuple(best.key) == (evil, evil, "epoch", evil)
    assert (best.best, best.checkpoint.location) == (1.0, evil)
    assert labelled.key.metric == f"{evil} [{evil}={evil}]"
    assert run.series(evil, axis="epoch") == ([0, 1], [2.0, 1.0])
    assert run.series(labelled.key.metric, axis="a'b").values == [3.0]
    run.delete()
    assert len(store.runs()) == 0


@pytest.mark.parametrize("batch", [1, 4, 1_000])
def test_attempts_are_read_in_parts_as_in_one_piece(tmp_path, url, monkeypatch, batch):
    experiment = drytrack.Experiment({}, name="Digits", par_dir=tmp_path)
    experiment.trackers.remove_all()
    experiment.trackers.subscribe(SQLConnection(url))
    for steps in ([0, 1, 2, 2, 3, 9], [3, 3, 4, 5, 6], [5, 6, 7]):
        with experiment.create_run("run", resume="auto") as run:
            for at, step in enumerate(steps):
                metrics = {"loss": float(at), "acc": math.nan}
                log_events.StepMetricEvent("train", step, metrics)
                log_events.StepMetricEvent("val", step, metrics)

    monkeypatch.setattr(_sql_curves, "BATCH", batch)
    found = SQLConnection.from_run(url, "Digits", "run").load_metrics("", axis="step")
    expected = JournalLoader(run.path).load_metrics("", axis="step")
    assert repr(found) == repr(expected)
    assert found["train"]["loss"].steps == list(range(8))
    (stored,) = drytrack.open_store(url).runs()
    assert stored.series("loss", source="val") == expected["val"]["loss"]
    before = SQLConnection.from_run(url, "Digits", "run")
    assert before.load_metrics("", 4, axis="step")["val"]["acc"].steps == [*range(5)]


def test_an_older_database_is_upgraded_on_request(run_once, rows, url, tmp_path):
    assert upgrade(url, "0001") is None
    with pytest.raises(SchemaError, match="Upgrade them"):
        SQLConnection.from_run(url, "Digits", "run")

    assert upgrade(url) == "0001"
    run_once()
    assert rows(schema.goals, "better") == [("lower",)]


def test_tables_of_somebody_else_are_left_alone(url):
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE runs (run_uuid INTEGER)")

    with pytest.raises(SchemaError, match="'runs' that drytrack did not make"):
        upgrade(url)
    assert sa.inspect(engine).get_table_names() == ["runs"]
    engine.dispose()
