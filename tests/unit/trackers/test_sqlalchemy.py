from __future__ import annotations

import contextlib
import json
import math
import pathlib
import sqlite3
import statistics
import tempfile

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from tracker_events import bits, exact, load_model, metric, start, step_metric, stop

import drytrack
from drytrack.core import log_events
from drytrack.core.exceptions import (
    AccessOutsideScopeError,
    ConfigurationError,
    MissingDependencyError,
    RunNotFoundError,
)
from drytrack.replay import replay
from drytrack.testing import TrackerContract
from drytrack.trackers.base import MemoryMetrics
from drytrack.trackers.sqlalchemy import SchemaError, SQLConnection, upgrade

NAMES = ["loss", "acc; DROP TABLE points; --", "Loss", "loss ", "ünï/π%s:x"]


def query(path, text, *values):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(text, values).fetchall()


def summaries(path):
    """Return what the database has of each series, by its metric."""
    columns = "n, first_step, last_step, min_step, min_value, max_step, max_value, mean"
    rows = query(
        path,
        f"SELECT metric, stale, {columns} FROM series JOIN series_summaries "
        "ON series_id = id",
    )
    return {row[0]: row[1:] for row in rows}


@pytest.fixture
def database(tmp_path):
    return tmp_path / "drytrack.db"


@pytest.fixture
def tracker(tmp_path):
    tracker = SQLConnection()
    tracker.notify(start(tmp_path, {"lr": 0.1}))
    yield tracker
    tracker.notify(stop())


@pytest.fixture
def experiment(tmp_path):
    experiment = drytrack.Experiment({"lr": 0.1}, name="Digits", par_dir=tmp_path)
    experiment.trackers.remove_all()
    experiment.trackers.subscribe(SQLConnection())
    return experiment


class TestSQLConnection(TrackerContract):
    def make_tracker(self, tmp_path):
        return SQLConnection(par_dir=tmp_path)

    def read_back(self, tracker, start, model_name):
        database = tracker._par_dir / "drytrack.db"
        reader = SQLConnection.from_run(database, start.exp_name, start.run_id)
        return reader.load_metrics(model_name)


class TestMetrics:
    def test_every_float_comes_back_as_it_went_in(self, tracker, database):
        odd = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308]
        for epoch, value in enumerate(odd):
            tracker.notify(metric(epoch, {"loss": value, "other": 0.1 + 0.2}))
        tracker.flush()

        series = tracker.load_metrics("mlp")["train"]["loss"]
        assert [bits(value) for value in series.values] == [bits(v) for v in odd]
        rows = query(database, "SELECT odd FROM points WHERE odd IS NOT NULL")
        assert sorted(rows) == [("-0.0",), ("-inf",), ("inf",), ("nan",)]

    def test_names_may_hold_anything(self, tracker):
        for epoch in (1, 2):
            for name in NAMES:
                metrics = {other: hash(other) % 100 for other in NAMES}
                tracker.notify(metric(epoch, metrics, model=name, source=name))
        tracker.flush()

        for name in NAMES:
            loaded = tracker.load_metrics(name)
            assert set(loaded) == {name}
            assert {n: s.values[0] for n, s in loaded[name].items()} == {
                other: hash(other) % 100 for other in NAMES
            }

    def test_a_metric_set_may_change_with_every_step(self, tracker):
        for step in range(50):
            tracker.notify(step_metric(step, {f"m{step % 7}": step, "always": step}))
        tracker.flush()

        loaded = tracker.load_metrics("mlp", axis="step")["train"]
        assert loaded["always"].steps == list(range(50))
        assert loaded["m3"].steps == list(range(3, 50, 7))

    def test_contexts_and_axes_are_series_of_their_own(self, tracker):
        for step, split in enumerate(["train", "val"] * 2):
            tracker.notify(step_metric(step, {"loss": step}, {"split": split}))
            tracker.notify(step_metric(step, {"loss": -step}, axis="sample"))
        tracker.flush()

        loaded = tracker.load_metrics("mlp", axis="step")["train"]
        assert loaded["loss [split=train]"].steps == [0, 2]
        assert loaded["loss [split=val]"].values == [1.0, 3.0]
        sampled = tracker.load_metrics("mlp", 1, axis="sample")["train"]
        assert sampled == {"loss": ([0, 1], [0.0, -1.0])}

    def test_context_keys_may_look_like_tags(self, tracker):
        context = {"$float": "nan", "$dict": 3}
        tracker.notify(step_metric(1, {"loss": 0.5}, context))
        tracker.flush()

        loaded = tracker.load_metrics("mlp", axis="step")["train"]
        assert loaded["loss [$dict=3, $float=nan]"].values == [0.5]

    def test_ten_thousand_metrics_are_kept(self, tracker, database):
        for step in range(3):
            tracker.notify(step_metric(step, {f"metric {n}": n for n in range(10_000)}))
        tracker.flush()

        loaded = tracker.load_metrics("mlp", axis="step")["train"]
        assert len(loaded) == 10_000
        assert loaded["metric 9999"].values == [9999.0] * 3
        assert len(summaries(database)) == 10_000

    def test_a_point_takes_at_most_thirty_bytes(self, tmp_path, database):
        tracker = SQLConnection()
        tracker.notify(start(tmp_path))
        for step in range(20_000):
            tracker.notify(step_metric(step, dict.fromkeys("abcde", step / 7)))
            if not step % 512:
                tracker.flush()
        tracker.flush()
        tracker.notify(stop())

        [(count,)] = query(database, "SELECT count(*) FROM points")
        assert count == 100_000
        assert database.stat().st_size / count <= 30


class TestAttempts:
    def test_a_rewound_model_counts_from_where_it_went_back_to(self, tracker):
        for epoch in range(1, 6):
            tracker.notify(metric(epoch, {"loss": epoch}))
        tracker.notify(load_model(3))
        tracker.notify(metric(4, {"loss": 40}))
        tracker.flush()

        loaded = tracker.load_metrics("mlp")["train"]["loss"]
        assert loaded == ([1, 2, 3, 4], [1.0, 2.0, 3.0, 40.0])

    def test_a_run_that_is_resumed_by_hand_goes_on(self, tmp_path):
        for attempt, epochs in ((1, (1, 2, 3)), (2, (3, 4))):
            tracker = SQLConnection()
            resumed = attempt > 1
            tracker.notify(start(tmp_path, resumed=resumed, attempt=attempt))
            for epoch in epochs:
                tracker.notify(metric(epoch, {"loss": 10 * attempt + epoch}))
            tracker.notify(stop())

        loaded = tracker.load_metrics("mlp")["train"]["loss"]
        assert loaded == ([1, 2, 3, 4], [11.0, 12.0, 23.0, 24.0])

    @given(
        happenings=st.lists(
            st.one_of(
                st.tuples(st.just("metric"), st.integers(0, 6), st.sampled_from("ab")),
                st.tuples(st.just("step"), st.integers(0, 6), st.sampled_from("ab")),
                st.tuples(st.just("load"), st.integers(0, 6), st.sampled_from("ab")),
                st.tuples(st.just("start"), st.just(0), st.just("")),
                st.tuples(st.just("flush"), st.just(0), st.just("")),
            ),
            max_size=40,
        )
    )
    @settings(max_examples=40)
    def test_what_is_read_and_summed_up_is_what_memory_has(self, happenings):
        with tempfile.TemporaryDirectory() as folder:
            self.compare(happenings, pathlib.Path(folder))

    def compare(self, happenings, folder):
        tracker, memory = SQLConnection(), MemoryMetrics()
        attempt = 1
        for each in (tracker, memory):
            each.notify(start(folder))
        for number, (kind, at, model) in enumerate(happenings):
            value = math.nan if number % 5 == 0 else float(number)
            if kind == "start":
                attempt += 1
                event = start(folder, resumed=True, attempt=attempt)
                tracker.notify(stop())
            elif kind == "load":
                event = load_model(at, model)
            elif kind == "metric":
                event = metric(at, {"loss": value}, model=model)
            elif kind == "step":
                event = step_metric(at, {"loss": value}, model=model)
            else:
                tracker.flush()
                continue
            for each in (tracker, memory):
                each.notify(event)
        tracker.notify(stop())

        for model in "ab":
            for axis in ("epoch", "step"):
                expected = memory.load_metrics(model, axis=axis)
                found = tracker.load_metrics(model, axis=axis)
                assert exact(found) == exact(expected)
                self.check_summary(folder / "drytrack.db", model, axis, expected)

    def check_summary(self, database, model, axis, expected):
        [*rows] = query(
            database,
            "SELECT n, n_finite, first_step, last_step, last_value, last_odd, "
            "min_step, min_value, max_value, mean FROM series JOIN series_summaries "
            "ON series_id = id WHERE model = ? AND axis = ?",
            model,
            axis,
        )
        steps, values = expected.get("train", {}).get("loss", ([], []))
        if not rows:
            assert not steps
            return
        n, n_finite, first, last, value, odd, at, low, high, mean = rows[0]
        finite = [v for v in values if math.isfinite(v)]
        assert (n, n_finite) == (len(steps), len(finite))
        if steps:
            assert (first, last) == (steps[0], steps[-1])
            assert bits(float(odd) if odd else value) == bits(values[-1])
        if finite:
            assert (low, high) == (min(finite), max(finite))
            assert at == steps[values.index(low)]
            assert mean == pytest.approx(statistics.fmean(finite))


class TestSummaries:
    def test_they_say_where_the_least_and_the_largest_are(self, tracker, database):
        for step, value in enumerate([3.0, math.nan, 1.0, 5.0, math.inf, 4.0]):
            tracker.notify(step_metric(step, {"loss": value}))
            tracker.flush()

        found = summaries(database)["loss"]
        assert found == (0, 6, 0, 5, 2, 1.0, 3, 5.0, 3.25)

    def test_the_largest_floats_have_a_mean(self, tracker, database):
        for step in range(4):
            tracker.notify(step_metric(step, {"loss": 1.7e308}))
        tracker.flush()

        assert summaries(database)["loss"][-1] == pytest.approx(1.7e308)

    def test_a_long_series_out_of_order_is_right_when_the_run_ends(
        self, tmp_path, database
    ):
        tracker = SQLConnection()
        tracker.notify(start(tmp_path))
        for step in range(3_000):
            tracker.notify(step_metric(step, {"loss": step}))
        tracker.flush()
        tracker.notify(step_metric(7, {"loss": -1.0}))
        tracker.flush()
        assert summaries(database)["loss"][0] == 1  # stale
        tracker.notify(stop())

        found = summaries(database)["loss"]
        assert found[:6] == (0, 3_000, 0, 2_999, 7, -1.0)


class TestIdempotence:
    def test_a_replay_changes_nothing(self, experiment, tmp_path, database):
        with experiment.create_run("run") as run:
            for epoch in range(1, 5):
                log_events.StartEpochEvent("train", "mlp", epoch)
                log_events.MetricEvent("mlp", "train", epoch, {"loss": epoch})
                log_events.LearningRateEvent("mlp", "train", epoch, [0.1, 0.2])
            log_events.LoadModelEvent("mlp", "weights", "file", 2)
            log_events.MetricEvent("mlp", "train", 3, {"loss": 30.0})
            log_events.ParamsEvent({"a": 1})
            log_events.TextEvent("train", "note", 1, "text")
        with experiment.create_run("run", resume=True):
            log_events.MetricEvent("mlp", "train", 3, {"loss": 300.0})
            log_events.ParamsEvent({"a": 2})

        before = dump(database)
        for from_seq in (1, 5):
            replay(run.path, SQLConnection(par_dir=tmp_path), from_seq)
            assert dump(database) == before

    def test_a_resumed_run_catches_up_from_what_is_committed(
        self, experiment, tmp_path, database
    ):
        with experiment.create_run("run"):
            log_events.MetricEvent("mlp", "train", 1, {"loss": 1.0})
        experiment.trackers.remove("sqlalchemy")
        with experiment.create_run("run", resume=True):  # unwatched
            log_events.MetricEvent("mlp", "train", 2, {"loss": 2.0})
        experiment.trackers.subscribe(SQLConnection())
        with experiment.create_run("run", resume=True):
            log_events.MetricEvent("mlp", "train", 3, {"loss": 3.0})

        reader = SQLConnection.from_run(database, "Digits", "run")
        loaded = reader.load_metrics("mlp")["train"]["loss"]
        assert loaded == ([1, 2, 3], [1.0, 2.0, 3.0])
        assert query(database, "SELECT number FROM attempts") == [(1,), (2,), (3,)]

    def test_runs_of_one_id_on_two_machines_are_two(self, tmp_path, database):
        for machine in ("left", "right"):
            experiment = drytrack.Experiment(
                {}, name="Digits", par_dir=tmp_path / machine
            )
            experiment.trackers.remove_all()
            experiment.trackers.subscribe(SQLConnection(database))
            with experiment.create_run("run"):
                log_events.MetricEvent("mlp", machine, 1, {"loss": 1.0})

        rows = query(database, "SELECT name, uuid FROM runs")
        assert [name for name, _ in rows] == ["run", "run"]
        with pytest.raises(RunNotFoundError, match="has 2 runs 'run'"):
            SQLConnection.from_run(database, "Digits", "run")
        read = [SQLConnection.from_run(database, "Digits", uuid) for _, uuid in rows]
        assert [set(each.load_metrics("mlp")) for each in read] == [{"left"}, {"right"}]

    def test_runs_without_a_record_are_told_apart(self, tmp_path, database):
        for value in (1.0, 2.0):
            experiment = drytrack.Experiment({}, name="Digits", par_dir=tmp_path)
            experiment.trackers.remove_all()
            experiment.trackers.subscribe(SQLConnection())
            with experiment.create_run("run", record=False):
                log_events.MetricEvent("mlp", "train", 1, {"loss": value})

        assert query(database, "SELECT value FROM points") == [(1.0,), (2.0,)]
        assert query(database, "SELECT count(*) FROM runs") == [(2,)]

    def test_a_run_without_a_record_is_resumed(self, experiment, database):
        for resume, epochs in ((False, (1, 2, 3)), (True, (3, 4))):
            with experiment.create_run("run", record=False, resume=resume):
                for epoch in epochs:
                    value = 10.0 * resume + epoch
                    log_events.MetricEvent("mlp", "train", epoch, {"loss": value})

        reader = SQLConnection.from_run(database, "Digits", "run")
        loaded = reader.load_metrics("mlp")["train"]["loss"]
        assert loaded == ([1, 2, 3, 4], [1.0, 2.0, 13.0, 14.0])
        assert summaries(database)["loss"][:2] == (0, 4)


def dump(database):
    """Return all rows but those of times and records."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
        content = {
            name: sorted(map(repr, connection.execute(f'SELECT * FROM "{name}"')))
            for (name,) in names.fetchall()
        }
        del content["runs"]
        columns = "uuid, status, attempt, last_seq, progress, config, created, started"
        content["runs"] = connection.execute(f"SELECT {columns} FROM runs").fetchall()
    return content


class TestEvents:
    def test_a_run_is_described(self, tmp_path, database):
        experiment = drytrack.Experiment(
            {"lr": 0.1, "net": {"layers": [3, 2], "bias": True}},
            name="Digits",
            par_dir=tmp_path,
            tags=["mlp", "it's"],
        )
        experiment.trackers.remove_all()
        goals = {"loss": "lower"}
        experiment.trackers.subscribe(SQLConnection(goals=goals))
        run = experiment.create_run("run").start()
        run.register_model(object(), "mlp")
        run.register_actor(object(), "mlp", "train", metadata={"k": math.nan})
        run.__exit__(ZeroDivisionError, ZeroDivisionError("by zero"), None)

        columns = "uuid, status, attempt, config, error, record"
        [row] = query(database, f"SELECT {columns} FROM runs")
        assert row[:3] == (run.uuid, "failed", 1)
        assert json.loads(row[3])["net"] == {"layers": [3, 2], "bias": True}
        assert json.loads(row[4])["type"] == "ZeroDivisionError"
        assert json.loads(row[5])["uuid"] == run.uuid
        assert query(database, "SELECT tag FROM tags ORDER BY tag") == [
            ("it's",),
            ("mlp",),
        ]
        assert query(
            database, "SELECT name, value, number FROM params ORDER BY name"
        ) == [
            ("lr", "0.1", 0.1),
            ("net.bias", "true", 1.0),
            ("net.layers", "[3,2]", None),
        ]
        assert query(database, "SELECT name FROM models") == [("mlp",)]
        assert query(database, "SELECT name, model, metadata FROM sources") == [
            ("train", "mlp", '{"k":{"$float":"nan"}}')
        ]
        assert query(database, "SELECT metric, better FROM goals") == [
            ("loss", "lower")
        ]

    def test_a_part_of_a_run_names_its_parent(self, experiment, database):
        with (
            experiment.create_run("whole") as whole,
            experiment.create_run("part", parent=whole),
        ):
            pass

        rows = query(database, "SELECT name, parent_uuid FROM runs ORDER BY name")
        assert rows == [("part", whole.uuid), ("whole", None)]

    def test_every_other_event_has_its_table(self, tracker, database):
        unpublished = [
            log_events.SaveModelEvent.unpublished("mlp", "weights", "a.pt", 3),
            log_events.ArtifactEvent.unpublished("data", "d.csv", "dataset", {"n": 1}),
            log_events.HistogramEvent.unpublished("train", "w", 1, [1, 2], [0, 1, 2]),
            log_events.TableEvent.unpublished("train", "t", 1, ["a"], [[math.inf]]),
            log_events.TextEvent.unpublished("train", "n", 1, "nul \0 and 'quote'"),
            log_events.LearningRateEvent.unpublished("mlp", "train", 1, {"g": 0.1}),
            log_events.SummaryEvent.unpublished({"best": {"acc": 0.9}}),
        ]
        for event in unpublished:
            tracker.notify(event)
        tracker.flush()

        def only(table, columns):
            [row] = query(database, f"SELECT {columns} FROM {table}")
            return row

        assert only("checkpoints", "kind, location, epoch") == ("saved", "a.pt", 3)
        assert only("artifacts", "name, kind, metadata") == (
            "data",
            "dataset",
            '{"n":1}',
        )
        assert only("histograms", "counts, bin_edges") == ("[1.0,2.0]", "[0.0,1.0,2.0]")
        assert only("data_tables", "header, cells") == (
            '["a"]',
            '[[{"$float":"inf"}]]',
        )
        assert only("texts", "content") == ("nul \ufffd and 'quote'",)
        assert only("learning_rates", "param_group, lr") == ("g", 0.1)
        assert only("summary_values", "name, number") == ("best.acc", 0.9)

    def test_events_of_the_users_own_are_kept_as_json(self, tracker, database):
        tracker.notify(
            log_events.UnknownEvent.unpublished("lab:BeamEvent", {"width": 3})
        )
        tracker.notify(log_events.StartTestEvent.unpublished("test", "mlp"))
        tracker.notify(log_events.IterateBatchEvent.unpublished("train", 1, 2, 3))
        tracker.flush()

        rows = query(database, "SELECT type, fields FROM events")
        assert rows == [
            ("lab:BeamEvent", '{"width":3}'),
            ("StartTestEvent", '{"source_name":"test","model_name":"mlp"}'),
        ]

    @pytest.mark.parametrize("media", ["files", "bytes"])
    def test_equal_images_are_kept_once(self, tmp_path, database, media):
        tracker = SQLConnection(media=media)
        tracker.notify(start(tmp_path))
        picture = np.zeros((4, 4, 3), np.uint8)
        for step in range(3):
            tracker.notify(
                log_events.ImageEvent.unpublished("train", "sample", step, picture)
            )
        tracker.notify(stop())

        rows = query(database, "SELECT format, size, path, content FROM media")
        [(kind, size, path, content)] = rows
        if media == "files":
            assert content is None
            content = (tmp_path / "drytrack_media" / path).read_bytes()
        assert (kind, size) == ("png", len(content))
        assert content.startswith(b"\x89PNG")
        assert query(database, "SELECT step, kind FROM images") == [
            (step, "image") for step in range(3)
        ]


class TestAddresses:
    def test_all_experiments_of_a_folder_share_a_database(self, tmp_path, database):
        for name in ("Left", "Right"):
            experiment = drytrack.Experiment({}, name=name, par_dir=tmp_path)
            experiment.trackers.remove_all()
            experiment.trackers.subscribe(SQLConnection())
            with experiment.create_run():
                pass

        assert query(database, "SELECT name FROM experiments") == [
            ("Left",),
            ("Right",),
        ]

    @pytest.mark.parametrize("form", ["path", "text", "url", "engine"])
    def test_the_place_is_a_path_an_address_or_an_engine(self, tmp_path, form):
        path = tmp_path / "sub" / "a b.db"
        path.parent.mkdir()
        place = {
            "path": path,
            "text": str(path),
            "url": f"sqlite:///{path}",
            "engine": sa.create_engine(f"sqlite:///{path}"),
        }[form]
        tracker = SQLConnection(place)
        tracker.notify(start(tmp_path))
        tracker.notify(metric(1, {"loss": 0.5}))
        tracker.notify(stop())

        assert query(path, "SELECT value FROM points") == [(0.5,)]
        assert tracker.load_metrics("mlp")["train"]["loss"] == ([1], [0.5])
        if form == "engine":
            place.dispose()

    def test_a_database_in_memory_serves_one_engine(self, tmp_path):
        engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
        tracker = SQLConnection(engine)
        tracker.notify(start(tmp_path))
        tracker.notify(metric(1, {"loss": 0.5}))
        tracker.notify(stop())

        assert tracker.load_metrics("mlp")["train"]["loss"] == ([1], [0.5])
        engine.dispose()

    def test_an_address_that_cannot_be_read_is_not_repeated(self):
        with pytest.raises(ConfigurationError) as caught:
            SQLConnection("postgresql://user:hunter2@host:port/db")
        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None

    @pytest.mark.parametrize("url", ["oracle://host/x", "nosuch://host/x"])
    def test_other_databases_are_refused(self, tmp_path, url):
        tracker = SQLConnection(url)
        with pytest.raises((ConfigurationError, MissingDependencyError)):
            tracker.notify(start(tmp_path))

    @pytest.mark.parametrize(
        "arguments", [{"media": "tape"}, {"goals": {"loss": "smaller"}}]
    )
    def test_wrong_arguments_are_refused_at_once(self, arguments):
        with pytest.raises(ConfigurationError, match=r"Pass 'files'|Pass 'lower'"):
            SQLConnection(**arguments)

    def test_without_a_run_there_is_nothing_to_load(self):
        with pytest.raises(AccessOutsideScopeError, match="from_run"):
            SQLConnection().load_metrics("mlp")

    def test_a_missing_file_is_not_made_by_reading(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no database"):
            SQLConnection.from_run(tmp_path / "none.db", "Digits", "run")
        assert not (tmp_path / "none.db").exists()


class TestVersions:
    def test_tables_of_somebody_else_are_left_alone(self, tmp_path, database):
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("CREATE TABLE runs (run_uuid TEXT)")

        with pytest.raises(SchemaError, match="'runs' that drytrack did not make"):
            SQLConnection().notify(start(tmp_path))
        with pytest.raises(SchemaError, match="did not make"):
            upgrade(database)
        names = query(database, "SELECT name FROM sqlite_master")
        assert names == [("runs",)]

    def test_a_newer_database_is_refused(self, tmp_path, database):
        upgrade(database)
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("UPDATE drytrack_version SET version_num = '0099'")
            connection.commit()

        other = SQLConnection()
        with pytest.raises(SchemaError, match="Update drytrack"):
            other.notify(start(tmp_path, run_id="other"))
        with pytest.raises(SchemaError, match="Update drytrack"):
            upgrade(database)

    def test_an_older_database_is_upgraded_on_request(self, tmp_path, database):
        assert upgrade(database, "0001") is None
        with pytest.raises(SchemaError, match="Upgrade them"):
            SQLConnection().notify(start(tmp_path))

        assert upgrade(database) == "0001"
        assert upgrade(database) == "0002"
        tracker = SQLConnection(goals={"loss": "lower"})
        tracker.notify(start(tmp_path))
        tracker.notify(stop())
        assert query(database, "SELECT metric FROM goals") == [("loss",)]

    def test_upgraded_tables_are_those_that_are_made_anew(self, tmp_path):
        upgrade(tmp_path / "upgraded.db")
        tracker = SQLConnection(tmp_path / "new.db")
        tracker.notify(start(tmp_path))
        tracker.notify(stop())

        assert shape(tmp_path / "upgraded.db") == shape(tmp_path / "new.db")


def shape(database):
    """Return the statement behind each table and index."""
    return dict(query(database, "SELECT name, sql FROM sqlite_master"))
