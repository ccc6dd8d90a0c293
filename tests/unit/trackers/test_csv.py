from __future__ import annotations

import contextlib
import csv
import errno
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import threading

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracker_events import (
    NOW,
    bits,
    exact,
    load_model,
    metric,
    start,
    step_metric,
    stop,
)

import drytrack
from drytrack.core import log_events
from drytrack.core.exceptions import (
    AccessOutsideScopeError,
    DrytrackWarning,
    MetricValueError,
    RecordWarning,
    TrackerExceptionWarning,
)
from drytrack.testing import TrackerContract
from drytrack.trackers import _csv_series
from drytrack.trackers.base import MemoryMetrics, Series
from drytrack.trackers.csv import MAX_OPEN_FILES, CSVDumper


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "csv" / "Digits" / "run"


@pytest.fixture
def dumper(tmp_path):
    dumper = CSVDumper()
    dumper.notify(start(tmp_path, {"lr": 0.1}))
    yield dumper
    dumper.notify(stop())


@pytest.fixture
def experiment(tmp_path):
    experiment = drytrack.Experiment({"lr": 0.1}, name="Digits", par_dir=tmp_path)
    experiment.trackers.remove_all()
    experiment.trackers.subscribe(CSVDumper())
    return experiment


class TestCSVDumper(TrackerContract):
    def make_tracker(self, tmp_path):
        return CSVDumper(tmp_path)

    def read_back(self, tracker, start, model_name):
        return CSVDumper.from_folder(tracker.find_run_dir(start)).load_metrics(
            model_name
        )


class TestFiles:
    def test_epochs_are_rows_of_one_file_for_each_source(self, dumper, folder):
        dumper.notify(metric(1, {"loss": 0.5, "train/acc, top 1": 0.1}))
        dumper.notify(metric(2, {"loss": math.nan, "train/acc, top 1": -math.inf}))
        dumper.notify(metric(2, {"loss": 1.0}, source="test"))

        assert (folder / "mlp" / "train.csv").read_text() == (
            'epoch,attempt,rewind,seq,loss,"train/acc, top 1"\n'
            "1,1,0,,0.5,0.1\n"
            "2,1,0,,nan,-inf\n"
        )
        assert (folder / "mlp" / "test.csv").read_text() == (
            "epoch,attempt,rewind,seq,loss\n2,1,0,,1.0\n"
        )

    def test_a_row_is_in_the_file_when_the_handler_returns(self, dumper, folder):
        for epoch in range(3):
            dumper.notify(metric(epoch, {"loss": 0.5}))

            text = (folder / "mlp" / "train.csv").read_text()
            assert text.endswith(f"\n{epoch},1,0,,0.5\n")

    def test_a_late_metric_adds_a_column_to_all_rows(self, dumper, folder):
        dumper.notify(metric(1, {"loss": 0.5}))
        dumper.notify(metric(2, {"accuracy": 0.9, "loss": 0.4}))
        dumper.notify(metric(3, {"accuracy": 0.8}))

        table = pd.read_csv(folder / "mlp" / "train.csv")
        assert list(table) == ["epoch", "attempt", "rewind", "seq", "loss", "accuracy"]
        assert table["loss"].tolist()[:2] == [0.5, 0.4]
        assert table["loss"].isna().tolist() == [False, False, True]
        assert table["accuracy"].isna().tolist() == [True, False, False]
        assert [p.name for p in folder.glob("mlp/*")] == ["train.csv"]

    def test_many_metrics_make_a_long_file(self, dumper, folder):
        n = _csv_series.MAX_COLUMNS + 10
        for epoch in range(n):
            dumper.notify(metric(epoch, {f"metric {epoch}": epoch / 7}))

        table = pd.read_csv(folder / "mlp" / "train.csv")
        assert list(table) == ["metric", "epoch", "attempt", "rewind", "seq", "value"]
        assert table["metric"].tolist() == [f"metric {epoch}" for epoch in range(n)]
        assert table["value"].tolist() == [epoch / 7 for epoch in range(n)]
        loaded = dumper.load_metrics("mlp")["train"]
        assert len(loaded) == n
        assert loaded["metric 9"] == Series([9], [9 / 7])

    def test_a_large_file_is_not_rewritten_for_ever(self, dumper, folder, monkeypatch):
        monkeypatch.setattr(_csv_series, "FREE_REWRITES_BYTES", 0)
        rows = 50
        for epoch in range(rows):
            dumper.notify(metric(epoch, {"loss": 0.5}))

        for late in range(60):
            dumper.notify(metric(rows + late, {f"late {late}": 0.5}))

        header = (folder / "mlp" / "train.csv").read_text().partition("\n")[0]
        assert header == "metric,epoch,attempt,rewind,seq,value"
        assert len(dumper.load_metrics("mlp")["train"]["loss"].steps) == rows
        assert len(dumper.load_metrics("mlp")["train"]) == 61

    def test_a_long_file_is_told_from_metrics_of_the_same_names(self, dumper):
        names = {"metric": 1.0, "value": 2.0, "epoch": 3.0, "attempt": 4.0}
        dumper.notify(metric(1, names))
        dumper.notify(step_metric(1, names, axis="metric"))
        dumper.notify(step_metric(1, names, axis="attempt"))

        for axis in ("epoch", "metric", "attempt"):
            loaded = dumper.load_metrics("mlp", axis=axis)["train"]
            assert {name: series.values for name, series in loaded.items()} == {
                name: [value] for name, value in names.items()
            }

    def test_steps_have_a_file_for_each_axis(self, dumper, folder):
        dumper.notify(step_metric(10, {"loss": 0.5}))
        dumper.notify(step_metric(640, {"loss": 0.5}, axis="samples"))
        dumper.notify(step_metric(10, {"loss": 0.4}, model="", source="script"))

        assert (folder / "mlp" / "train-steps.csv").exists()
        assert (folder / "mlp" / "train-samples.csv").exists()
        assert (folder / "script-steps.csv").read_text() == (
            "step,attempt,rewind,seq,loss\n10,1,0,,0.4\n"
        )
        assert dumper.load_metrics("", axis="step") == {
            "script": {"loss": Series([10], [0.4])}
        }

    def test_contexts_are_series_of_their_own(self, dumper):
        for value in (1, 1.0, True, "a\nb", [1, {"c": None}]):
            dumper.notify(step_metric(1, {"loss": 0.5}, {"k": value}))

        assert list(dumper.load_metrics("mlp", axis="step")["train"]) == [
            "loss [k=1]",
            "loss [k=1.0]",
            "loss [k=True]",
            "loss [k=a\\nb]",
            "loss [k=[1, {'c': None}]]",
        ]

    def test_no_metrics_make_no_row_and_no_file(self, dumper, folder):
        dumper.notify(metric(1, {}))
        assert not (folder / "mlp" / "train.csv").exists()

        dumper.notify(metric(1, {"loss": 0.5}))
        dumper.notify(metric(2, {}))
        assert len((folder / "mlp" / "train.csv").read_text().splitlines()) == 2

    def test_more_sources_than_files_may_be_open(self, dumper):
        n = 2_000
        for epoch in (1, 2):
            for source in range(n):
                dumper.notify(metric(epoch, {"loss": source}, source=f"s{source}"))

        loaded = dumper.load_metrics("mlp")
        assert loaded == {
            f"s{source}": {"loss": Series([1, 2], [source, source])}
            for source in range(n)
        }

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists open files")
    def test_few_files_are_open_in_a_run_and_none_after_it(self, tmp_path):
        descriptors = pathlib.Path("/proc/self/fd")

        def count():
            return sum(
                str(tmp_path) in str(path.readlink())
                for path in descriptors.iterdir()
                if path.is_symlink()
            )

        dumper = CSVDumper()
        dumper.notify(start(tmp_path))
        for source in range(200):
            dumper.notify(metric(1, {"loss": 0.5}, source=f"s{source}"))
        during = count()
        dumper.notify(stop())

        assert 1 < during <= MAX_OPEN_FILES + 1
        assert count() == 0

    def test_learning_rates_have_a_file_of_their_own(self, dumper, folder):
        for epoch, rate in enumerate([0.1, [0.1, 0.2], {"head": 0.3}, None]):
            dumper.notify(
                log_events.LearningRateEvent.unpublished(
                    "mlp", "train", epoch, rate, "Cosine, warm"
                )
            )

        with (folder / "mlp" / "train-lr.csv").open(newline="") as file:
            rows = list(csv.reader(file))
        assert rows[0] == [
            "epoch",
            "attempt",
            "rewind",
            "seq",
            "scheduler",
            "group",
            "lr",
        ]
        assert [(row[0], *row[4:]) for row in rows[1:]] == [
            ("0", "Cosine, warm", "", "0.1"),
            ("1", "Cosine, warm", "0", "0.1"),
            ("1", "Cosine, warm", "1", "0.2"),
            ("2", "Cosine, warm", "head", "0.3"),
            ("3", "Cosine, warm", "", ""),
        ]

    def test_tables_have_files_of_their_own(self, dumper, folder):
        rows = [["a,b", 0.1, None], ['say "x"\ny', math.nan, True]]
        dumper.notify(
            log_events.TableEvent.unpublished(
                "train", "errors/top", 5, ["text", "number", "empty"], rows
            )
        )

        [path] = (folder / "tables").rglob("*.csv")
        assert path.name == "5.csv"
        with path.open(newline="", encoding="utf-8") as file:
            assert list(csv.reader(file)) == [
                ["text", "number", "empty"],
                ["a,b", "0.1", ""],
                ['say "x"\ny', "nan", "True"],
            ]

    def test_configuration_params_and_summary_are_valid_json(self, tmp_path, folder):
        dumper = CSVDumper()
        dumper.notify(start(tmp_path, {"lr": 0.1, "clip": math.inf, "é": [1, None]}))
        for params in ({"a": 1, "b": 1}, {"b": math.nan}):
            dumper.notify(log_events.ParamsEvent.unpublished(params))
        dumper.notify(log_events.SummaryEvent.unpublished({"best": 0.9}))
        dumper.notify(stop(last=0.8))

        def refuse(constant):
            raise AssertionError(constant)

        def read(name):
            return json.loads((folder / name).read_bytes(), parse_constant=refuse)

        assert read("config.json") == {
            "lr": 0.1,
            "clip": {"$float": "inf"},
            "é": [1, None],
        }
        assert read("params.json") == {"a": 1, "b": {"$float": "nan"}}
        assert read("summary.json") == {"best": 0.9, "last": 0.8}


# -- odd input -------------------------------------------------------------------

NUMERIC = [
    math.nan,
    math.inf,
    -math.inf,
    -0.0,
    10**300,
    2**63,
    5e-324,
    True,
    np.float32(0.1),
    np.int64(-(2**63)),
    np.array(0.1),
    np.array([1 / 3]),
]
NOT_NUMERIC = [
    None,
    "0.5",
    1j,
    [0.5],
    (0.5,),
    np.zeros(3),
    {"value": 0.5},
    np.array("0.5"),
    object(),
]


@pytest.mark.parametrize("value", NUMERIC, ids=repr)
def test_any_number_is_read_back_as_the_same_float(experiment, value):
    with experiment.create_run("run"):
        log_events.MetricEvent("mlp", "train", 1, {"odd": value})
        loaded = CSVDumper.get_current().load_metrics("mlp")

    expected = float(value.item() if hasattr(value, "item") else value)
    assert exact(loaded) == {"train": {"odd": [(1, bits(expected))]}}


def test_what_is_no_number_is_refused_and_costs_no_tracker(experiment):
    with experiment.create_run("run"):
        for value in NOT_NUMERIC:
            with pytest.raises(MetricValueError, match="'odd'"):
                log_events.MetricEvent("mlp", "train", 1, {"odd": value, "even": 1})
        log_events.MetricEvent("mlp", "train", 2, {"even": 1})
        loaded = CSVDumper.get_current().load_metrics("mlp")

    assert loaded == {"train": {"even": Series([2], [1.0])}}


ODD_NAMES = [
    "train/loss",
    "..",
    "../../etc",
    ".",
    "/absolute",
    "C:\\windows",
    "con",
    "NUL.csv",
    "😀" * 3,
    "x" * 300,
    "x" * 299 + "y",
    "é",
    "e\u0301",
    "mlp",
    "MLP",
    "a,b",
    'say "x"',
    " padded ",
    "%2F",
    "trailing.",
    "index.jsonl",
    "tables",
    "train.csv",
    "train-steps",
    "x%~",
    "#comment",
    "nan",
    "-1",
]


def test_odd_names_are_read_back_exactly_from_inside_the_store(tmp_path, dumper):
    for value, name in enumerate(ODD_NAMES):
        dumper.notify(metric(1, {name: value}, model=name, source=name))
        dumper.notify(step_metric(1, {name: value}, model=name, source=name))
        dumper.notify(step_metric(1, {name: value}, model="", source=name))
        dumper.notify(metric(1, {name: value}, model="shared", source=name))
        dumper.notify(metric(value, {name: value}, model="one", source="one"))

    loaded = CSVDumper.from_folder(tmp_path / "csv" / "Digits" / "run").load_metrics
    for value, name in enumerate(ODD_NAMES):
        expected = {name: {name: Series([1], [value])}}
        assert loaded(name) == expected
        assert loaded(name, axis="step") == expected
        assert loaded("", axis="step")[name] == expected[name]
        assert loaded("shared")[name] == expected[name]
    assert list(loaded("one")["one"]) == ODD_NAMES
    assert {path.name for path in tmp_path.iterdir()} == {"csv"}
    paths = [path.relative_to(tmp_path) for path in tmp_path.rglob("*")]
    assert len({str(path).casefold() for path in paths if path.suffix}) == len(
        {str(path) for path in paths if path.suffix}
    )


def test_ten_thousand_metric_names_cost_one_rewrite_each_for_few(dumper, folder):
    for n in range(10_000):
        dumper.notify(metric(n, {f"metric {n}": n}))

    loaded = dumper.load_metrics("mlp")["train"]
    assert len(loaded) == 10_000
    assert all(loaded[f"metric {n}"] == Series([n], [n]) for n in range(10_000))
    # Had the file stayed wide, commas alone would be 50 MB.
    assert (folder / "mlp" / "train.csv").stat().st_size < 1_000_000


def test_eight_threads_leave_all_their_rows(experiment):
    def work(thread):
        for epoch in range(100):
            log_events.MetricEvent("mlp", "train", epoch, {f"thread {thread}": epoch})

    with experiment.create_run("run") as run:
        threads = [threading.Thread(target=run.bind(work), args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        loaded = CSVDumper.get_current().load_metrics("mlp")["train"]

    assert sum(len(series.steps) for series in loaded.values()) == 800


def test_runs_that_overlap_are_kept_apart(experiment, tmp_path):
    with experiment.create_run("outer") as outer:
        with experiment.create_run("inner", parent=outer):
            log_events.MetricEvent("mlp", "train", 1, {"loss": 1})
        log_events.MetricEvent("mlp", "train", 1, {"loss": 2})

    found = {
        name: CSVDumper.from_folder(tmp_path / "csv" / "Digits" / name)
        for name in ("outer", "inner")
    }
    assert found["outer"].load_metrics("mlp")["train"]["loss"].values == [2]
    assert found["inner"].load_metrics("mlp")["train"]["loss"].values == [1]


# -- the rules of history ------------------------------------------------------------

RESUME = "resume"
PATTERNS = {
    "forwards": ([(1, 0.1), (2, 0.2)], [(1, 0.1), (2, 0.2)]),
    "backwards": ([(3, 0.3), (2, 0.2), (1, 0.1)], [(1, 0.1), (2, 0.2), (3, 0.3)]),
    "in any order": ([(5, 0.5), (1, 0.1), (3, 0.3)], [(1, 0.1), (3, 0.3), (5, 0.5)]),
    "repeated with the same value": ([(1, 0.1), (1, 0.1)], [(1, 0.1)]),
    "repeated with another value": (
        [(1, 0.1), (2, 0.2), (1, 0.9)],
        [(1, 0.9), (2, 0.2)],
    ),
    "with gaps": (
        [(1, 0.1), (10, 0.2), (1000, 0.3)],
        [(1, 0.1), (10, 0.2), (1000, 0.3)],
    ),
    "huge": (
        [(2**63 - 1, 0.2), (2**53 + 1, 0.1)],
        [(2**53 + 1, 0.1), (2**63 - 1, 0.2)],
    ),
    "from zero": ([(0, 0.1), (1, 0.2)], [(0, 0.1), (1, 0.2)]),
    "negative": ([(-2, 0.1), (-1, 0.2)], [(-2, 0.1), (-1, 0.2)]),
    "resumed": (
        [(1, 0.1), (2, 0.2), RESUME, (3, 0.3)],
        [(1, 0.1), (2, 0.2), (3, 0.3)],
    ),
    "resumed earlier": (
        [(1, 0.1), (2, 0.2), (3, 0.3), RESUME, (2, 0.9)],
        [(1, 0.1), (2, 0.9)],
    ),
    "resumed twice": (
        [(1, 0.1), (5, 0.2), RESUME, (4, 0.3), RESUME, (2, 0.4), (3, 0.5)],
        [(1, 0.1), (2, 0.4), (3, 0.5)],
    ),
    "rewound": (
        [(1, 0.1), (2, 0.2), (3, 0.3), load_model(1), (2, 0.9)],
        [(1, 0.1), (2, 0.9)],
    ),
    "rewound after a resume": (
        [(1, 0.1), RESUME, (2, 0.2), (3, 0.3), load_model(1), (2, 0.9), (5, 0.5)],
        [(1, 0.1), (2, 0.9), (5, 0.5)],
    ),
}


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("axis", ["epoch", "step"])
def test_a_step_pattern_is_read_back_by_the_rules(tmp_path, folder, pattern, axis):
    published, expected = PATTERNS[pattern]
    dumper = CSVDumper()
    attempt = 1
    dumper.notify(start(tmp_path))

    for item in published:
        if item == RESUME:
            attempt += 1
            dumper.notify(stop())
            dumper = CSVDumper()  # as a new process does
            dumper.notify(start(tmp_path, resumed=True, attempt=attempt))
        elif isinstance(item, log_events.Event):
            dumper.notify(item)
        elif axis == "epoch":
            dumper.notify(metric(item[0], {"loss": item[1]}))
        else:
            epoch = log_events.StartEpochEvent.unpublished("train", "mlp", item[0])
            dumper.notify(epoch)
            dumper.notify(step_metric(item[0], {"loss": item[1]}))
    dumper.notify(stop())

    loaded = CSVDumper.from_folder(folder).load_metrics("mlp", axis=axis)
    assert list(zip(*loaded["train"]["loss"], strict=True)) == expected


def test_interleaved_sources_keep_their_steps(dumper):
    for epoch in range(4):
        dumper.notify(metric(epoch, {"loss": epoch}))
        dumper.notify(metric(epoch, {"loss": -epoch}, source="test"))

    assert dumper.load_metrics("mlp") == {
        "train": {"loss": Series([0, 1, 2, 3], [0, 1, 2, 3])},
        "test": {"loss": Series([0, 1, 2, 3], [0, -1, -2, -3])},
    }


def test_a_changing_metric_set_keeps_values_under_their_names(dumper):
    dumper.notify(metric(1, {"a": 1, "b": 2}))
    dumper.notify(metric(2, {"b": 3, "a": 4}))
    dumper.notify(metric(3, {"c": 5}))
    dumper.notify(metric(4, {"b": 6}))

    assert dumper.load_metrics("mlp")["train"] == {
        "a": Series([1, 2], [1, 4]),
        "b": Series([1, 2, 4], [2, 3, 6]),
        "c": Series([3], [5]),
    }


def test_the_last_epoch_can_be_chosen(dumper):
    for epoch in range(5):
        dumper.notify(metric(epoch, {"loss": epoch}))

    assert dumper.load_metrics("mlp", 2)["train"]["loss"].steps == [0, 1, 2]


def test_an_unrecorded_run_whose_id_was_used_before_is_another_attempt(tmp_path):
    for day, epochs in ((1, (1, 2, 3)), (2, (1,))):
        dumper = CSVDumper()
        dumper.notify(start(tmp_path, {"day": day}, run_ts=NOW.replace(day=day)))
        for epoch in epochs:
            dumper.notify(metric(epoch, {"loss": day}))
        dumper.notify(stop())

    assert dumper.load_metrics("mlp")["train"]["loss"] == Series([1], [2])
    configs = sorted(path.name for path in dumper._folder.glob("config*"))
    assert configs == ["config.json", "config_2.json"]


def test_a_tracker_that_comes_back_in_mid_run_goes_on_with_its_attempt(experiment):
    with experiment.create_run("run"):
        log_events.MetricEvent("mlp", "train", 5, {"loss": 0.1})
        log_events.LoadModelEvent("mlp", "checkpoint", "file", 2)
        log_events.MetricEvent("mlp", "train", 3, {"loss": 0.2})
        experiment.trackers.remove("csv")
        experiment.trackers.subscribe(CSVDumper())
        log_events.MetricEvent("mlp", "train", 4, {"loss": 0.3})
        log_events.MetricEvent("mlp", "test", 3, {"loss": 0.4})
        loaded = CSVDumper.get_current().load_metrics("mlp")

    assert loaded == {
        "train": {"loss": Series([3, 4], [0.2, 0.3])},
        "test": {"loss": Series([3], [0.4])},
    }


NAMES = st.sampled_from(["loss", "a,b", '"', "é😀", "metric", "epoch", "x y"])
VALUES = st.floats() | st.integers(-(2**60), 2**60)
METRICS = st.dictionaries(NAMES | st.integers(0, 99).map(str), VALUES, max_size=6)
EPOCHS = st.integers(-3, 9) | st.integers(-(2**63), 2**63 - 1)
MODELS = st.sampled_from(["mlp", "MLP", "a/b"])
SOURCES = st.sampled_from(["train", "Train", "test", "train-steps"])
EVENTS = st.one_of(
    st.builds(metric, EPOCHS, METRICS, MODELS, SOURCES),
    st.builds(
        step_metric,
        EPOCHS,
        METRICS,
        st.dictionaries(st.sampled_from("ab"), st.integers(0, 2), max_size=2),
        st.sampled_from(["step", "epoch", "steps"]),
        MODELS | st.just(""),
        SOURCES,
    ),
    st.builds(load_model, st.none() | st.integers(0, 9), MODELS),
    st.just(RESUME),
)


@settings(max_examples=150)
@given(st.lists(EVENTS, max_size=25), st.sampled_from([0, 2, 5, 256]))
def test_whatever_is_published_is_read_back_as_memory_has_it(published, max_columns):
    with (
        tempfile.TemporaryDirectory() as par_dir,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(_csv_series, "MAX_COLUMNS", max_columns)
        dumper, memory = CSVDumper(), MemoryMetrics()
        attempt = 1
        first = start(par_dir)
        dumper.notify(first)
        memory.notify(first)
        for event in published:
            if event == RESUME:
                attempt += 1
                dumper.notify(stop())
                dumper = CSVDumper()
                event = start(par_dir, resumed=True, attempt=attempt)
            dumper.notify(event)
            memory.notify(event)

        for model in ("mlp", "MLP", "a/b", ""):
            for axis in ("epoch", "step", "steps"):
                found = dumper.load_metrics(model, axis=axis)
                expected = memory.load_metrics(model, axis=axis)
                assert exact(found) == exact(expected)
        dumper.notify(stop())


# -- faults --------------------------------------------------------------------------


def test_a_torn_last_row_is_left_out_and_then_replaced(tmp_path, folder, dumper):
    for epoch in (1, 2):
        dumper.notify(metric(epoch, {"loss": 0.25}))
    path = folder / "mlp" / "train.csv"
    path.write_bytes(path.read_bytes()[:-2])  # 2,1,0,0.2

    assert dumper.load_metrics("mlp")["train"]["loss"] == Series([1], [0.25])
    second = CSVDumper()
    second.notify(start(tmp_path, resumed=True, attempt=2))
    second.notify(metric(2, {"loss": 0.75}))
    second.notify(stop())

    assert path.read_text().splitlines()[1:] == ["1,1,0,,0.25", "2,2,0,,0.75"]


def test_a_torn_header_is_written_again(tmp_path, folder, dumper):
    dumper.notify(metric(1, {"loss": 0.25}))
    path = folder / "mlp" / "train.csv"
    path.write_bytes(b"epoch,att")

    second = CSVDumper()
    second.notify(start(tmp_path, resumed=True, attempt=2))
    second.notify(metric(1, {"loss": 0.5}))
    second.notify(stop())

    assert second.load_metrics("mlp")["train"]["loss"] == Series([1], [0.5])


def test_a_torn_index_is_mended(tmp_path, folder):
    first = CSVDumper()
    first.notify(start(tmp_path))
    first.notify(metric(1, {"loss": 0.25}))
    first.notify(stop())
    with (folder / "index.jsonl").open("a") as file:
        file.write('{"kind": "metrics", "model"')

    second = CSVDumper()
    second.notify(start(tmp_path, resumed=True, attempt=2))
    second.notify(metric(2, {"loss": 0.5}, source="test"))
    second.notify(stop())

    assert list(second.load_metrics("mlp")) == ["train", "test"]


def test_damaged_rows_are_reported_and_left_out(folder, dumper):
    for epoch in (1, 2, 3):
        dumper.notify(metric(epoch, {"loss": 0.25}))
    path = folder / "mlp" / "train.csv"
    path.write_bytes(path.read_bytes().replace(b"2,1,0,", b"\0\0\0\0,\xff"))

    with pytest.warns(RecordWarning, match="1 rows"):
        loaded = dumper.load_metrics("mlp")

    assert loaded["train"]["loss"].steps == [1, 3]


def test_a_file_of_somebody_else_is_left_alone(folder, dumper):
    path = folder / "mlp" / "train.csv"
    path.parent.mkdir(parents=True)
    path.write_text("name,age\nAda,36\n")

    with pytest.raises(ValueError, match="Move it away"):
        dumper.notify(metric(1, {"loss": 0.5}))

    assert path.read_text() == "name,age\nAda,36\n"


def test_without_a_run_there_is_nothing_to_load(tmp_path):
    with pytest.raises(AccessOutsideScopeError, match="from_folder"):
        CSVDumper().load_metrics("mlp")
    with pytest.raises(FileNotFoundError, match="no folder"):
        CSVDumper.from_folder(tmp_path / "missing")


def test_after_a_run_its_metrics_can_be_loaded(experiment):
    with experiment.create_run("run"):
        log_events.MetricEvent("mlp", "train", 1, {"loss": 0.5})

    loader = experiment.trackers.named_trackers["csv"]
    assert loader.load_metrics("mlp") == {"train": {"loss": Series([1], [0.5])}}


@pytest.fixture
def read_only(tmp_path):
    """Yield a folder that this process may read alone, also where it is root."""
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as undo:
        folder = pathlib.Path(name)
        folder.chmod(0o555)
        undo.callback(folder.chmod, 0o755)
        if is_root:
            os.seteuid(65534)
            undo.callback(os.seteuid, 0)
        yield folder


def test_a_read_only_folder_fails_at_the_start_alone(experiment, read_only):
    experiment.trackers.remove("csv")
    experiment.trackers.subscribe(CSVDumper(read_only))
    run = experiment.create_run("run", record=False)

    def watch():
        run.start()
        log_events.MetricEvent("mlp", "train", 1, {"loss": 0.5})
        run.stop()

    with pytest.warns(DrytrackWarning) as caught:
        watch()

    failures = [w for w in caught if w.category is TrackerExceptionWarning]
    assert len(failures) == 1
    assert "'csv' failed on StartExperimentEvent" in str(failures[0].message)
    assert run.status == "completed"
    assert list(read_only.iterdir()) == []


FULL_DISK = """
import datetime, os, pathlib, resource, signal, sys
from drytrack.core import log_events
from drytrack.trackers.csv import CSVDumper

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
dumper = CSVDumper()
dumper.notify(log_events.StartExperimentEvent.unpublished(
    {}, "Digits", datetime.datetime.now(), "run", par_dir=pathlib.Path(sys.argv[1])))

def publish(epoch, source="train", **metrics):
    event = log_events.MetricEvent.unpublished("mlp", source, epoch, metrics)
    dumper.notify(event)

def limit(size):
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

def publish_in_vain(epoch, **metrics):
    try:
        publish(epoch, **metrics)
    except OSError as err:
        print(err.errno)
    else:
        print("written")

publish(1, loss=1 / 3)
publish(1, "test")                       # no metrics: a file is noted, not made
path = dumper.run_dir / "mlp" / "train.csv"
before = path.read_bytes()
limit(len(before) + 5)                   # half of a row fits
publish_in_vain(2, loss=2 / 3)
publish_in_vain(3, loss=2 / 3, late=1)   # nor does a wider file
print(path.read_bytes() == before, sorted(os.listdir(path.parent)))
limit(10)
publish_in_vain(1, source="test", loss=0.5)     # nor does a header
limit(resource.RLIM_INFINITY)
publish(2, "test", loss=0.5)
publish(4, loss=1.0)
publish(5, loss=1.0, late=0.5)
print(dumper.load_metrics("mlp"))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="files have no size limit there")
def test_a_full_disk_raises_and_leaves_whole_rows(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )

    first, second, unharmed, third, loaded = done.stdout.splitlines()
    assert (first, second, third) == (str(errno.EFBIG),) * 3
    assert unharmed == "True ['train.csv']"
    assert loaded == str(
        {
            "train": {
                "loss": Series([1, 4, 5], [1 / 3, 1.0, 1.0]),
                "late": Series([5], [0.5]),
            },
            "test": {"loss": Series([2], [0.5])},
        }
    )
